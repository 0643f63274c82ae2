"""Several tests at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from st_reasoning.errors import InputError


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return Holm's (1979) adjusted p-values: all below alpha hold together, with an error of at most alpha.

    The i-th smallest of m is multiplied by m - i + 1, none is below a smaller one's, none above 1. scipy has only the
    false discovery rate.

    Args:
        p_values: [m], in 0 to 1; NaN, a test that could not be made, stays NaN and counts in m, for it was meant.

    Returns:
        [m], in the order given.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or ((p < 0) | (p > 1)).any():
        raise InputError(f"p_values: expected values [m] between 0 and 1, got {p}")
    order = np.argsort(p, kind="stable")  # NaN last
    raised = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return adjusted
