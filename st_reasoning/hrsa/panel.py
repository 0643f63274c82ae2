"""The panel: every HRSA measure at every layer of two models, as one JSON-ready record."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from st_reasoning.attention import probe_attention
from st_reasoning.config import versions
from st_reasoning.errors import InputError
from st_reasoning.files import content_hash
from st_reasoning.hrsa.activations import hidden_states, tokenise, transformer
from st_reasoning.hrsa.compare import compare
from st_reasoning.hrsa.measures import check_labels
from st_reasoning.hrsa.settings import Precision, Settings, Stopwatch

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SCHEMA = 1


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
    estimator: Precision = "fast",
    batch_tokens: int = 4096,
    max_tokens: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Compare two models layer by layer on the same texts, with one forward pass each.

    Args:
        model_a: One model.
        model_b: The other one: the same tokenization of every text and as many layers. At another width the
            measures that pair dimensions are null, and ``omitted`` says why.
        texts: m texts, run as plain text without prompt or chat template.
        labels: A class per text for the linear probe, at least 5 texts of each.
        k: Numbers of neighbours.
        names: What the models are called in the result.
        seed: Of the Procrustes and probe splits.
        sink_ratio: See :class:`~st_reasoning.hrsa.settings.Settings`.
        test_share: Share of sentences Procrustes and the probe are scored on.
        estimator: ``"fast"`` or ``"exact"``, see :class:`~st_reasoning.hrsa.settings.Settings`.
        batch_tokens: Positions per forward pass, pads included.
        max_tokens: Longer texts are cut; by default at each model's ``max_seq_length``.
        progress: Whether to show progress bars.

    Returns:
        A record of plain dictionaries, lists, texts and numbers, undefined values being None. ``layers`` holds every
        measure beside its chance level; ``sensitivity``, layer by layer, what the raw values owe to a few tokens and
        dimensions; ``matrices`` every layer of ``model_a`` (rows) with every layer of ``model_b`` (columns);
        ``omitted`` why a measure is None. ``models``, ``corpus``, ``settings``, ``versions`` and ``runtime`` say what
        was compared, how, with what and for how long.

    Raises:
        InputError: for texts, labels or models that cannot be compared; tokens are compared before anything
            is run.
    """
    settings = Settings(
        k=tuple(sorted(set(k))), seed=seed, sink_ratio=sink_ratio, test_share=test_share, estimator=estimator
    )
    if len(set(names)) != 2 or not all(names) or "either" in names:
        raise InputError(f"names: expected two different names, neither of them 'either', got {names}")
    models = (model_a, model_b)
    ids_a, ids_b = (tokenise(model, texts, max_tokens=max_tokens) for model in models)
    _check_same_tokens(ids_a, ids_b, names)
    if max(settings.k) >= sum(map(len, ids_a)):
        raise InputError(f"k: expected less than the {sum(map(len, ids_a))} tokens of the texts, got {max(settings.k)}")
    if labels is not None:
        check_labels(labels, len(texts))
    facts = [_facts(model, name) for model, name in zip(models, names, strict=True)]
    watch = Stopwatch()
    states = []
    for model, name in zip(models, names, strict=True):
        with watch.part(f"forward_{name}"):
            states.append(
                hidden_states(model, texts, batch_tokens=batch_tokens, max_tokens=max_tokens, progress=progress)
            )
    a, b = states
    compared = compare(a, b, names=names, settings=settings, labels=labels, stopwatch=watch, progress=progress)
    lengths = [len(row) for row in ids_a]
    return {
        "schema": SCHEMA,
        "models": [
            {**fact, "layers": len(found.states) - 1, "width": found.states[0].shape[1]}
            for fact, found in zip(facts, states, strict=True)
        ],
        "corpus": {
            "texts": len(texts),
            "tokens": sum(lengths),
            "distinct_tokens": len(set(a.token_ids.tolist())),
            "longest": max(lengths),
            "hash": content_hash(list(texts)),
        },
        "settings": {
            "k": list(settings.k),
            "seed": settings.seed,
            "sink_ratio": settings.sink_ratio,
            "test_share": settings.test_share,
            "estimator": settings.estimator,
            "tokens": settings.tokens,
            "queries": settings.queries,
            "minibatch": settings.minibatch,
            "max_tokens": max_tokens,
            "batch_tokens": batch_tokens,
            "labels": None if labels is None else content_hash([str(label) for label in labels]),
        },
        **compared,
        "runtime": {
            "seconds": {part: round(seconds, 3) for part, seconds in watch.seconds.items()},
            "threads": torch.get_num_threads(),
        },
        "versions": versions(),
    }


def _check_same_tokens(ids_a: list[list[int]], ids_b: list[list[int]], names: tuple[str, str]) -> None:
    for number, (row_a, row_b) in enumerate(zip(ids_a, ids_b, strict=True)):
        if row_a != row_b:
            raise InputError(
                f"texts[{number}]: expected the same tokens from both models, "
                f"got {_excerpt(row_a)} from {names[0]} and {_excerpt(row_b)} from {names[1]}; "
                "aligning different tokenizers is not supported yet"
            )


def _excerpt(ids: list[int]) -> str:
    return f"{len(ids)} ({' '.join(map(str, ids[:8]))}{' ...' if len(ids) > 8 else ''})"


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
