"""Intervals of a difference between two sides, by what is drawn anew: seeds, examples, tasks, or two of them at once.

Symbols: d a difference, S seeds, Q the other units (examples or tasks), MS a mean square of the analysis of variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from st_reasoning.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """A difference with its interval.

    Attributes:
        difference: The value.
        low: Lower end of the interval.
        high: Upper end of the interval.
        standard_error: Of the difference; 0 where no unit differs from another.
        df: Degrees of freedom of Student's t, for tests.
        counts: How many units of each kind were drawn, e.g. (3, 80) for seeds and examples.
    """

    difference: float
    low: float
    high: float
    standard_error: float
    df: float
    counts: tuple[int, ...]

    @property
    def p_value(self) -> float:
        """The two-sided p-value of "no difference".

        Without any spread t is undefined: 1 for no difference, NaN for one that every unit shows alike, from which
        nothing can be said about other units.
        """
        if self.standard_error == 0:
            return 1.0 if self.difference == 0 else math.nan
        return float(2 * scipy.stats.t.sf(abs(self.difference) / self.standard_error, self.df))


@dataclass(frozen=True)
class Components:
    """What the spread of differences [S, Q] is made of, as variances of one seed, one other unit, and the rest."""

    seeds: float
    units: float
    rest: float

    def standard_error(self, seeds: int, units: int) -> float:
        """Return the standard error of a mean over so many of both."""
        return math.sqrt(self.seeds / seeds + self.units / units + self.rest / (seeds * units))

    def df(self, seeds: int, units: int) -> float:
        """Return the degrees of freedom that :func:`crossed` would have, were its mean squares as expected."""
        squares = _freedom(self.rest + units * self.seeds, self.rest + seeds * self.units, self.rest, seeds, units)
        both = squares[0][0] + squares[1][0] - self.rest
        return both**2 / sum(part**2 / n for part, n in squares) if both else 1.0


def paired_t(differences: ArrayLike, level: float = 0.95) -> Estimate:
    """Return the mean of paired differences with Student's interval.

    Args:
        differences: [n], one per unit that both sides share.
        level: The share of such intervals that hold the true mean.

    Raises:
        InputError: for fewer than two, or a value that is not finite.
    """
    found = _finite(differences, 1)
    n = len(found)
    return _student(float(found.mean()), _spread(found) / math.sqrt(n), n - 1, level, (n,))


def widened_for_ties(found: Estimate, units: ArrayLike, *, largest: float, level: float = 0.95) -> Estimate:
    """Return an estimate with two more units in its spread, one at +largest and one at -largest, where most units tie.

    Of units that nearly all tie, the spread seen says little about the spread there is: of 80 queries on which two
    models answer alike, one in 200 may still differ, and an interval of no width would hold 0 only. The two units are
    those of Agresti and Min (2005) for paired proportions; the difference itself is not shrunk.

    Args:
        found: Of the mean over ``units``, perhaps with further sources of spread.
        units: [n], the differences.
        largest: The largest difference that one unit can show.
        level: As for :func:`paired_t`.
    """
    values = _finite(units, 1)
    n = len(values)
    if 2 * np.count_nonzero(values) > n:
        return found
    error = math.sqrt(found.standard_error**2 + 2 * (largest / n) ** 2)
    return _student(found.difference, error, found.df, level, found.counts)


def stratified(parts: Sequence[Estimate], seeds: Estimate | None = None, level: float = 0.95) -> Estimate:
    """Return the mean of several estimates, each over units of its own, with an interval for other such units.

    Its variance is the sum of theirs over T^2, with Satterthwaite's degrees of freedom. The parts may share seeds, so
    that they do not vary on their own: then the variance over seeds of the mean is added. The interval is never
    narrower than that over seeds alone.

    Args:
        parts: T estimates, e.g. each over the examples of one task.
        seeds: Of the mean over parts, over seeds; None for one training.
        level: As for :func:`paired_t`.
    """
    variances = [((part.standard_error / len(parts)) ** 2, part.df) for part in parts]
    if seeds is not None:
        variances.append((seeds.standard_error**2, seeds.df))
    total = sum(variance for variance, _ in variances)
    df = total**2 / sum(variance**2 / n for variance, n in variances) if total else 1.0
    candidates = [(total, df), *variances[len(parts) :]]
    square, df = max(candidates, key=lambda each: math.sqrt(each[0]) * _quantile(level, each[1]))
    counts = (() if seeds is None else seeds.counts) + (sum(part.counts[-1] for part in parts),)
    return _student(float(np.mean([part.difference for part in parts])), math.sqrt(square), df, level, counts)


def welch(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Estimate:
    """Return mean(b) - mean(a) of units that are not paired, with Welch's interval.

    Args:
        a: [n], one side.
        b: [m], the other.
        level: As for :func:`paired_t`.
    """
    first, second = _finite(a, 1), _finite(b, 1)
    parts = [_spread(side) ** 2 / len(side) for side in (first, second)]
    total = sum(parts)
    # Welch and Satterthwaite.
    df = total**2 / sum(v**2 / (len(s) - 1) for v, s in zip(parts, (first, second), strict=True)) if total else 1.0
    return _student(float(second.mean() - first.mean()), math.sqrt(total), df, level, (len(first), len(second)))


def crossed(differences: ArrayLike, level: float = 0.95) -> Estimate:
    """Return the mean of differences of every seed on every other unit, with an interval for new ones of both.

    Both are random and crossed: seeds share the units. With the mean squares of the two-way analysis of variance
    without replication, Var(mean) = (MS_seeds + MS_units - MS_rest) / (S Q), and Satterthwaite's (1946) degrees of
    freedom. Where a component comes out negative, and always if that is wider, the interval is that over seeds or that
    over units.

    Args:
        differences: [S, Q], at least 2 of each.
        level: As for :func:`paired_t`.
    """
    found = _finite(differences, 2)
    seeds, units = found.shape
    of_seeds, of_units, rest = _mean_squares(found)
    both = of_seeds + of_units - rest
    squares = _freedom(of_seeds, of_units, rest, seeds, units)
    candidates: list[tuple[float, float]] = [*squares[:2]]
    # Less than either is a variance that came out negative, and would have no degrees of freedom to speak of.
    if both > max(of_seeds, of_units):
        candidates.append((both, both**2 / sum(part**2 / n for part, n in squares)))
    size = seeds * units
    square, df = max(candidates, key=lambda each: math.sqrt(each[0]) * _quantile(level, each[1]))
    return _student(float(found.mean()), math.sqrt(square / size), df, level, (seeds, units))


def components(differences: ArrayLike) -> Components:
    """Return the variance components of differences [S, Q]; what comes out negative is 0."""
    found = _finite(differences, 2)
    of_seeds, of_units, rest = _mean_squares(found)
    seeds, units = found.shape
    return Components(max(0.0, (of_seeds - rest) / units), max(0.0, (of_units - rest) / seeds), rest)


def bootstrap(
    statistic: Callable[..., float],
    data: tuple[ArrayLike, ...],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    method: str = "percentile",
    seed: int = 0,
) -> Estimate:
    """Return a statistic of shared examples with scipy's bootstrap interval, where no mean over examples exists.

    Args:
        statistic: Of arrays as in ``data``, e.g. the difference of two rank correlations.
        data: Arrays [n], resampled together.
        level: As for :func:`paired_t`.
        resamples: How many are drawn.
        method: ``percentile``, ``basic`` or ``BCa``.
        seed: Of the draw.
    """
    arrays = tuple(_finite(array, 1) for array in data)
    if len({len(array) for array in arrays}) != 1:
        raise InputError(f"data: expected arrays of one length, got {[len(array) for array in arrays]}")
    value = float(statistic(*arrays))
    found = scipy.stats.bootstrap(
        arrays, statistic, paired=True, vectorized=False, n_resamples=resamples, confidence_level=level, method=method,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    low, high = map(float, found.confidence_interval)
    n = len(arrays[0])
    if not math.isfinite(low + high):  # BCa of a statistic that no resample changes
        low = high = value
    return Estimate(value, low, high, float(found.standard_error), n - 1, (n,))


def _mean_squares(found: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the mean squares of rows, of columns, and of what neither explains."""
    seeds, units = found.shape
    if (found == found[0, 0]).all():
        return 0.0, 0.0, 0.0
    mean, rows, columns = found.mean(), found.mean(axis=1), found.mean(axis=0)
    rest = found - rows[:, None] - columns + mean
    return (
        float(units * ((rows - mean) ** 2).sum() / (seeds - 1)),
        float(seeds * ((columns - mean) ** 2).sum() / (units - 1)),
        float((rest**2).sum() / ((seeds - 1) * (units - 1))),
    )


