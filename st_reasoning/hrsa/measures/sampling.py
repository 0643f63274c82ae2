"""Which of many rows are drawn, decided by a hash: the same whatever process sees them, and in whatever order."""

from __future__ import annotations

import torch
from torch import Tensor


def hashed(keys: Tensor, seed: int) -> Tensor:
    """Return a random-looking int64 for each key [n], int64 (the finaliser of splitmix64)."""
    mixed = keys + torch.tensor(seed + 1, device=keys.device) * -7046029254386353131  # as a tensor it wraps around
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return mixed ^ ((mixed >> 31) & ((1 << 33) - 1))


def chosen(keys: Tensor, share: float, seed: int) -> Tensor:
    """Return booleans [n] that are true for about a share of the keys."""
    return hashed(keys, seed).double() / 2.0**64 + 0.5 < share
