"""Every measure with the invariances that define its level; the tests run over this table.

A measure of one's own joins it by :func:`register`, which refuses one that is not what it is said to be.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa.measures import chance
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
        chance: What it says of unrelated isotropic representations, as a function of n and d; None where that
            has no closed form.
    """

    name: str
    level: Literal["representation", "global geometry", "local geometry", "function"]
    invariant_to: frozenset[Change]
    varies_under: frozenset[Change]
    range: tuple[float, float]
    value: Callable[[Tensor, Tensor, Sequence[Hashable]], float]
    chance: Callable[[int, int], float] | None = None


def _changes(*names: Change) -> frozenset[Change]:
    return frozenset(names)


_OWN: tuple[Measure, ...] = (
    Measure(
        name="dimension_correlation",
        level="representation",
        invariant_to=_changes("shift", "scale", "column_scale"),
        varies_under=_changes("permutation", "rotation"),
        range=(-1.0, 1.0),
        value=lambda x, y, _: dimension_correlation(x, y),
        chance=lambda n, d: 0.0,
    ),
    Measure(
        name="procrustes.inverse_row_entropy",
        level="representation",
        # A permutation of dimensions is what this measure forgives and dimension-wise correlation does not.
        invariant_to=_changes("shift", "scale", "permutation"),
        varies_under=_changes("column_scale", "rotation"),
        range=(0.0, 1.0),
        value=lambda x, y, _: procrustes(x, y).inverse_row_entropy,
        chance=lambda n, d: chance.inverse_row_entropy_chance(d),
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
        chance=lambda n, d: chance.linear_cka_chance(n, d, d),
    ),
    Measure(
        name="linear_cka.debiased",
        level="global geometry",
        invariant_to=_changes("shift", "scale", "permutation", "rotation"),
        varies_under=_changes("column_scale"),
        range=(-1.0, 1.0),
        value=lambda x, y, _: linear_cka(x, y, estimator="debiased"),
        chance=lambda n, d: 0.0,
    ),
    Measure(
        name="knn_overlap",
        level="local geometry",
        # Cosine is taken from the origin, so moving the origin matters.
        invariant_to=_changes("scale", "permutation", "rotation"),
        varies_under=_changes("shift", "column_scale"),
        range=(0.0, 1.0),
        value=lambda x, y, _: knn_overlap(x, y, k=10)[10],
        chance=lambda n, d: chance.knn_overlap_chance(n, 10),
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

TABLE: list[Measure] = list(_OWN)

# Rows and columns of the check set, how far a value may move that must not, and how far one must that may not stay.
CHECK_SHAPE = (400, 24)
_STILL, _MOVED = 1e-6, 0.02


def check_set() -> tuple[Tensor, Tensor, list[int]]:
    """Return two related representations [n, d] in float64 and n labels, no direction or column like another."""
    n, d = CHECK_SHAPE
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) @ torch.randn(d, d, generator=generator).double()
    x += 8 * torch.randn(4, d, generator=generator).double().repeat(n // 4, 1) + torch.randn(d, generator=generator)
    return x, x + 2 * torch.randn(n, d, generator=generator), [row % 4 for row in range(n)]


def changed(change: Change, y: Tensor) -> Tensor:
    """Return y [n, d], float64, after a change of its columns."""
    rng, d = np.random.default_rng(0), y.shape[1]
    if change == "shift":
        return y + 3 * y.std() * torch.from_numpy(rng.normal(size=d))
    if change == "scale":
        return 7 * y
    if change == "column_scale":
        return y * torch.from_numpy(np.exp(rng.normal(size=d)))
    if change == "permutation":
        return y[:, torch.from_numpy(rng.permutation(d))]
    return y @ torch.from_numpy(np.linalg.qr(rng.normal(size=(d, d)))[0])


def register(measure: Measure) -> None:
    """Add a measure to the table, if it keeps on a check set what its row says of it.

    Raises:
        InputError: for a name that is taken, a change claimed both ways or not at all, a value outside the range, or
            a claim that fails; nothing is added then.
    """
    if any(row.name == measure.name for row in TABLE):
        raise InputError(f"measure {measure.name}: expected a new name, got one that is in the table")
    both = measure.invariant_to & measure.varies_under
    if both or not measure.varies_under:
        said = f"both for {', '.join(sorted(both))}" if both else "none that moves it"
        raise InputError(f"measure {measure.name}: expected changes that leave it alone or move it, got {said}")
    x, y, labels = check_set()
    low, high = measure.range

    def value(other: Tensor, what: str) -> float:
        found = measure.value(x, other, labels)
        if not low - _STILL <= found <= high + _STILL:
            raise InputError(f"measure {measure.name}: expected a value from {low} to {high}, got {found} {what}")
        return found

    before = value(y, "on the check set")
    value(x, "of a representation with itself")
    for change in sorted(measure.invariant_to | measure.varies_under):
        after = value(changed(change, y), f"after {change}")
        if change in measure.invariant_to and abs(after - before) > _STILL:
            raise InputError(
                f"measure {measure.name}: expected invariance to {change}, got {before:.6f}, then {after:.6f}"
            )
        if change in measure.varies_under and abs(after - before) < _MOVED:
            raise InputError(
                f"measure {measure.name}: expected to vary under {change} by {_MOVED} or more, "
                f"got {before:.6f} before and {after:.6f} after"
            )
    TABLE.append(measure)