def _freedom(of_seeds: float, of_units: float, rest: float, seeds: int, units: int) -> list[tuple[float, int]]:
    """Return the mean squares with their degrees of freedom."""
    return [(of_seeds, seeds - 1), (of_units, units - 1), (rest, (seeds - 1) * (units - 1))]


def _student(difference: float, error: float, df: float, level: float, counts: tuple[int, ...]) -> Estimate:
    half = error * _quantile(level, df)
    return Estimate(difference, difference - half, difference + half, error, df, counts)


def _quantile(level: float, df: float) -> float:
    if not 0 < level < 1:
        raise InputError(f"level: expected a share between 0 and 1, got {level}")
    return float(scipy.stats.t.ppf(0.5 + level / 2, df))


def _spread(values: NDArray[np.float64]) -> float:
    """Return the standard deviation; exactly 0 for equal values, whose mean may be off by a rounding."""
    return 0.0 if (values == values[0]).all() else float(values.std(ddof=1))


def _finite(values: ArrayLike, dimensions: int) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != dimensions or min(found.shape, default=0) < 2 or not np.isfinite(found).all():
        shape = "[n]" if dimensions == 1 else "[S, Q]"
        raise InputError(f"expected finite values {shape}, at least 2 of each, got {list(found.shape)}: {found}")
    return found
