"""All HRSA measures on the activations of two models: no model, no file, one pass over the layers."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from st_reasoning.errors import InputError
from st_reasoning.hrsa import measures
from st_reasoning.hrsa.activations import Activations

_WITHOUT_SINKS = (
    "linear_cka_without_sinks",
    "dimension_correlation_without_sinks",
    "procrustes_without_sinks",
)
# Debiased CKA and a split into fitted and held-out rows need this many.
_FEWEST_TOKENS = 4


@dataclass(frozen=True)
class Settings:
    """What a panel depends on beside models and texts.

    Attributes:
        k: Numbers of neighbours.
        seed: Of the splits of Procrustes (sentences) and the probe.
        sink_ratio: A token is a sink where its norm is more than this many times the median norm of the
            layer. Massive activations are some hundred times it, ordinary tokens hardly twice. Values
            "without sinks" leave out the tokens that are one at any layer of either model.
        test_share: Share of sentences that Procrustes and the probe are scored on.
    """

    k: tuple[int, ...] = (5, 10, 50)
    seed: int = 0
    sink_ratio: float = 10.0
    test_share: float = 0.2

    def __post_init__(self) -> None:
        if not self.k or min(self.k) < 1:
            raise InputError(f"k: expected numbers of neighbours of at least 1, got {self.k}")
        if not self.sink_ratio > 1:
            raise InputError(f"sink_ratio: expected more than 1, got {self.sink_ratio}")
        if not 0 < self.test_share < 1:
            raise InputError(f"test_share: expected a share between 0 and 1, got {self.test_share}")


@dataclass
class Stopwatch:
    """Seconds spent by part; a part entered again adds up."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block under a name."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def compare(
    a: Activations,
    b: Activations,
    *,
    names: tuple[str, str],
    settings: Settings,
    labels: Sequence[Hashable] | None = None,
    stopwatch: Stopwatch | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Return the measured part of a panel: layers, matrices, sensitivity, sinks_left_out and omitted.

    Args:
        a: Activations of one model.
        b: Activations of the other: the same tokens, as many layers.
        names: What the two are called in the result.
        settings: See :class:`Settings`.
        labels: A class per sentence, for the probe; without them it is omitted.
        stopwatch: Where to add the seconds of each part.
        progress: Whether to show a bar over the layers.

    Raises:
        InputError: for tokens or layers that do not match, or too few tokens for the largest ``k``.
    """
    watch = stopwatch if stopwatch is not None else Stopwatch()
    _check_aligned(a, b, settings)
    whole = _Matrices.of(a.states, b.states, watch)
    kept = ~_sinks_anywhere(a, b, settings.sink_ratio)
    guarded, states, sentence = whole, (a.states, b.states), a.sentence
    usable = int(kept.sum()) >= _FEWEST_TOKENS and len(set(sentence[kept].tolist())) > 1
    if usable and not kept.all():
        sentence = sentence[kept]
        states = [x[kept] for x in a.states], [y[kept] for y in b.states]
        with watch.part("sensitivity"):
            guarded = _Matrices.of(*states, Stopwatch())
    probed = labels if whole.correlation is not None else None
    layers, sensitivity = [], []
    for number in tqdm(range(len(a.states)), desc="layers", disable=not progress):
        x, y = a.states[number], b.states[number]
        raw = _procrustes(x, y, a.sentence, settings, watch)
        layers.append({
            "layer": number,
            "dimension_correlation": _correlation(x, y, whole.correlation, number, names),
            "procrustes": raw,
            "linear_cka": _linear_cka(x, y, whole.cka, number),
            "knn_overlap": _knn_overlap(x, y, settings, watch),
            "linear_probe": _probe(a.features[number], b.features[number], probed, settings, watch),
        })  # fmt: skip
        with watch.part("sensitivity"):
            entry = {"layer": number, **_domination(x, y, whole.cka, number, names, settings)}
            if usable:
                x, y = states[0][number], states[1][number]
                entry |= {
                    "linear_cka_without_sinks": _both(guarded.cka, number),
                    "dimension_correlation_without_sinks": _cell(guarded.correlation, number),
                    # Drawn by sentence, the split is that of the raw value unless a sentence is all sinks.
                    "procrustes_without_sinks": (
                        raw if kept.all() else _procrustes(x, y, sentence, settings, Stopwatch())
                    ),
                }
            else:
                entry |= dict.fromkeys(_WITHOUT_SINKS)
            sensitivity.append(entry)
    return {
        "layers": layers,
        "matrices": whole.to_json("") | (guarded.to_json("_without_sinks") if usable else {}),
        "sensitivity": sensitivity,
        "sinks_left_out": int((~kept).sum()) if usable else None,
        "omitted": _omitted(a, b, labels, usable=usable),
    }


def sink_tokens(x: Tensor, ratio: float) -> Tensor:
    """Return which rows of x [n, d] are longer than ``ratio`` times the median row, as a boolean [n]."""
    norms = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)
    return torch.gt(norms, ratio * norms.median())


@dataclass(frozen=True)
class _Matrices:
    """The measures that pair every layer with every layer; correlation is None where widths differ."""

    cka: measures.LinearCKA
    correlation: Tensor | None

    @classmethod
    def of(cls, xs: Sequence[Tensor], ys: Sequence[Tensor], watch: Stopwatch) -> _Matrices:
        with watch.part("linear_cka"):
            cka = measures.linear_cka_statistics(xs, ys)
        if xs[0].shape[1] != ys[0].shape[1]:
            return cls(cka, None)
        with watch.part("dimension_correlation"):
            return cls(cka, measures.dimension_correlation_matrix(xs, ys))

    def to_json(self, suffix: str) -> dict[str, list[list[float | None]] | None]:
        return {
            f"linear_cka{suffix}": _rows(self.cka.biased),
            f"linear_cka_debiased{suffix}": _rows(self.cka.debiased),
            f"dimension_correlation{suffix}": None if self.correlation is None else _rows(self.correlation),
        }


def _check_aligned(a: Activations, b: Activations, settings: Settings) -> None:
    if len(a.states) != len(b.states):
        raise InputError(
            f"models: expected the same number of layers, got {len(a.states) - 1} and {len(b.states) - 1}; "
            "comparing models of different depth is not supported yet"
        )
    if not (torch.equal(a.token_ids, b.token_ids) and torch.equal(a.sentence, b.sentence)):
        raise InputError("models: expected the same tokens in the same sentences, got different ones")
    tokens = len(a.token_ids)
    if max(settings.k) >= tokens:
        raise InputError(f"k: expected less than the {tokens} tokens of the texts, got {max(settings.k)}")
    if len(a.features[0]) < 2:
        raise InputError("texts: expected at least 2, one to fit Procrustes on and one to score it on, got 1")


def _sinks_anywhere(a: Activations, b: Activations, ratio: float) -> Tensor:
    """Return which tokens are sinks at any layer of either model, as a boolean [n]."""
    return torch.stack([sink_tokens(x, ratio) for x in (*a.states, *b.states)]).any(dim=0)


def _omitted(a: Activations, b: Activations, labels: Sequence[Hashable] | None, *, usable: bool) -> dict[str, str]:
    """Return why a measure is null, for each that is."""
    omitted = {}
    if labels is None:
        omitted["linear_probe"] = "no labels were given"
    widths = [found.states[0].shape[1] for found in (a, b)]
    if widths[0] != widths[1]:
        reason = f"widths differ: {widths[0]} and {widths[1]}"
        omitted |= dict.fromkeys(("dimension_correlation", "procrustes", "linear_probe"), reason)
    if not usable:
        omitted |= dict.fromkeys(_WITHOUT_SINKS, "nearly every token is a sink at some layer")
    return omitted


def _correlation(
    x: Tensor, y: Tensor, matrix: Tensor | None, layer: int, names: tuple[str, str]
) -> dict[str, Any] | None:
    if matrix is None:
        return None
    constant = [int(measures.constant_columns(states).sum()) for states in (x, y)]
    return {
        "value": _cell(matrix, layer),
        "chance": 0.0,
        "constant_columns": dict(zip(names, constant, strict=True)),
    }


def _procrustes(x: Tensor, y: Tensor, sentence: Tensor, settings: Settings, watch: Stopwatch) -> dict[str, Any] | None:
    if x.shape[1] != y.shape[1]:
        return None
    with watch.part("procrustes"):
        found = measures.procrustes(x, y, groups=sentence, test_share=settings.test_share, seed=settings.seed)
    return {
        "inverse_row_entropy": found.inverse_row_entropy,
        "chance": measures.inverse_row_entropy_chance(x.shape[1]),
        "residual": found.residual,
        "scale": found.scale,
        "rank": found.rank,
        "determined": found.determined,
        "train_rows": found.train_rows,
        "test_rows": found.test_rows,
    }


def _linear_cka(x: Tensor, y: Tensor, cka: measures.LinearCKA, layer: int) -> dict[str, Any]:
    n = x.shape[0]
    ranks = float(cka.effective_rank_x[layer]), float(cka.effective_rank_y[layer])
    return {
        **_both(cka, layer),
        "chance": measures.linear_cka_permutation_chance(n, *ranks),
        "chance_isotropic": measures.linear_cka_chance(n, x.shape[1], y.shape[1]),
    }


def _knn_overlap(x: Tensor, y: Tensor, settings: Settings, watch: Stopwatch) -> dict[str, Any]:
    with watch.part("knn_overlap"):
        found = measures.knn_overlap(x, y, k=settings.k)
    n = x.shape[0]
    return {str(k): {"value": value, "chance": measures.knn_overlap_chance(n, k)} for k, value in found.items()}


def _probe(
    x: Tensor, y: Tensor, labels: Sequence[Hashable] | None, settings: Settings, watch: Stopwatch
) -> dict[str, Any] | None:
    if labels is None:
        return None
    with watch.part("linear_probe"):
        found = measures.linear_probe_transfer(x, y, labels, seed=settings.seed, test_share=settings.test_share)
    return {
        "own": found.own,
        "transferred": found.transferred,
        "difference": found.difference,
        "chance": found.chance,
        "classes": found.classes,
        "train_rows": found.train_rows,
        "test_rows": found.test_rows,
        "converged": found.converged,
    }


def _domination(
    x: Tensor,
    y: Tensor,
    cka: measures.LinearCKA,
    layer: int,
    names: tuple[str, str],
    settings: Settings,
) -> dict[str, Any]:
    """Return how far a few dimensions and a few tokens dominate a layer."""
    sinks = [sink_tokens(states, settings.sink_ratio) for states in (x, y)]

    def named(*values: float) -> dict[str, float]:
        return dict(zip(names, values, strict=True))

    return {
        "top_dimension_share": named(*(measures.top_dimension_share(states) for states in (x, y))),
        "effective_rank": named(float(cka.effective_rank_x[layer]), float(cka.effective_rank_y[layer])),
        "sink_tokens": {
            **named(*(int(found.sum()) for found in sinks)),
            "either": int((sinks[0] | sinks[1]).sum()),
        },
        "linear_cka_standardised": _both(
            measures.linear_cka_statistics([measures.standardised(x)], [measures.standardised(y)]), 0
        ),
    }


def _both(cka: measures.LinearCKA, layer: int) -> dict[str, float | None]:
    return {"biased": _cell(cka.biased, layer), "debiased": _cell(cka.debiased, layer)}


def _cell(matrix: Tensor | None, layer: int) -> float | None:
    return None if matrix is None else _number(matrix[layer, layer])


def _rows(matrix: Tensor) -> list[list[float | None]]:
    return [[_number(value) for value in row] for row in matrix]


def _number(value: Tensor) -> float | None:
    """Return a plain float, None where the measure is undefined: JSON has no NaN."""
    number = float(value)
    return number if math.isfinite(number) else None
