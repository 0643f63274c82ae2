"""k-NN overlap: the local geometry of two representations.

Symbols: n tokens, d width, k neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa.measures._check import check_pair
from st_reasoning.hrsa.measures.columns import row_blocks


def knn_overlap(x: Tensor, y: Tensor, *, k: int | Sequence[int]) -> dict[int, float]:
    """Return the mean Jaccard index of the cosine neighbours of each token in x and in y, for every k.

    (1 / n) sum_i |N_x(i) & N_y(i)| / |N_x(i) | N_y(i)|, where N(i) holds the k rows of greatest cosine to row
    i, itself excluded (arXiv 2601.21192, section on local geometry).

    Similarities are float32 at least, whatever the input: in bfloat16 distinct neighbours of anisotropic
    states tie. Rows of exactly equal similarity enter in row order, in x and y alike, so that ties never
    count as a difference.

    Args:
        x: [n, d_x].
        y: [n, d_y].
        k: One or several numbers of neighbours, each at least 1 and less than n.

    Returns:
        The overlap in [0, 1] by k, ascending.

    Raises:
        InputError: for malformed input, a k out of range, or a row of zeros, which has no direction.
    """
    check_pair(x, y, min_rows=2)
    n = x.shape[0]
    sizes = sorted({k} if isinstance(k, int) else set(k))
    if not sizes or sizes[0] < 1 or sizes[-1] >= n:
        raise InputError(f"k: expected numbers from 1 to {n - 1} for {n} rows, got {k}")
    units_x, units_y = _unit_rows(x, "x"), _unit_rows(y, "y")
    total = dict.fromkeys(sizes, 0.0)
    for start, stop in row_blocks(n, n):
        near_x, near_y = (_neighbours(units, start, stop, sizes[-1]) for units in (units_x, units_y))
        # rank[i, j]: the place of row j among the neighbours of query i in x; one table answers every k.
        rank = torch.full((stop - start, n), sizes[-1], dtype=torch.int32, device=x.device)
        places = torch.arange(sizes[-1], dtype=torch.int32, device=x.device).expand_as(near_x)
        rank.scatter_(1, near_x, places)
        found = rank.gather(1, near_y)
        for size in sizes:
            shared = (found[:, :size] < size).sum(dim=1).double()
            total[size] += float((shared / (2 * size - shared)).sum())
    return {size: value / n for size, value in total.items()}


def _unit_rows(x: Tensor, name: str) -> Tensor:
    """Return x [n, d] with rows of length one, in float32 or, for float64 input, float64."""
    units = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    for start, stop in row_blocks(*x.shape):
        block = x[start:stop].double()
        lengths = torch.linalg.vector_norm(block, dim=1, keepdim=True)
        if (lengths == 0).any():
            raise InputError(
                f"{name}: expected rows with a direction, got zeros in row {start + int(lengths.argmin())}"
            )
        units[start:stop] = block / lengths
    return units


def _neighbours(units: Tensor, start: int, stop: int, k: int) -> Tensor:
    """Return the k nearest rows [stop - start, k] of rows start..stop, nearest first, ties in row order."""
    n = units.shape[0]
    similarity = (units[start:stop] @ units.T).double()
    similarity[torch.arange(stop - start), torch.arange(start, stop)] = -torch.inf
    # A step per row number, together well below half a float32 rounding step of a cosine: breaks ties and
    # nothing else.
    similarity -= torch.arange(n, dtype=torch.float64, device=units.device) * (2.0**-27 / n)
    return similarity.topk(k, dim=1).indices
