"""The panel: every HRSA measure at every layer of two models, as one JSON-ready record."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from st_reasoning.attention import probe_attention
from st_reasoning.config import versions
from st_reasoning.errors import InputError
from st_reasoning.files import content_hash
from st_reasoning.hrsa.activations import transformer
from st_reasoning.hrsa.align import Alignment, align
from st_reasoning.hrsa.chunk import Chunk
from st_reasoning.hrsa.engine import Engine
from st_reasoning.hrsa.forward import lockstep
from st_reasoning.hrsa.measures import check_labels
from st_reasoning.hrsa.reading import read
from st_reasoning.hrsa.settings import Precision, Settings, Stopwatch

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SCHEMA = 3
# For the fast estimator, which pairs tokens of different texts, and for a comparison of one vector per text.
FEWEST_TEXTS = 8


def panel(
    model_a: SentenceTransformer,
    model_b: SentenceTransformer,
    texts: Sequence[str],
    *,
    labels: Sequence[Hashable] | None = None,
    k: Sequence[int] = (5, 10, 50),
    names: tuple[str, str] = ("a", "b"),
    seed: int = 0,
    sink_ratio: float = 10.0,
    test_share: float = 0.2,
    estimator: Precision | None = None,
    probe: Literal["logistic", "ridge"] = "logistic",
    batch_tokens: int = 1024,
    max_tokens: int | None = None,
    cache: Path | None = None,
    ceiling: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Compare two models layer by layer on the same texts, with one forward pass each.

    In a process group (torch.distributed) each process runs its share of the texts, and all return the same record.

    Args:
        model_a: One model.
        model_b: The other one. At another width the measures that pair dimensions are null, and ``omitted`` says why;
            at another depth, layers are matched by relative depth; where its tokenizer differs, tokens are compared
            that end at the same character.
        texts: m texts, run as plain text without prompt or chat template.
        labels: A class per text for the linear probe, at least 5 texts of each.
        k: Numbers of neighbours.
        names: What the models are called in the result.
        seed: Of the Procrustes and probe splits.
        sink_ratio: See :class:`~st_reasoning.hrsa.settings.Settings`.
        test_share: Share of sentences Procrustes and the probe are scored on.
        estimator: ``"fast"`` or ``"exact"``, see :class:`~st_reasoning.hrsa.settings.Settings`; by default fast where
            there are enough texts for it.
        probe: How the linear probe is fitted.
        batch_tokens: Positions per forward pass, pads included.
        max_tokens: Longer texts are cut; by default to the shorter ``max_seq_length`` of the two.
        cache: A folder that keeps hidden states, for a run that is killed and for later ones with one of the models.
        ceiling: Whether to compare ``model_a`` with itself at another precision too, for two forward passes more: what
            no two models can be expected to exceed.
        progress: Whether to show progress bars.

    Returns:
        A record of plain dictionaries, lists, texts and numbers, undefined values being None; SCHEMA.md lists them.
        ``layers`` holds every measure with its interval, beside its chance level; ``sensitivity``, layer by layer,
        what raw values owe to a few tokens and dimensions; ``matrices`` every layer of ``model_a`` (rows) with every
        layer of ``model_b`` (columns); ``reading`` what all that means in words; ``omitted`` why a measure is None.
        ``pooled`` holds the same of one vector per text, with a ``reading`` of its own, for two embedders. ``models``,
        ``corpus``, ``settings``, ``versions`` and ``runtime`` say what was compared, how, with what and for how long.

    Raises:
        InputError: for texts, labels or models that cannot be compared; tokens are compared before anything
            is run.
    """
    if estimator is None:
        estimator = "fast" if len(texts) >= FEWEST_TEXTS else "exact"
    if estimator == "fast" and len(texts) < FEWEST_TEXTS:
        raise InputError(f'texts: the fast estimator needs at least {FEWEST_TEXTS}, got {len(texts)}; use "exact"')
    settings = Settings(
        k=tuple(sorted(set(k))),
        seed=seed,
        sink_ratio=sink_ratio,
        test_share=test_share,
        estimator=estimator,
        probe=probe,
    )
    if len(set(names)) != 2 or not all(names) or "either" in names:
        raise InputError(f"names: expected two different names, neither of them 'either', got {names}")
    models = (model_a, model_b)
    alignment = align(model_a, model_b, texts, max_tokens=max_tokens)
    if max(settings.k) >= alignment.tokens:
        raise InputError(f"k: expected less than the {alignment.tokens} tokens of the texts, got {max(settings.k)}")
    if labels is not None:
        check_labels(labels, len(texts))
    facts = [_facts(model, name) for model, name in zip(models, names, strict=True)]
    watch, shapes = Stopwatch(), list[list[int]]()
    with Engine(settings, names=names, labels=labels, stopwatch=watch, progress=progress) as tokens:
        pooled = _pooled_engine(models, len(texts), settings, names, watch)
        stream = lockstep(
            model_a,
            model_b,
            texts,
            batch_tokens=batch_tokens,
            pooled=pooled is not None or labels is not None,
            cache=cache,
            progress=progress,
            alignment=alignment,
        )
        with pooled or contextlib.nullcontext():
            while True:
                with watch.part("forward"):
                    chunk = next(stream, None)
                if chunk is None:
                    break
                tokens.update(chunk)
                if pooled is not None:
                    pooled.update(_texts_as_tokens(chunk))
                del chunk  # or it would be held while the next batch is run
            tokens.sync()
            compared = tokens.compute()
            shapes = tokens.shapes
            if pooled is not None:
                pooled.sync()
            sentences = None if pooled is None else pooled.compute()

    def ceiling_of() -> dict[str, Any]:
        other, precision = _at_other_precision(model_a)
        with watch.part("ceiling"):
            found = panel(
                model_a,
                other,
                texts,
                labels=labels,
                k=settings.k,
                seed=seed,
                sink_ratio=sink_ratio,
                test_share=test_share,
                estimator=estimator,
                probe=probe,
                batch_tokens=batch_tokens,
                max_tokens=max_tokens,
                cache=cache,
                progress=progress,
            )
        return {"precision": precision, "layers": found["layers"], "sensitivity": found["sensitivity"]}

    if sentences is None:
        compared["omitted"]["pooled"] = "needs two embedders and more texts than the smallest k"
    record = {
        "schema": SCHEMA,
        "models": [
            {**fact, "layers": layers - 1, "width": width} for fact, (layers, width) in zip(facts, shapes, strict=True)
        ],
        "corpus": {
            "texts": len(texts),
            "tokens": alignment.tokens,
            "distinct_tokens": _distinct(alignment),
            "longest": max(map(len, alignment.ids_a)),
            "hash": content_hash(list(texts)),
            "alignment": alignment.to_mapping(),
        },
        "settings": {
            "k": list(settings.k),
            "seed": settings.seed,
            "sink_ratio": settings.sink_ratio,
            "test_share": settings.test_share,
            "estimator": settings.estimator,
            "probe": settings.probe,
            "tokens": settings.tokens,
            "queries": settings.queries,
            "minibatch": settings.minibatch,
            "blocks": settings.blocks,
            "max_tokens": max_tokens,
            "batch_tokens": batch_tokens,
            "labels": None if labels is None else content_hash([str(label) for label in labels]),
        },
        **compared,
        "pooled": sentences,
        "ceiling": ceiling_of() if ceiling else None,
        "runtime": {
            "seconds": {part: round(seconds, 3) for part, seconds in watch.seconds.items()},
            "threads": torch.get_num_threads(),
        },
        "versions": versions(),
    }
    if sentences is not None:
        sentences["omitted"]["linear_probe"] = (
            "it stands in the layers of the panel: it is of one vector per text anyway"
        )
        settings_of = {**record["settings"], "k": [int(k) for k in sentences["layers"][0]["knn_overlap"]]}
        alone = {**record, **sentences, "settings": settings_of, "ceiling": None}
        sentences["reading"] = read(alone, unit="text")
    return {**record, "reading": read(record)}


