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


@dataclass(frozen=True)
class Settings:
    """What a panel depends on beside models and texts.

    Attributes:
        k: Numbers of neighbours.
        seed: Of the splits of Procrustes (sentences) and the probe.
        sink_ratio: A token is a sink at a layer where its norm is more than this many times the median norm,
            in either model. Massive activations are some hundred times the median, ordinary tokens hardly
            twice.
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
    """Return the panel's ``layers``, ``matrices``, ``sensitivity`` and ``omitted`` for aligned states.

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
    same_width = a.states[0].shape[1] == b.states[0].shape[1]
    with watch.part("linear_cka"):
        cka = measures.linear_cka_statistics(a.states, b.states)
    correlation = None
    if same_width:
        with watch.part("dimension_correlation"):
            correlation = measures.dimension_correlation_matrix(a.states, b.states)
    layers, sensitivity = [], []
    for number in tqdm(range(len(a.states)), desc="layers", disable=not progress):
        x, y = a.states[number], b.states[number]
        features = (a.features[number], b.features[number])
        layers.append({
            "layer": number,
            "dimension_correlation": _correlation(x, y, correlation, number, names),
            "procrustes": _procrustes(x, y, a.sentence, settings, watch) if same_width else None,
            "linear_cka": _linear_cka(x, y, cka, number),
            "knn_overlap": _knn_overlap(x, y, settings, watch),
            "linear_probe": (
                _probe(features, labels, settings, watch) if same_width and labels is not None else None
            ),
        })  # fmt: skip
        with watch.part("sensitivity"):
            sensitivity.append({
                "layer": number,
                "effective_rank": dict(
                    zip(names, (float(cka.effective_rank_x[number]), float(cka.effective_rank_y[number])),
                    strict=True)
                ),
                **_sensitivity(x, y, a.sentence, names, settings),
            })  # fmt: skip
    omitted = {}
    if not same_width:
        reason = f"widths differ: {a.states[0].shape[1]} and {b.states[0].shape[1]}"
        omitted = dict.fromkeys(("dimension_correlation", "procrustes", "linear_probe"), reason)
    elif labels is None:
        omitted = {"linear_probe": "no labels were given"}
    return {
        "layers": layers,
        "matrices": {
            "linear_cka": _rows(cka.biased),
            "linear_cka_debiased": _rows(cka.debiased),
            "dimension_correlation": None if correlation is None else _rows(correlation),
        },
        "sensitivity": sensitivity,
        "omitted": omitted,
    }


def sink_tokens(x: Tensor, ratio: float) -> Tensor:
    """Return which rows of x [n, d] are longer than ``ratio`` times the median row, as a boolean [n]."""
    norms = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)
    return norms > ratio * norms.median()


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


def _correlation(
    x: Tensor, y: Tensor, matrix: Tensor | None, layer: int, names: tuple[str, str]
) -> dict[str, Any] | None:
    if matrix is None:
        return None
    constant = [int(measures.constant_columns(states).sum()) for states in (x, y)]
    return {
        "value": _number(matrix[layer, layer]),
        "chance": 0.0,
        "constant_columns": dict(zip(names, constant, strict=True)),
    }


def _procrustes(
    x: Tensor, y: Tensor, sentence: Tensor, settings: Settings, watch: Stopwatch
) -> dict[str, Any]:
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
        "biased": _number(cka.biased[layer, layer]),
        "chance": measures.linear_cka_permutation_chance(n, *ranks),
        "chance_isotropic": measures.linear_cka_chance(n, x.shape[1], y.shape[1]),
        "debiased": _number(cka.debiased[layer, layer]),
    }


def _knn_overlap(x: Tensor, y: Tensor, settings: Settings, watch: Stopwatch) -> dict[str, Any]:
    with watch.part("knn_overlap"):
        found = measures.knn_overlap(x, y, k=settings.k)
    n = x.shape[0]
    return {
        str(k): {"value": value, "chance": measures.knn_overlap_chance(n, k)} for k, value in found.items()
    }


def _probe(
    features: tuple[Tensor, Tensor], labels: Sequence[Hashable], settings: Settings, watch: Stopwatch
) -> dict[str, Any]:
    with watch.part("linear_probe"):
        found = measures.linear_probe_transfer(
            *features, labels, seed=settings.seed, test_share=settings.test_share
        )
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


def _sensitivity(
    x: Tensor, y: Tensor, sentence: Tensor, names: tuple[str, str], settings: Settings
) -> dict[str, Any]:
    """Return what the raw values of a layer owe to a few tokens and a few dimensions."""
    sinks = [sink_tokens(states, settings.sink_ratio) for states in (x, y)]
    kept = ~(sinks[0] | sinks[1])
    result = {
        "top_dimension_share": dict(zip(names, map(measures.top_dimension_share, (x, y)), strict=True)),
        "sink_tokens": {
            **dict(zip(names, (int(found.sum()) for found in sinks), strict=True)),
            "either": int((~kept).sum()),
        },
        "linear_cka_standardised": _cka_pair(measures.standardised(x), measures.standardised(y)),
        "linear_cka_without_sinks": None,
        "dimension_correlation_without_sinks": None,
        "procrustes_without_sinks": None,
    }
    x, y, sentence = x[kept], y[kept], sentence[kept]
    if len(sentence.unique()) < 2 or len(sentence) < 4:
        return result
    result["linear_cka_without_sinks"] = _cka_pair(x, y)
    if x.shape[1] == y.shape[1]:
        result["dimension_correlation_without_sinks"] = measures.dimension_correlation(x, y)
        # The split is drawn by sentence, so unless a sentence is all sinks it is that of the raw value.
        found = measures.procrustes(x, y, groups=sentence, test_share=settings.test_share, seed=settings.seed)
        result["procrustes_without_sinks"] = {
            "inverse_row_entropy": found.inverse_row_entropy,
            "residual": found.residual,
            "determined": found.determined,
        }
    return result


def _cka_pair(x: Tensor, y: Tensor) -> dict[str, float | None]:
    found = measures.linear_cka_statistics([x], [y])
    return {"biased": _number(found.biased[0, 0]), "debiased": _number(found.debiased[0, 0])}


def _rows(matrix: Tensor) -> list[list[float | None]]:
    return [[_number(value) for value in row] for row in matrix]


def _number(value: Tensor) -> float | None:
    """Return a plain float, None where the measure is undefined: JSON has no NaN."""
    number = float(value)
    return number if math.isfinite(number) else None
