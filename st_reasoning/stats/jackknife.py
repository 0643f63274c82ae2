"""Intervals from leaving out one block of the data at a time.

Symbols: G blocks, w_g the weight of a block, W their sum, h_g = W / w_g, v the value of all data, v_(-g) the value
without block g.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from st_reasoning.errors import InputError
from st_reasoning.stats.sampling import hashed


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: Its lower end.
        high: Its upper end.
        standard_error: Of the value in its middle.
    """

    low: float
    high: float
    standard_error: float


def interval(
    value: float, left_out: ArrayLike, weights: ArrayLike, level: float = 0.95, *, least: float = 0.0
) -> Interval:
    """Return the delete-a-group jackknife interval of a value.

    It is centred on the value, not on the jackknife's mean, which is the value corrected for bias of order 1/n. That
    correction multiplies each difference v_(-g) - v by h_g - 1, so it adds noise; measures that are debiased need none;
    of a neighbour overlap, which falls as candidates are left out, it would report what nobody measured; and a value
    must not lie outside its own interval. The ends may pass a bound of the measure, as a CKA above 1.

    Args:
        value: Of all data.
        left_out: [G], the value without each block.
        weights: [G], the size of each block in the unit that is resampled, e.g. its tokens.
        level: The share of such intervals that hold the true value.
        least: Half the width that it has at least, where no block may tell how sure the value is.

    Raises:
        InputError: for fewer than two blocks, arrays that do not match, a value that is not finite, a weight that is
            not positive, or a level outside 0 to 1.
    """
    found = np.asarray(left_out, dtype=np.float64)
    if found.ndim != 1 or not (np.isfinite(value) and np.isfinite(found).all()):
        raise InputError(f"left_out: expected finite values [G] of a finite value, got {value} and {found}")
    half = max(least, float(half_width(value, found, weights, level)))
    return Interval(float(value) - half, float(value) + half, float(standard_error(value, found, weights)))


def half_width(values: ArrayLike, left_out: ArrayLike, weights: ArrayLike, level: float = 0.95) -> NDArray[np.float64]:
    """Return half the width of the intervals of many values: their standard errors times Student's quantile.

    Student's t has G - 1 degrees of freedom: few blocks make a wide interval, not a wrong one.

    Args:
        values: [...].
        left_out: [..., G].
        weights: [G].
        level: The share of such intervals that hold the true value.

    Returns:
        [...], NaN where a value is.
    """
    if not 0 < level < 1:
        raise InputError(f"level: expected a share between 0 and 1, got {level}")
    errors = standard_error(values, left_out, weights)
    return errors * float(student.ppf(0.5 + level / 2, np.size(weights) - 1))


def standard_error(values: ArrayLike, left_out: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """Return the jackknife standard errors of many values.

    For blocks of unequal size (Busing, Meijer and van der Leeden 1999): of the pseudo-values
    p_g = h_g v - (h_g - 1) v_(-g) with mean sum_g p_g / h_g, the variance is (1/G) sum_g (p_g - mean)^2 / (h_g - 1).

    Args:
        values: [...].
        left_out: [..., G].
        weights: [G].

    Returns:
        [...], NaN where a value is.

    Raises:
        InputError: for fewer than two blocks, arrays that do not match, or a weight that is not positive.
    """
    v, without, w = (np.asarray(array, dtype=np.float64) for array in (values, left_out, weights))
    if w.ndim != 1 or len(w) < 2 or not (np.isfinite(w).all() and (w > 0).all()):
        raise InputError(f"weights: expected a positive weight of each of at least 2 blocks, got {w}")
    if without.shape != (*v.shape, len(w)):
        raise InputError(f"left_out: expected shape {[*v.shape, len(w)]}, got {list(without.shape)}")
    h = w.sum() / w
    # p_g - v, for the rounding of values near 1 with tiny differences.
    pseudo = (h - 1) * (v[..., None] - without)
    mean = (pseudo / h).sum(axis=-1, keepdims=True)
    found: NDArray[np.float64] = np.sqrt(((pseudo - mean) ** 2 / (h - 1)).mean(axis=-1))
    return found


def blocks(groups: NDArray[np.int64], *, count: int = 32, seed: int) -> NDArray[np.int64]:
    """Return the block of each row: groups stay whole and are dealt out evenly by the hash of their number.

    The same set of groups and seed give the same blocks, whatever the order and the number of rows. Sizes in groups
    differ by one at most.

    Args:
        groups: [n], e.g. the number of each token's sentence, or of each sentence.
        count: The most blocks; fewer groups are a block each.
        seed: Of the deal.

    Returns:
        [n], numbers from 0 on.

    Raises:
        InputError: for a count below 2, fewer than two groups, or group numbers that are not integers.
    """
    rows = np.asarray(groups)
    if count < 2:
        raise InputError(f"count: expected at least 2 blocks, got {count}")
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(f"groups: expected integers [n], got {rows.dtype} {list(rows.shape)}")
    numbers, place = np.unique(rows.astype(np.int64), return_inverse=True)
    if len(numbers) < 2:
        raise InputError(f"groups: expected at least 2, got {len(numbers)}")
    dealt = np.empty(len(numbers), dtype=np.int64)
    dealt[hashed(numbers, seed).argsort()] = np.arange(len(numbers)) % count
    return dealt[place]
