"""Embeddings that one task has computed are there for the next, and for the next run.

mteb's ``CachedEmbeddingWrapper`` keeps them by task and text alone: no second task finds them, and another model,
prompt or length would. Here everything that decides an embedding is in the key. It is on for models that mteb loads
from a folder, and lies in ``~/.cache/st-reasoning/embeddings`` (``XDG_CACHE_HOME`` is heeded), up to 2 GB. Environment
variables change that:

``ST_REASONING_EMBEDDINGS``
    ``0`` switches it off; a folder is used instead of the usual one.
``ST_REASONING_EMBEDDINGS_MB``
    How many megabytes are kept.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import warnings
from pathlib import Path
from typing import Any

from mteb_tasks.embedding_store import EmbeddingStore
from mteb_tasks.model_state import settings, tokenizer_state, weights_sample
from st_reasoning.errors import InputError
from st_reasoning.files import content_hash

logger = logging.getLogger("mteb.st_reasoning")

SWITCH, LIMIT = "ST_REASONING_EMBEDDINGS", "ST_REASONING_EMBEDDINGS_MB"
MEGABYTES = 2_000
CHUNK = 4_096  # texts between two saves, for a run that is killed
# Arguments of encode() that change how it works but not what comes out.
WITHOUT_EFFECT = ("inputs", "prompt", "prompt_name", "batch_size", "show_progress_bar", "device", "pool", "chunk_size")


def usual_store() -> EmbeddingStore | None:
    """Return the store that the environment asks for, or None where it is switched off.

    Raises:
        InputError: if the limit is not a number of megabytes.
    """
    where = os.environ.get(SWITCH, "")
    if where == "0":
        return None
    megabytes = os.environ.get(LIMIT, str(MEGABYTES))
    if not megabytes.isdecimal() or int(megabytes) == 0:
        raise InputError(f"{LIMIT} is {megabytes!r}; expected a number of megabytes, or {SWITCH}=0 for no cache")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(where).expanduser() if where else home / "st-reasoning" / "embeddings"
    return EmbeddingStore(folder, limit=int(megabytes) * 1_000_000)


def cache_embeddings(model: Any, *, identity: str, store: EmbeddingStore) -> None:
    """Make ``model.encode``, and the two methods that call it, look into ``store`` before they compute.

    Args:
        model: A ``SentenceTransformer`` whose weights are those of ``identity``. One that is changed afterwards has
            other keys.
        identity: Name and content hash of the files that it was loaded from.
        store: Where embeddings are kept.
    """
    model.encode = _CachedEncode(model, identity=identity, store=store)


class _CachedEncode:
    """Stands in for the method ``encode`` of one model; with a copy of the model it only computes."""

    def __init__(self, model: Any, *, identity: str, store: EmbeddingStore) -> None:
        self.model, self.identity = model, identity
        self.store: EmbeddingStore | None = store
        self.tokenizer = content_hash(tokenizer_state(model))  # now, before use sets truncation and padding in it

    def __getstate__(self) -> dict[str, Any]:
        # A copy may be trained; the processes that encode() starts work for a call that has looked already.
        return {**vars(self), "store": None}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        compute = functools.partial(type(self.model).encode, self.model)
        options = self._options(compute, args, kwargs)
        if self.store is None or options is None or not _plain(options["inputs"], options):
            return compute(*args, **kwargs)
        scope = _scope(self.model, options, identity=self.identity, tokenizer=self.tokenizer)
        texts = options.pop("inputs")
        return _look_up(texts, scope, self.store, functools.partial(compute, **options))

    @staticmethod
    def _options(compute: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Return every argument of encode() by its name; None for a call that encode() itself must answer."""
        try:
            given = inspect.signature(compute).bind(*args, **kwargs)
        except TypeError:
            return None
        given.apply_defaults()
        options: dict[str, Any] = dict(given.arguments)
        further = options.pop("kwargs", {})
        return {**options, **further}


def _plain(texts: Any, options: dict[str, Any]) -> bool:
    """Return whether an embedding is wanted for each of some texts, one that depends on no other text."""
    return (
        isinstance(texts, list)
        and bool(texts)
        and all(isinstance(text, str) for text in texts)
        and options["output_value"] == "sentence_embedding"
        and options["precision"] == "float32"  # the others are scaled by all texts of the call
        and options["convert_to_numpy"]
        and not options["convert_to_tensor"]
    )


def _scope(model: Any, options: dict[str, Any], *, identity: str, tokenizer: str) -> str:
    """Return the hash of everything but the text that decides what encode() returns."""
    import sentence_transformers
    import torch
    import transformers

    prompt = options["prompt"]
    if prompt is None:
        name = options["prompt_name"] or model.default_prompt_name
        prompt = (model.prompts or {}).get(name) if name else None
    config = getattr(model.transformers_model, "config", None)
    without_effect = WITHOUT_EFFECT if _reads_sides(model) else (*WITHOUT_EFFECT, "task")
    decides = {
        "model": identity,
        "weights": weights_sample(model),
        "tokenizer": tokenizer,
        "settings": settings(model),
        "attention": getattr(config, "_attn_implementation", None),
        "device": torch.device(options["device"] if isinstance(options["device"], str) else model.device).type,
        "prompt": prompt or "",
        "options": {name: value for name, value in options.items() if name not in without_effect},
        "versions": [module.__version__ for module in (sentence_transformers, torch, transformers)],
    }
    return content_hash(_as_json(decides))


def _reads_sides(model: Any) -> bool:
    """Return whether ``encode_query`` and ``encode_document`` may differ in more than the prompt: ``task`` says which.

    Of the modules of sentence-transformers only a Router looks at it. Others may, and so may a model that says so.
    """
    ours = all(type(module).__module__.startswith("sentence_transformers.") for module in model)
    return not ours or "task" in model.get_model_kwargs()


def _look_up(texts: list[str], scope: str, store: EmbeddingStore, compute: Any) -> Any:
    """Return the embeddings of ``texts``, of shape (n, d), computing those of different texts that are not stored."""
    import numpy as np

    known = store.find(scope, texts)
    missing = sorted({*texts} - known.keys(), key=lambda text: (-len(text), text))  # alike in length: little padding
    logger.info("%d of %d embeddings are stored", len({*texts}) - len(missing), len({*texts}))
    for start in range(0, len(missing), CHUNK):
        chunk = missing[start : start + CHUNK]
        new = dict(zip(chunk, np.asarray(compute(chunk)), strict=True))
        known.update(new)
        try:
            store.add(scope, new)
        except OSError as error:
            warnings.warn(
                f"embeddings cannot be stored in {store.folder} ({error}); the evaluation goes on without. Set "
                f"{SWITCH} to another folder, or to 0",
                RuntimeWarning,
                stacklevel=2,
            )
    return np.stack([known[text] for text in texts])


def _as_json(value: Any) -> Any:
    """Return ``value`` with everything that JSON has no type for as its text."""
    if isinstance(value, dict):
        return {str(key): _as_json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(each) for each in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