def _at_other_precision(model: SentenceTransformer) -> tuple[SentenceTransformer, str]:
    """Return a copy of a model in bfloat16, or in float32 if it has less than that already, and the name of it."""
    precision = torch.bfloat16 if transformer(model).dtype == torch.float32 else torch.float32
    return copy.deepcopy(model).to(precision), str(precision).removeprefix("torch.")


def _pooled_engine(
    models: tuple[SentenceTransformer, ...], texts: int, settings: Settings, names: tuple[str, str], watch: Stopwatch
) -> Engine | None:
    """Return an engine for one vector per text, where both models make such vectors and the texts are enough."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    k = tuple(size for size in settings.k if size < texts)
    embedders = all(any(isinstance(module, Pooling) for module in model) for model in models)
    if not k or texts < FEWEST_TEXTS or not embedders:
        return None
    return Engine(replace(settings, k=k), names=names, stopwatch=watch)


def _texts_as_tokens(chunk: Chunk) -> Chunk:
    """Return the pooled states of a chunk as if each text were one token of a type of its own."""
    assert chunk.pooled_a is not None
    assert chunk.pooled_b is not None
    return Chunk(chunk.pooled_a, chunk.pooled_b, chunk.texts, chunk.texts, None, None, chunk.texts)


def _distinct(alignment: Alignment) -> int:
    """Return how many token types model a reads among the compared tokens."""
    return len(
        {
            ids[place]
            for ids, places in zip(alignment.ids_a, alignment.positions_a, strict=True)
            for place in places.tolist()
        }
    )


def _facts(model: SentenceTransformer, name: str) -> dict[str, Any]:
    """Return what a reader must know of a model to judge a comparison."""
    network = transformer(model)
    return {
        "name": name,
        "source": str(getattr(network.config, "name_or_path", "")) or None,
        "architecture": type(network).__name__,
        "attention": _attention(model, name),
        "attention_implementation": getattr(network.config, "_attn_implementation", None),
        "dtype": str(network.dtype).removeprefix("torch."),
        "device": str(network.device),
        "max_seq_length": model.max_seq_length,
    }


def _attention(model: SentenceTransformer, name: str) -> str:
    """Return ``"causal"`` or ``"bidirectional"``: what the model does, which its config must not contradict.

    Raises:
        InputError: if the two differ, or if the model is neither.
    """
    report = probe_attention(model)
    is_causal = getattr(transformer(model).config.get_text_config(), "is_causal", None)  # most configs are silent
    declared = None if is_causal is None else "causal" if is_causal else "bidirectional"
    if report.attention == "mixed" or declared not in (None, report.attention):
        said = f"its config says {declared}, but " if declared else ""
        raise InputError(f"model {name}: {said}{report.describe()}")
    return report.attention
