"""How sure a value is: intervals from leaving out blocks of whole sentences, kept for paired differences.

How often they hold the true value was measured on 1,000 simulated data sets of 150 texts of 6 to 12 tokens, correlated
within a text, in 16 dimensions, with and without sinks (tests/benchmarks/hrsa_coverage.py, estimator "fast"): dimension
correlation 94 to 95 %, linear CKA 95 to 96 %, the residual of Procrustes 94 to 96 %. Of the others see ``MARKED``. The
true value is the population's for dimension correlation and debiased CKA (of tokens of different texts), the accuracy
of the fitted probe on 20,000 other texts for the probe, else what the measure is on average at this size.
"""

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

_MIXING = (
    "of what the value is at this number of tokens and held that in 93 to 94 % of simulated data sets: with more "
    "tokens it would be greater, because sampling error looks like mixing"
)
_NEIGHBOURS = (
    "wider than need be and held the value in 98 to 100 % of simulated data sets: without a block the neighbours of "
    "others change too, which counts the accidents of a neighbourhood twice"
)
_SCALE = (
    "up to a fifth wider than need be and held the value in 95 to 98 % of simulated data sets: without a block the "
    "columns are still scaled as with it"
)
_OWN = (
    "of this probe on other texts, too narrow where errors are few, and held that in 92 % of simulated data sets, "
    "scored on 30 texts; fitted again it would be another probe"
)
_TRANSFER = (
    "of this probe on other texts, and held that in 93 to 96 % of simulated data sets, scored on 30 texts; fitted "
    "again it would be another probe"
)
# By address, as fnmatch reads it: whose coverage is not 93 to 97 %, or is of another value than one may think. Figures
# are of tests/benchmarks/hrsa_coverage.py, 1,000 data sets.
MARKED = {
    "procrustes.inverse_row_entropy": _MIXING,
    "sensitivity.procrustes_without_sinks.inverse_row_entropy": _MIXING,
    "sensitivity.procrustes_standardised.inverse_row_entropy": (
        "too narrow where there are sinks and held the value in 71 % of simulated data sets with them, 93 % without: "
        "sinks leave little of the other directions in standardised columns, and the map turns by leaps"
    ),
    "sensitivity.linear_cka_standardised.*": _SCALE,
    "knn_overlap.*": _NEIGHBOURS,
    "sensitivity.knn_overlap_*": _NEIGHBOURS,
    "*linear_probe*.own": _OWN,
    "*linear_probe*.transferred": _TRANSFER,
    "*linear_probe*.difference": _TRANSFER,
}

# By address, as fnmatch reads it, the first that fits: between which ends a value can lie. An interval goes no further.
_RANGES = {
    "*dimension_correlation*": (-1.0, 1.0),
    "*linear_cka*.biased": (0.0, 1.0),
    "*linear_cka*.debiased": (-math.inf, 1.0),
    "*.residual": (0.0, math.inf),
    "*linear_probe*.difference": (-1.0, 1.0),
    "*": (0.0, 1.0),
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

    def entry(
        self, address: str, layer: int, value: float | Tensor, left_out: Tensor | None, *, least: float = 0.0
    ) -> dict[str, Any]:
        """Return a value and its interval under the last part of its address, and keep what it came from.

        Both are None where the value is undefined, the interval where it is without some block.

        Args:
            address: Such as ``"linear_cka.debiased"``.
            layer: Of the first model.
            value: What was measured.
            left_out: [G], the same without each block; None where that is not known.
            least: Half the width that the interval has at least, where no block may tell how sure the value is.
        """
        name, number = address.rpartition(".")[2], finite(value)
        kept = self.left_out.setdefault(address, [None] * self.layers)
        found = {name: number, f"{name}_interval": None}
        if number is None or left_out is None or not left_out.isfinite().all():
            return found
        values = left_out.double().numpy()
        kept[layer] = [float(f"{one:.9g}") for one in values.tolist()]
        half = max(least, float(jackknife.half_width(number, values, self.weights, LEVEL)))
        lowest, highest = next(ends for pattern, ends in _RANGES.items() if fnmatchcase(address, pattern))
        # Rounding may put the value itself a hair beyond.
        low, high = max(number - half, min(lowest, number)), min(number + half, max(highest, number))
        return found | {f"{name}_interval": [low, high]}

    def half_widths(self, values: Tensor, left_out: Tensor) -> list[list[float | None]]:
        """Return half the width of the intervals of values [L_a, L_b], for left_out [G, L_a, L_b]."""
        found = jackknife.half_width(values.numpy(), np.moveaxis(left_out.numpy(), 0, -1), self.weights, LEVEL)
        return [[finite(number) for number in row] for row in found]

    def to_mapping(self) -> dict[str, Any]:
        """Return what paired differences between two panels are made from."""
        # Layers may be measured side by side: addresses are not noted in the same order each time.
        return {"weights": self.weights.tolist(), "left_out": dict(sorted(self.left_out.items()))}


def described(blocks: int, addresses: Iterable[str]) -> dict[str, Any]:
    """Return what a reader must know of the intervals of a panel.

    Args:
        blocks: G.
        addresses: Of all values of the panel; those whose coverage is not nominal are marked.
    """
    marked = {
        address: why for address in sorted(addresses) for name, why in MARKED.items() if fnmatchcase(address, name)
    }
    return {"level": LEVEL, "method": METHOD, "blocks": blocks, "marked": marked}


def finite(value: float | Tensor) -> float | None:
    """Return a plain float, None where the measure is undefined: JSON has no NaN."""
    number = float(value)
    return number if math.isfinite(number) else None
