"""Does one quantity rise with another, over few units? Rank correlations with intervals, permutation tests, and plans.

Symbols: n units, r Spearman's correlation, tau Kendall's (tau-b), z = artanh of either.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from st_reasoning.errors import InputError

Array = NDArray[np.float64]
# Up to so many units all orders are tried: 8! = 40,320.
_ALL_ORDERS = 8
# Two orders that differ by rounding only are the same.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's and Kendall's correlation of n units.

    Attributes:
        units: n.
        spearman: Spearman's r.
        spearman_interval: Its interval; None for fewer than 5 units, or where every unit stands in the same order.
        spearman_p: Two-sided, by permutation.
        kendall: Kendall's tau-b.
        kendall_interval: Its interval, likewise; None for fewer than 6 units.
        kendall_p: Two-sided, by permutation.
    """

    units: int
    spearman: float
    spearman_interval: tuple[float, float] | None
    spearman_p: float
    kendall: float
    kendall_interval: tuple[float, float] | None
    kendall_p: float


def rank_correlation(
    x: ArrayLike, y: ArrayLike, *, level: float = 0.95, draws: int = 20_000, seed: int = 0
) -> RankCorrelation | None:
    """Return how far two quantities put units in the same order.

    Intervals are normal in z: Var(z) = (1 + r^2 / 2) / (n - 3) for Spearman (Bonett and Wright 2000) and
    0.437 / (n - 4) for Kendall (Fieller, Hartley and Pearson 1957). P-values count orders of the units that correlate
    as far from 0: all orders up to 8 units, else as many as are drawn and the one seen. They are exact under
    exchangeability, with ties too.

    Args:
        x: [n], finite.
        y: [n], finite.
        level: The share of such intervals that hold the true value.
        draws: Orders drawn where there are more than 8 units.
        seed: Of the draw.

    Returns:
        None where the correlation is undefined: fewer than 3 units, or one of the quantities is the same for all.

    Raises:
        InputError: for arrays that do not match or hold what is not finite, or a level outside 0 to 1.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError(f"x, y: expected finite values [n] of the same n, got {list(a.shape)} and {list(b.shape)}")
    if not 0 < level < 1:
        raise InputError(f"level: expected a share between 0 and 1, got {level}")
    n = len(a)
    if n < 3 or (a == a[0]).all() or (b == b[0]).all():
        return None
    ranks = [_unit_length(scipy.stats.rankdata(each)) for each in (a, b)]
    signs = [_unit_length(np.sign(each[:, None] - each[None]), centred=True) for each in (a, b)]
    spearman, kendall = float(ranks[0] @ ranks[1]), float((signs[0] * signs[1]).sum())
    as_far, tried = np.zeros(2), 0
    for orders in _orders(n, draws, seed):
        found = np.abs(ranks[0][orders] @ ranks[1])
        moved = signs[0][orders[:, :, None], orders[:, None, :]]
        found_tau = np.abs(np.einsum("mij,ij->m", moved, signs[1]))
        as_far += [(found >= abs(spearman) - _ROUNDING).sum(), (found_tau >= abs(kendall) - _ROUNDING).sum()]
        tried += len(orders)
    p_values = as_far / tried
    quantile = float(scipy.stats.norm.ppf(0.5 + level / 2))
    return RankCorrelation(
        n,
        spearman,
        _interval(spearman, (1 + spearman**2 / 2) / (n - 3) if n > 4 else None, quantile),
        float(p_values[0]),
        kendall,
        _interval(kendall, 0.437 / (n - 4) if n > 5 else None, quantile),
        float(p_values[1]),
    )


def least_units(alpha: float, tests: int = 1) -> int:
    """Return with how many units at least a permutation test can reject at all, be the correlation 1 or -1.

    The smallest two-sided p-value of n units without ties is 2 / n!; it must be below the share.

    Args:
        alpha: Of all tests together.
        tests: How many there are, of which Bonferroni's share is asked for.
    """
    n = 3
    while 2 * tests >= alpha * math.factorial(n):
        n += 1
    return n


def units_needed(
    correlation: float, *, alpha: float = 0.05, tests: int = 1, power: float = 0.8, largest: int = 100_000
) -> int | None:
    """Return how many units a test of Spearman's correlation needs, were ``correlation`` the true one.

    By the variance of z as for the interval, and never fewer than :func:`least_units`.

    Args:
        correlation: The assumed true value.
        alpha: Of all tests together, two-sided.
        tests: How many there are, of which Bonferroni's share is asked for.
        power: How sure the finding must be.
        largest: Where to give up.

    Returns:
        None if ``largest`` is not enough.
    """
    least = least_units(alpha, tests)
    if abs(correlation) >= 1:
        return least
    if correlation == 0:
        return None
    # The bound is of no correlation, how often it is passed is of this one.
    bound, beyond = scipy.stats.norm.ppf(1 - alpha / tests / 2), scipy.stats.norm.ppf(power)
    errors = bound + beyond * math.sqrt(1 + correlation**2 / 2)
    wanted = 3 + (errors / math.atanh(correlation)) ** 2
    return None if wanted > largest else max(least, math.ceil(wanted))


def _interval(value: float, variance: float | None, quantile: float) -> tuple[float, float] | None:
    # At 1 and -1 z is infinite, and an interval of no width would claim what few units cannot.
    if variance is None or abs(value) >= 1 - _ROUNDING:
        return None
    z, half = math.atanh(value), quantile * math.sqrt(variance)
    return math.tanh(z - half), math.tanh(z + half)


def _unit_length(values: Array, *, centred: bool = False) -> Array:
    found = values if centred else values - values.mean()
    length: Array = found / np.sqrt((found**2).sum())
    return length


def _orders(n: int, draws: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Yield orders of n units [m, n]: all of them, or the one seen and drawn ones."""
    # As many at once as keep the moved signs [m, n, n] small.
    size = max(1, 2_000_000 // n**2)
    if n <= _ALL_ORDERS:
        every = itertools.permutations(range(n))
        while chunk := list(itertools.islice(every, size)):
            yield np.array(chunk, dtype=np.intp)
        return
    generator = np.random.default_rng(seed)
    yield np.arange(n)[None]
    for start in range(0, draws, size):
        yield generator.permuted(np.tile(np.arange(n), (min(size, draws - start), 1)), axis=1)
