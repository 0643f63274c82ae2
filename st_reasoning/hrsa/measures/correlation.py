"""Dimension-wise correlation: do two representations use the same coordinate for the same thing?

Symbols: n tokens, d width, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa.measures._check import check_layers, check_pair
from st_reasoning.hrsa.measures.columns import (
    BLOCK_ELEMENTS,
    FLOAT32_RUN,
    column_means,
    column_variances,
    constant_columns,
)


def dimension_correlation(x: Tensor, y: Tensor) -> float:
    """Return the mean over columns j of the Pearson correlation of column j of x with column j of y.

    See :func:`dimension_correlation_matrix` for the equation and what becomes of constant columns.

    Args:
        x: [n, d].
        y: [n, d].
    """
    check_pair(x, y, min_rows=2, same_width=True)
    return float(dimension_correlation_matrix([x], [y])[0, 0])


def dimension_correlation_matrix(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
    """Return the mean dimension-wise correlation of every layer of one model with every layer of the other.

    (1 / d) sum_j r(X_:j, Y_:j), arXiv 2601.21192, section on representation-level similarity. A column that
    is constant in X or in Y has no correlation: it is left out of the mean, and
    :func:`~st_reasoning.hrsa.measures.constant_columns` counts it.

    Columns are standardised in float64, block by block, so that the mean is a product [L_a, n d] [n d, L_b],
    of which runs of 4,096 are summed in float32 and the runs in float64.

    Args:
        xs: L_a layers, each [n, d].
        ys: L_b layers, each [n, d], of the same n tokens.

    Returns:
        [L_a, L_b], float64, each in [-1, 1].

    Raises:
        InputError: for malformed layers, or a pair in which every column is constant on one side.
    """
    check_layers(xs, ys, min_rows=2, same_width=True)
    layers = [*xs, *ys]
    n, d = xs[0].shape
    wide = torch.float64 if any(layer.dtype == torch.float64 for layer in layers) else torch.float32
    varies = torch.stack([~constant_columns(layer) for layer in layers]).double()  # [L_a + L_b, d]
    used = varies[: len(xs)] @ varies[len(xs) :].T
    if (used == 0).any():
        layer_a, layer_b = (used == 0).nonzero()[0].tolist()
        raise InputError(f"xs[{layer_a}] with ys[{layer_b}]: expected a column that varies in both, got none")
    means = torch.stack([column_means(layer) for layer in layers])
    # Dividing by the length of the centred column turns a product of columns into a correlation.
    lengths = (n * torch.stack([column_variances(layer) for layer in layers])).sqrt()
    inverse = torch.where(varies > 0, 1 / lengths, 0.0)
    total = torch.zeros(len(xs), len(ys), dtype=torch.float64, device=xs[0].device)
    rows = max(1, 16 * BLOCK_ELEMENTS // (d * len(layers)))
    for start in range(0, n, rows):
        block = torch.stack([layer[start : start + rows].double() for layer in layers])
        block = ((block - means[:, None, :]) * inverse[:, None, :]).to(wide).flatten(start_dim=1)
        for left in range(0, block.shape[1], FLOAT32_RUN):
            run = block[:, left : left + FLOAT32_RUN]
            total += (run[: len(xs)] @ run[len(xs) :].T).double()
    return (total / used).cpu()
