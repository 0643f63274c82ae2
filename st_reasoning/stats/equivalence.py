"""Two one-sided tests, and what it takes to decide between a difference and equivalence."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy.special
import scipy.stats

from st_reasoning.errors import InputError

# A power is an integral over the estimate of the standard error: so many nodes are within 0.0003 from 1 degree on.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def tost(difference: float, standard_error: float, df: float, margin: float) -> float:
    """Return the p-value of "they differ by the margin or more" (Schuirmann 1987): small means equivalent.

    Args:
        difference: The estimate.
        standard_error: Its standard error; 0 where no unit differs from another.
        df: Degrees of freedom of Student's t.
        margin: The difference that would matter, positive, in the estimate's unit.

    Returns:
        The larger of the two one-sided p-values; NaN without any spread, for units that all show the same, be it no
        difference, tell nothing about others.
    """
    if not (margin > 0 and math.isfinite(margin)):
        raise InputError(f"margin: expected a positive number, got {margin}")
    if standard_error == 0:
        return math.nan
    return float(scipy.stats.t.sf((margin - abs(difference)) / standard_error, df))


def power_of_difference(difference: float, standard_error: float, df: float, alpha: float = 0.05) -> float:
    """Return how often a two-sided t test finds a true difference, with its sign."""
    if standard_error == 0:
        return float(difference != 0)
    # scipy.special has what scipy.stats calls, ten times faster for one number; a search asks for thousands.
    bound = scipy.special.stdtrit(df, 1 - alpha / 2)
    return float(1 - scipy.special.nctdtr(df, abs(difference) / standard_error, bound))


def power_of_equivalence(
    difference: float, standard_error: float, df: float, margin: float, alpha: float = 0.05
) -> float:
    """Return how often the two one-sided tests find two sides equivalent that truly differ by ``difference``.

    The estimate and its standard error are independent: given the error, the estimate must fall within the margin less
    t times the error; this probability is averaged over the error's distribution.
    """
    if standard_error == 0:
        return float(abs(difference) < margin)
    bound = scipy.special.stdtrit(df, 1 - alpha)
    estimated = np.sqrt(2 * scipy.special.gammaincinv(df / 2, (_NODES + 1) / 2) / df)  # chi / sqrt(df)
    within = margin / standard_error - bound * estimated
    shift = abs(difference) / standard_error
    inside = scipy.special.ndtr(within - shift) - scipy.special.ndtr(-within - shift)
    return float((np.maximum(inside, 0.0) * _WEIGHTS).sum() / 2)


def needed(
    difference: float,
    plan: Callable[[int], tuple[float, float]],
    margin: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    largest: int = 100_000,
) -> int | None:
    """Return how many units would decide: better, worse, or equivalent within the margin.

    Assumes that the true difference is ``difference`` and the spread what ``plan`` says.

    Args:
        difference: The assumed true difference.
        plan: From a number of units, 2 or more, to the standard error and degrees of freedom it gives.
        margin: As for :func:`tost`.
        alpha: Of each test.
        power: How sure the decision must be.
        largest: Where to give up.

    Returns:
        The least number at which one of the two tests has that power, or None if ``largest`` is not enough.
    """

    def decides(units: int) -> bool:
        error, df = plan(units)
        return (
            power_of_difference(difference, error, df, alpha) >= power
            or power_of_equivalence(difference, error, df, margin, alpha) >= power
        )

    low, high = 1, 2
    while not decides(high):
        if high >= largest:
            return None
        low, high = high, min(2 * high, largest)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high
