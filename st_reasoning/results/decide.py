"""From differences of scores to an interval, two tests, a word, and what would decide. What is meant: STATISTICS.md."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from st_reasoning.errors import InputError
from st_reasoning.results.resampled import Resampled
from st_reasoning.stats import (
    Estimate,
    bootstrap,
    components,
    crossed,
    holm,
    needed,
    paired_t,
    stratified,
    tost,
    welch,
    widened_for_ties,
)

Array = NDArray[np.float64]
Plan = Callable[[int], tuple[float, float]]
POWER = 0.8
LARGEST = 100_000
# The largest difference that one example can show, in points.
WHOLE = 100.0

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
        standard error and degrees of freedom. have: By unit, how many there are. tasks: Of how many fixed tasks a mean
        is; None where that is no question.
    """

    kind: str
    estimate: Estimate
    plans: dict[str, Plan] = dataclasses.field(repr=False)
    have: dict[str, int]
    tasks: int | None = None

    @property
    def over(self) -> str:
        """The kind with its numbers, e.g. "3 seeds and 80 examples"."""
        said = " and ".join(f"{count:,} {unit if count != 1 else unit[:-1]}" for unit, count in self.have.items())
        return said if self.tasks is None else f"{said} of these {self.tasks} tasks"


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
    """Return the paired interval over seeds, examples or tasks [n]; None for fewer than 2.

    Examples may tie, and be right or wrong only: where most tie, the interval is widened for it.
    """
    if len(differences) < 2:
        return None
    plain = estimate = paired_t(differences, level)
    if unit == "examples":
        estimate = widened_for_ties(plain, differences, largest=WHOLE, level=level)
    return Measured(unit, estimate, {unit: _wider(_by_root(plain), plain, estimate)}, {unit: len(differences)})


def over_both(differences: Array, unit: str, level: float) -> Measured | None:
    """Return the interval over seeds and another unit of differences [S, Q]; None for fewer than 2 of either."""
    if min(differences.shape) < 2:
        return None
    seeds, units = differences.shape
    parts = components(differences)
    plans: dict[str, Plan] = {
        "seeds": lambda n: (parts.standard_error(n, units), parts.df(n, units)),
        unit: lambda n: (parts.standard_error(seeds, n), parts.df(seeds, n)),
    }
    plain = estimate = crossed(differences, level)
    if unit == "examples":
        estimate = widened_for_ties(plain, differences.mean(axis=0), largest=WHOLE, level=level)
        plans = {name: _wider(plan, plain, estimate, fixed=name == "seeds") for name, plan in plans.items()}
    return Measured(f"seeds and {unit}", estimate, plans, {"seeds": seeds, unit: units})


def over_resampled(a: Resampled, b: Resampled, level: float) -> Measured:
    """Return the bootstrap interval over examples of a difference of scores, in points; both answered the same."""
    members = a.members()

    def difference(drawn: Array) -> float:
        rows = np.concatenate([members[int(unit)] for unit in drawn])
        first, second = (side.score(side.answers[:, rows], side.gold[rows]) for side in (a, b))
        return 100 * (second - first)

    estimate = bootstrap(difference, (np.arange(len(members)),), level=level)
    unit = "examples" if len(members) == len(a.gold) else "groups of examples"
    return Measured(f"{unit}, bootstrap", estimate, {unit: _by_root(estimate)}, {unit: len(members)})


def over_fixed(parts: list[Measured], by_seed: Array, level: float) -> Measured:
    """Return the interval of a mean over these tasks and no others, for other examples of each, and other seeds.

    Args:
        parts: Over the examples of each task.
        by_seed: [S], the mean difference over the tasks; one training gives no spread.
        level: Of the interval.
    """
    seeds = paired_t(by_seed, level) if len(by_seed) > 1 else None
    estimates = [part.estimate for part in parts]
    count = sum(sum(part.have.values()) for part in parts)

    def more_examples(n: int) -> tuple[float, float]:
        scale = count / n
        each = [dataclasses.replace(e, standard_error=e.standard_error * math.sqrt(scale)) for e in estimates]
        found = stratified(each, seeds, level)
        return found.standard_error, found.df

    def more_seeds(n: int) -> tuple[float, float]:
        assert seeds is not None
        fewer = dataclasses.replace(
            seeds, standard_error=seeds.standard_error * math.sqrt(len(by_seed) / n), df=float(n - 1)
        )
        found = stratified(estimates, fewer, level)
        return found.standard_error, found.df

    unit = "examples" if all(part.have.keys() == {"examples"} for part in parts) else "groups of examples"
    plans: dict[str, Plan] = {unit: more_examples}
    have = {unit: count}
    if seeds is not None:
        plans, have = {"seeds": more_seeds, **plans}, {"seeds": len(by_seed), **have}
    kind = f"seeds and {unit}" if seeds is not None else unit
    return Measured(f"{kind} of these tasks", stratified(estimates, seeds, level), plans, have, len(parts))


def over_unpaired(a: Array, b: Array, level: float) -> Measured | None:
    """Return Welch's interval over seeds that are not the same on both sides; None for fewer than 2 of either."""
    if min(len(a), len(b)) < 2:
        return None
    estimate = welch(a, b, level)
    spread = math.sqrt(float(a.var(ddof=1) + b.var(ddof=1)))
    plans = {"seeds": lambda n: (spread / math.sqrt(n), 2.0 * n - 2)}
    return Measured("seeds, unpaired", estimate, plans, {"seeds": min(len(a), len(b))})


def _by_root(estimate: Estimate) -> Plan:
    spread = estimate.standard_error * math.sqrt(estimate.counts[0])
    return lambda n: (spread / math.sqrt(n), n - 1)


def _wider(plan: Plan, plain: Estimate, wide: Estimate, *, fixed: bool = False) -> Plan:
    """Return a plan with what ties added to the variance, which falls with the square of the number of examples."""
    added, count = wide.standard_error**2 - plain.standard_error**2, plain.counts[-1]
    if added == 0:
        return plan

    def planned(n: int) -> tuple[float, float]:
        error, df = plan(n)
        return math.sqrt(error**2 + added * (1.0 if fixed else (count / n) ** 2)), df

    return planned


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
