"""Every measure with the invariances that define its level; the tests run over this table."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from st_reasoning.hrsa.measures.cka import linear_cka
from st_reasoning.hrsa.measures.correlation import dimension_correlation
from st_reasoning.hrsa.measures.neighbours import knn_overlap
from st_reasoning.hrsa.measures.probe import linear_probe_transfer
from st_reasoning.hrsa.measures.procrustes import procrustes

Change = Literal["shift", "scale", "column_scale", "permutation", "rotation"]


@dataclass(frozen=True)
class Measure:
    """A measure of two representations of the same tokens.

    Attributes:
        name: As in the panel.
        level: The level its invariances put it on.
        invariant_to: Changes of one representation's columns that must leave the value alone: a shift per
            column, one positive factor for all, a positive factor per column, a permutation, a rotation.
        varies_under: Changes that must move it.
        range: Smallest and largest value.
        value: The measure as a function of x [n, d], y [n, d] and n labels, which only a probe looks at.
    """

    name: str
    level: Literal["representation", "global geometry", "local geometry", "function"]
    invariant_to: frozenset[Change]
    varies_under: frozenset[Change]
    range: tuple[float, float]
    value: Callable[[Tensor, Tensor, Sequence[Hashable]], float]


def _changes(*names: Change) -> frozenset[Change]:
    return frozenset(names)


TABLE: tuple[Measure, ...] = (
    Measure(
        name="dimension_correlation",
        level="representation",
        invariant_to=_changes("shift", "scale", "column_scale"),
        varies_under=_changes("permutation", "rotation"),
        range=(-1.0, 1.0),
        value=lambda x, y, _: dimension_correlation(x, y),
    ),
    Measure(
        name="procrustes.inverse_row_entropy",
        level="representation",
        # A permutation of dimensions is what this measure forgives and dimension-wise correlation does not.
        invariant_to=_changes("shift", "scale", "permutation"),
        varies_under=_changes("column_scale", "rotation"),
        range=(0.0, 1.0),
        value=lambda x, y, _: procrustes(x, y).inverse_row_entropy,
    ),
    Measure(
        name="procrustes.residual",
        # The map absorbs every rotation: what is left over belongs to the geometry, not to the basis.
        level="global geometry",
        invariant_to=_changes("shift", "scale", "permutation", "rotation"),
        varies_under=_changes("column_scale"),
        range=(0.0, float("inf")),
        value=lambda x, y, _: procrustes(x, y).residual,
    ),
    Measure(
        name="linear_cka.biased",
        level="global geometry",
        invariant_to=_changes("shift", "scale", "permutation", "rotation"),
        varies_under=_changes("column_scale"),
        range=(0.0, 1.0),
        value=lambda x, y, _: linear_cka(x, y, estimator="biased"),
    ),
    Measure(
        name="linear_cka.debiased",
        level="global geometry",
        invariant_to=_changes("shift", "scale", "permutation", "rotation"),
        varies_under=_changes("column_scale"),
        range=(-1.0, 1.0),
        value=lambda x, y, _: linear_cka(x, y, estimator="debiased"),
    ),
    Measure(
        name="knn_overlap",
        level="local geometry",
        # Cosine is taken from the origin, so moving the origin matters.
        invariant_to=_changes("scale", "permutation", "rotation"),
        varies_under=_changes("shift", "column_scale"),
        range=(0.0, 1.0),
        value=lambda x, y, _: knn_overlap(x, y, k=10)[10],
    ),
    Measure(
        name="linear_probe.transferred",
        level="function",
        invariant_to=_changes(),
        varies_under=_changes("shift", "permutation", "rotation"),
        range=(0.0, 1.0),
        value=lambda x, y, labels: linear_probe_transfer(x, y, labels, seed=0).transferred,
    ),
)
