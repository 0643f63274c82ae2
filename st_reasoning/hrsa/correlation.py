"""Dimension-wise correlation of every layer with every layer, and how far each block of sentences decides it.

Symbols: n tokens, d width, L layers, G blocks of sentences.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from st_reasoning.hrsa.facts import Columns
from st_reasoning.hrsa.measures.columns import zeros
from st_reasoning.hrsa.store import Store
from st_reasoning.hrsa.tokens import Tokens

# Bytes of standardised rows of all layers held at once.
_BUFFER = 80 << 20


def correlations(
    stores: tuple[Store, Store], columns: tuple[list[Columns], list[Columns]], tokens: Tokens, n: int
) -> tuple[Tensor, Tensor]:
    """Return the mean dimension-wise correlation of all layers over the first n rows, and the same without each block.

    A correlation r of columns standardised to u and v changes with row i, to first order, by (u_i v_i - r (u_i^2 +
    v_i^2) / 2) / n, its influence.

    Returns:
        [L_a, L_b] and [G, L_a, L_b], float64, NaN where no column varies in both.
    """
    every = [*columns[0], *columns[1]]
    count_a, count_b, width = len(columns[0]), len(columns[1]), stores[0].width
    varies = torch.stack([~found.constant for found in every]).double()
    used = varies[:count_a] @ varies[count_a:].T
    # Dividing by the length of the centred column turns a product of columns into a correlation.
    factors = [(found.factors / n**0.5).float() for found in every]
    offsets = [-(found.mean * found.factors / n**0.5).float() for found in every]
    sources = [(stores[0], layer) for layer in range(count_a)] + [(stores[1], layer) for layer in range(count_b)]
    most = max(1, _BUFFER // (4 * width * len(every)))
    by_block = torch.zeros(tokens.block_count, count_a, count_b, dtype=torch.float64)
    by_column = torch.zeros(width, count_a, count_b)
    squares = torch.zeros(tokens.block_count, len(every), width)
    runs = list(_runs(tokens, n, most))
    buffer = zeros(len(every) * width * max(stop - start for start, stop, _ in runs))
    for start, stop, block in runs:
        # Columns apart, so that one product for each sums over rows: what it is over all columns is the sum of these.
        columnwise = buffer[: len(every) * width * (stop - start)].view(len(every), width, stop - start)
        for number, (store, layer) in enumerate(sources):
            rows = torch.addcmul(offsets[number], store.read(layer, start, stop), factors[number])
            columnwise[number] = rows.T
        squares[block] += torch.linalg.vector_norm(columnwise, dim=2).square()
        by_layer = columnwise.transpose(0, 1)
        products = by_layer[:, :count_a] @ by_layer[:, count_a:].transpose(1, 2)
        by_column += products
        by_block[block] += products.sum(dim=0, dtype=torch.float64)
    value = by_block.sum(dim=0) / used
    shrunk = torch.einsum("jab,gaj->gab", by_column, squares[:, :count_a])
    shrunk += torch.einsum("jab,gbj->gab", by_column, squares[:, count_a:])
    influence = (by_block - shrunk.double() / 2) / used
    left = n - torch.bincount(tokens.blocks[:n], minlength=tokens.block_count).double()
    return value, value - influence * (n / left)[:, None, None]


def _runs(tokens: Tokens, n: int, most: int) -> Iterator[tuple[int, int, int]]:
    """Yield start, stop and block of the first n rows, at most so many rows of one block at a time."""
    for segment in tokens.segments:
        for start in range(segment.start, min(n, segment.stop), most):
            yield start, min(n, segment.stop, start + most), segment.block


def paired_correlation(x: Tensor, y: Tensor, columns: tuple[Columns, Columns]) -> float:
    """Return the mean dimension-wise correlation of rows x [p, d] with y [p, d], columns standardised as given.

    NaN where no column varies in both.
    """
    u, v = ((rows - side.mean.float()) * side.factors.float() for rows, side in zip((x, y), columns, strict=True))
    used = (~columns[0].constant & ~columns[1].constant).sum()
    return float((u * v).sum(dim=0).double().sum() / (len(x) * used))
