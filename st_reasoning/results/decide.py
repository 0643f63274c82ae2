"""From differences of scores to an interval, two tests, a word, and what would decide. What is meant: STATISTICS.md."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from st_reasoning.errors import InputError
from st_reasoning.results.examples import spearman
from st_reasoning.stats import Estimate, bootstrap, components, crossed, holm, needed, paired_t, tost, welch

Array = NDArray[np.float64]
POWER = 0.8
LARGEST = 100_000

BETTER, WORSE, EQUIVALENT, OPEN = "better", "worse", "equivalent", "not decided"


@dataclass(frozen=True)
class Settings:
    """What decides. margin: In points, the difference that would matter. level: Of intervals; alpha is the rest."""

    margin: float = 0.5
    level: float = 0.95

    def __post_init__(self) -> None:
        if not (self.margin > 0 and math.isfinite(self.margin)):
            raise InputError(f"margin: expected a positive number of points, got {self.margin}")
        if not 0.5 < self.level < 1:
            raise InputError(f"level: expected a share between 0.5 and 1, e.g. 0.95, got {self.level}")

    @property
    def alpha(self) -> float:
        """The error that each test may make."""
        return 1 - self.level


@dataclass(frozen=True)
class Measured:
    """A difference with an interval, and what more units would give.

    Attributes:
        kind: What is drawn anew, e.g. "seeds and examples". estimate: In points. plans: By unit, from how many to
        standard error and degrees of freedom. have: By unit, how many there are.
    """

    kind: str
    estimate: Estimate
    plans: dict[str, Callable[[int], tuple[float, float]]] = dataclasses.field(repr=False)
    have: dict[str, int]

    @property
    def over(self) -> str:
        """The kind with its numbers, e.g. "3 seeds and 80 examples"."""
        return " and ".join(f"{count:,} {unit if count != 1 else unit[:-1]}" for unit, count in self.have.items())


@dataclass(frozen=True)
class Row:
    """One line of a comparison; scores and differences in points, 0 to 100.

    Attributes:
        level: task, type, benchmark or all. name: Of the task, type or benchmark. tasks: How many are in it.
        a: Mean score of the first side. b: Of the second. difference: b - a. measured: The interval that decides, or
        None. others: Further intervals, of other kinds. p_difference, p_equivalence: Of the two tests, adjusted by
        Holm over the rows of the level; None where undefined. word: better, worse, equivalent or not decided, of the
        second side. needed: By unit, how many in all would decide; None for more than 100,000.
    """

    level: str
    name: str
    tasks: int
    a: float
    b: float
    difference: float
    measured: Measured | None
    others: tuple[Measured, ...] = ()
    p_difference: float | None = None
    p_equivalence: float | None = None
    word: str = OPEN
    needed: dict[str, int | None] = dataclasses.field(default_factory=dict)


def over_units(differences: Array, unit: str, level: float) -> Measured | None:
    """Return the paired interval over seeds, examples or tasks [n]; None for fewer than 2."""
    if len(differences) < 2:
        return None
    estimate = paired_t(differences, level)
    return Measured(unit, estimate, {unit: _by_root(estimate)}, {unit: len(differences)})


def over_both(differences: Array, unit: str, level: float) -> Measured | None:
    """Return the interval over seeds and another unit of differences [S, Q]; None for fewer than 2 of either."""
    if min(differences.shape) < 2:
        return None
    seeds, units = differences.shape
    parts = components(differences)
    plans = {
        "seeds": lambda n: (parts.standard_error(n, units), parts.df(n, units)),
        unit: lambda n: (parts.standard_error(seeds, n), parts.df(seeds, n)),
    }
    return Measured(f"seeds and {unit}", crossed(differences, level), plans, {"seeds": seeds, unit: units})


def over_resampled(a: Array, b: Array, gold: Array, level: float) -> Measured:
    """Return the bootstrap interval over examples [n] of a difference of rank correlations with ``gold``, in points."""

    def difference(x: Array, y: Array, z: Array) -> float:
        return 100 * (spearman(y, z) - spearman(x, z))

    estimate = bootstrap(difference, (a, b, gold), level=level)
    return Measured("examples, bootstrap", estimate, {"examples": _by_root(estimate)}, {"examples": len(gold)})


def over_unpaired(a: Array, b: Array, level: float) -> Measured | None:
    """Return Welch's interval over seeds that are not the same on both sides; None for fewer than 2 of either."""
    if min(len(a), len(b)) < 2:
        return None
    estimate = welch(a, b, level)
    spread = math.sqrt(float(a.var(ddof=1) + b.var(ddof=1)))
    plans = {"seeds": lambda n: (spread / math.sqrt(n), 2.0 * n - 2)}
    return Measured("seeds, unpaired", estimate, plans, {"seeds": min(len(a), len(b))})


def _by_root(estimate: Estimate) -> Callable[[int], tuple[float, float]]:
    spread = estimate.standard_error * math.sqrt(estimate.counts[0])
    return lambda n: (spread / math.sqrt(n), n - 1)


def decide(rows: list[Row], settings: Settings) -> list[Row]:
    """Return the rows of one level with tests, adjusted over all of them by Holm, word and needed numbers."""
    tests = np.array([_tests(row, settings) for row in rows]).reshape(-1, 2)
    different, equivalent = holm(tests[:, 0]), holm(tests[:, 1])
    tried = int(np.isfinite(tests[:, 0]).sum()) or 1
    found = []
    for row, p, q in zip(rows, different, equivalent, strict=True):
        word = OPEN
        # Equivalence first: a difference that is certain and does not matter is one that does not matter.
        if q < settings.alpha:
            word = EQUIVALENT
        elif p < settings.alpha:
            word = BETTER if row.difference > 0 else WORSE
        # Bonferroni's share: Holm's own depends on the other rows.
        more = _needed(row.measured, settings, settings.alpha / tried) if word == OPEN and row.measured else {}
        found.append(
            dataclasses.replace(row, p_difference=_or_none(p), p_equivalence=_or_none(q), word=word, needed=more)
        )
    return found


def _tests(row: Row, settings: Settings) -> tuple[float, float]:
    if row.measured is None:
        return math.nan, math.nan
    estimate = row.measured.estimate
    return estimate.p_value, tost(estimate.difference, estimate.standard_error, estimate.df, settings.margin)


def _needed(measured: Measured, settings: Settings, alpha: float) -> dict[str, int | None]:
    if measured.estimate.standard_error == 0:
        return {}
    found: dict[str, int | None] = {}
    for unit, plan in measured.plans.items():
        count = needed(measured.estimate.difference, plan, settings.margin, alpha=alpha, power=POWER, largest=LARGEST)
        found[unit] = None if count is None else max(count, measured.have[unit] + 1)
    return found


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
