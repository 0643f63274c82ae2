"""Folders and models in memory as mteb models, each under a name and revision that no other model shares.

mteb caches scores by name and revision. A folder's revision is the hash of its files, that of a model in
memory the hash of its parameters and configuration: a model that changed is another model, whatever it is
called.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mteb.models import SentenceTransformerEncoderWrapper
from mteb.models.model_meta import ModelMeta, ScoringFunction

from mteb_tasks.embedding_cache import cache_embeddings, usual_store
from mteb_tasks.instructed import InstructedEmbedder, prompts_used, refuse_other_prompt
from mteb_tasks.model_state import memory_hash
from mteb_tasks.models import trained_on
from st_reasoning.errors import InputError
from st_reasoning.files import content_hash, folder_hash, read_json

__all__ = [
    "folder_meta",
    "folder_of",
    "load_folder",
    "memory_hash",
    "name_by_content",
    "prompts_used",
    "refuse_other_prompt",
]

MODULES = "modules.json"
OWN_FILE = "st_reasoning.json"


def folder_of(model_name: str) -> Path | None:
    """Return the folder that a model name means, or None for a name on the Hub.

    Raises:
        InputError: for a path to a folder that does not exist, or that holds no sentence-transformers model.
    """
    folder = Path(model_name).expanduser()
    if not folder.is_dir():
        if model_name.startswith((".", "/", "~")):
            raise InputError(f"no such folder: {model_name}; expected a sentence-transformers model")
        return None
    if not (folder / MODULES).is_file():
        raise InputError(
            f"{model_name} is not a sentence-transformers model: it has no {MODULES}. "
            "`st-reasoning convert` makes one of a language model"
        )
    return folder.resolve()


def folder_meta(
    folder: Path, *, revision: str | None = None, experiment_kwargs: Mapping[str, Any] | None = None
) -> ModelMeta:
    """Describe the sentence-transformers model in ``folder`` without loading it.

    Args:
        folder: An absolute path.
        revision: The revision the caller expects, if any.
        experiment_kwargs: Handed on to mteb, which gives the scores a folder of their own by them.

    Raises:
        InputError: if the files are not of that revision, or describe another kind of model.
    """
    found = revision_of(folder)
    if revision is not None and revision != found:
        raise InputError(f"the files in {folder} have revision {found}; expected {revision}")
    config = _read_if_there(folder / "config_sentence_transformers.json")
    kind = config.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise InputError(f"{folder} holds a {kind}; expected a SentenceTransformer")
    template = instruction_template(folder)
    record = _read_if_there(folder / OWN_FILE)
    # create_empty knows the fields that a later mteb may require.
    return ModelMeta.create_empty(
        overwrites={
            "loader": load_folder,
            "loader_kwargs": {"folder": str(folder), "instruction_template": template},
            "name": f"local/{folder.name}",
            "revision": found,
            "n_parameters": _parameters(folder),
            "embed_dim": _width(folder),
            "max_tokens": _longest_input(folder),
            "framework": ["Sentence Transformers", "PyTorch"],
            "similarity_fn_name": ScoringFunction.from_str(config.get("similarity_fn_name") or "cosine"),
            "use_instructions": template is not None,
            "experiment_kwargs": experiment_kwargs,
            # A folder or file is no name that others could look up.
            "adapted_from": record.get("backbone") if record.get("source") == "hub" else None,
            "training_datasets": _trained_on(record),
        }
    )


def revision_of(folder: Path) -> str:
    """Return the hash of a model's files; of a LoRA adapter with those of the folder whose weights it adapts.

    An adapter is saved without them: trained anew in their place, they would make another model of the same files.
    """
    found = folder_hash(folder)
    bases = {_read_if_there(path).get("base_model_name_or_path") for path in folder.rglob("adapter_config.json")}
    there = sorted(base for base in bases if isinstance(base, str) and base and Path(base).is_dir())
    return content_hash([found, *(folder_hash(Path(base)) for base in there)]) if there else found


def load_folder(
    name: str,
    revision: str | None = None,
    *,
    folder: str,
    instruction_template: str | None = None,
    device: str | None = None,
    embed_dim: int | None = None,
    **kwargs: Any,
) -> SentenceTransformerEncoderWrapper:
    """Load a folder described by :func:`folder_meta`; mteb calls this through ``ModelMeta.load_model``.

    Its embeddings are kept for later tasks: see :mod:`mteb_tasks.embedding_cache`.

    Raises:
        InputError: if the files changed since they were described; their scores would go under the old
        revision.
    """
    if revision is not None and (found := revision_of(Path(folder))) != revision:
        raise InputError(f"{folder} changed since it was looked up: expected revision {revision}, got {found}")
    loaded: dict[str, Any] = {"device": device, "embed_dim": embed_dim, "local_files_only": True, **kwargs}
    wrapper = (
        SentenceTransformerEncoderWrapper(folder, **loaded)
        if instruction_template is None
        else InstructedEmbedder(folder, instruction_template=instruction_template, **loaded)
    )
    if revision is not None and (store := usual_store()) is not None:
        cache_embeddings(wrapper.model, identity=revision, store=store)
    return wrapper


def instruction_template(folder: Path) -> str | None:
    """Return the template this project's converter wrote into ``folder``, or None.

    Raises:
        InputError: if there is one without a place for the instruction.
    """
    template = _read_if_there(folder / OWN_FILE).get("instruction_template")
    if template is not None and not (isinstance(template, str) and "{instruction}" in template):
        raise InputError(
            f"{folder / OWN_FILE}, instruction_template: expected a text with {{instruction}}, got {template!r}"
        )
    return template


def name_by_content(meta: ModelMeta, model: Any) -> ModelMeta:
    """Give a model that has no revision one of its own; stock mteb lets all of them share one set of scores.

    Args:
        meta: What mteb found out about ``model``.
        model: A ``SentenceTransformer``. Not its files: it may have been trained since.

    Returns:
        ``meta`` itself where it has a revision, which is a model that the Hub knows.
    """
    nameless = ModelMeta.create_empty()
    if meta.revision != nameless.revision:
        return meta
    name = meta.name
    if name == nameless.name:
        origin = getattr(getattr(model.transformers_model, "config", None), "name_or_path", "") or ""
        name = f"local/{Path(origin).name or 'unnamed'}"
    return meta.model_copy(update={"name": name, "revision": memory_hash(model)})


def _trained_on(record: Mapping[str, Any]) -> set[str] | None:
    """Return the data sets of the recipe by which this project trained a model; None where it did not."""
    recipe = (record.get("training") or {}).get("recipe") or {}
    return trained_on(each["name"] for each in recipe["data"]) if recipe.get("data") else None


def _read_if_there(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _parameters(folder: Path) -> int | None:
    """Count the values in all safetensors files by their headers; None for other weight files."""
    from safetensors import safe_open

    if any(folder.rglob("pytorch_model*.bin")):
        return None
    count = 0
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, framework="numpy") as weights:
            count += sum(math.prod(weights.get_slice(key).get_shape()) for key in weights.keys())  # noqa: SIM118
    return count or None


def _width(folder: Path) -> int | None:
    """Return the width of the embeddings: what the last module that states one says."""
    width = None
    for module in read_json(folder / MODULES):
        config = _read_if_there(folder / module["path"] / "config.json") if module["path"] else {}
        for key in ("embedding_dimension", "word_embedding_dimension", "out_features"):
            width = config.get(key, width)
    return width


def _longest_input(folder: Path) -> int | None:
    """Return how many tokens are read before the rest is cut off, the smallest limit that is written down."""
    stated = (
        _read_if_there(folder / "sentence_bert_config.json").get("max_seq_length"),
        _read_if_there(folder / "tokenizer_config.json").get("model_max_length"),
        _read_if_there(folder / "config.json").get("max_position_embeddings"),
    )
    # transformers writes 10^30 for "no limit".
    return min((int(limit) for limit in stated if limit and limit < 10**9), default=None)
