"""What is drawn, decided by a hash: the same whatever process sees it, and in whatever order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def hashed(keys: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return a random-looking int64 for each key [n], int64: the finaliser of splitmix64 (Steele et al. 2014).

    For one seed it is a bijection: different keys never share a hash.
    """
    golden = 0x9E3779B97F4A7C15
    mixed = np.asarray(keys, dtype=np.int64).view(np.uint64) + np.uint64((seed + 1) * golden % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed ^ (mixed >> np.uint64(31))).view(np.int64)
