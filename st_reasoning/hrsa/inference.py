"""How sure a value is: intervals from leaving out blocks of whole sentences, kept for paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from torch import Tensor

from st_reasoning.stats import jackknife

LEVEL = 0.95
METHOD = "sentence-block jackknife"

# What keeps these intervals from holding the true value as often as they say; measured in tests/hrsa/test_coverage.py.
MARKED = {
    "procrustes.inverse_row_entropy": "of the value at this number of tokens: with more of them it would be greater, "
    "because sampling error looks like mixing",
    "linear_probe.own": "of this probe on other texts: fitted again on other texts it would be another probe",
    "linear_probe.transferred": "of this probe on other texts: fitted again on other texts it would be another probe",
    "linear_probe.difference": "of this probe on other texts: fitted again on other texts it would be another probe",
}


class Intervals:
    """Collects, by address and layer, what values are without each block.

    Args:
        weights: [G], tokens of each block.
        layers: How many layers there are.
    """

    def __init__(self, weights: Tensor, layers: int) -> None:
        self.weights, self.layers = weights.numpy(), layers
        self.left_out: dict[str, list[list[float] | None]] = {}

    def entry(self, address: str, layer: int, value: float | Tensor, left_out: Tensor | None) -> dict[str, Any]:
        """Return a value and its interval under the last part of its address, and keep what it came from.

        Both are None where the value is undefined, the interval where it is without some block.

        Args:
            address: Such as ``"linear_cka.debiased"``.
            layer: Of the first model.
            value: What was measured.
            left_out: [G], the same without each block; None where that is not known.
        """
        name, number = address.rpartition(".")[2], finite(value)
        kept = self.left_out.setdefault(address, [None] * self.layers)
        found = {name: number, f"{name}_interval": None}
        if number is None or left_out is None or not left_out.isfinite().all():
            return found
        values = left_out.double().numpy()
        kept[layer] = [float(f"{one:.9g}") for one in values.tolist()]
        interval = jackknife.interval(number, values, self.weights, LEVEL)
        return found | {f"{name}_interval": [interval.low, interval.high]}

    def half_widths(self, values: Tensor, left_out: Tensor) -> list[list[float | None]]:
        """Return half the width of the intervals of values [L_a, L_b], for left_out [G, L_a, L_b]."""
        found = jackknife.half_width(values.numpy(), np.moveaxis(left_out.numpy(), 0, -1), self.weights, LEVEL)
        return [[finite(number) for number in row] for row in found]

    def to_mapping(self) -> dict[str, Any]:
        """Return what paired differences between two panels are made from."""
        return {"weights": self.weights.tolist(), "left_out": self.left_out}


def described(blocks: int, addresses: Iterable[str]) -> dict[str, Any]:
    """Return what a reader must know of the intervals of a panel.

    Args:
        blocks: G.
        addresses: Of all values of the panel; those whose coverage is not nominal are marked.
    """
    marked = {address: why for address in addresses for name, why in MARKED.items() if fnmatchcase(address, name)}
    return {"level": LEVEL, "method": METHOD, "blocks": blocks, "marked": marked}


def finite(value: float | Tensor) -> float | None:
    """Return a plain float, None where the measure is undefined: JSON has no NaN."""
    number = float(value)
    return number if math.isfinite(number) else None
