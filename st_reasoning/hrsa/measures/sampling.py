"""Which of many rows are drawn, decided by a hash: the same whatever process sees them, and in whatever order."""

from __future__ import annotations

import torch
from torch import Tensor

from st_reasoning.stats import hashed as hashed_array


def hashed(keys: Tensor, seed: int) -> Tensor:
    """Return a random-looking int64 for each key [n], int64; see :func:`st_reasoning.stats.hashed`."""
    return torch.from_numpy(hashed_array(keys.cpu().numpy(), seed)).to(keys.device)


def spread(n: int, most: int) -> Tensor:
    """Return places from 0 to n - 1, at most so many, evenly spaced, ascending."""
    count = min(n, most)
    return torch.arange(count) * n // max(1, count)


def chosen(keys: Tensor, share: float, seed: int) -> Tensor:
    """Return booleans [n] that are true for about a share of the keys."""
    return hashed(keys, seed).double() / 2.0**64 + 0.5 < share
