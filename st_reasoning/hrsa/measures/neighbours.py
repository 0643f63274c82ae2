"""k-NN overlap: the local geometry of two representations.

Symbols: n tokens, q queries among them, d width, k neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa.measures._check import check_pair
from st_reasoning.hrsa.measures.columns import row_blocks

# Similarities held at once: 16 MB, a product wide enough for a GEMM to be fast.
SIMILARITIES = 1 << 22


def knn_overlap(
    x: Tensor,
    y: Tensor,
    *,
    k: int | Sequence[int],
    queries: Tensor | None = None,
    types: Tensor | None = None,
) -> dict[int, float]:
    """Return the mean Jaccard index of the cosine neighbours of each token in x and in y, for every k.

    (1 / q) sum_i |N_x(i) & N_y(i)| / |N_x(i) | N_y(i)|, where N(i) holds the k rows of greatest cosine to row
    i, itself excluded (arXiv 2601.21192, section on local geometry).

    Similarities are float32 at least, whatever the input: in bfloat16 distinct neighbours of anisotropic
    states tie. Rows of exactly equal similarity enter in row order, in x and y alike, so that ties never
    count as a difference.

    Args:
        x: [n, d_x].
        y: [n, d_y].
        k: One or several numbers of neighbours, each at least 1 and less than n.
        queries: [q], row numbers to average over, by default all. Candidates are all rows in any case: a
            sample of queries leaves the mean where it is, one of candidates does not.
        types: [n], e.g. token ids; rows of the query's own type then do not count as neighbours.

    Returns:
        The overlap in [0, 1] by k, ascending; NaN where no query has k candidates of another type.

    Raises:
        InputError: for malformed input, a k out of range, or a row of zeros, which has no direction.
    """
    check_pair(x, y, min_rows=2)
    n = x.shape[0]
    sizes = sorted({k} if isinstance(k, int) else set(k))
    if not sizes or sizes[0] < 1 or sizes[-1] >= n:
        raise InputError(f"k: expected numbers from 1 to {n - 1} for {n} rows, got {k}")
    if types is not None and types.shape != (n,):
        raise InputError(f"types: expected one per row, {n}, got shape {list(types.shape)}")
    if queries is None:
        queries = torch.arange(n, device=x.device)
    elif queries.ndim != 1 or not len(queries) or queries.min() < 0 or queries.max() >= n:
        raise InputError(f"queries: expected row numbers from 0 to {n - 1}, got {queries}")
    near_x, near_y = (neighbours(unit_rows(rows, name), queries, sizes, types) for rows, name in ((x, "x"), (y, "y")))
    if types is not None:
        return mean_jaccard(near_x.other_types, near_y.other_types, sizes)
    return mean_jaccard(near_x.all, near_y.all, sizes)


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of some queries.

    Attributes:
        all: [q, k], row numbers, nearest first.
        other_types: [q, k], among rows of another type than the query's, -1 where there are too few; None
            without types.
    """

    all: Tensor
    other_types: Tensor | None


def unit_rows(x: Tensor, name: str) -> Tensor:
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


def neighbours(units: Tensor, queries: Tensor, sizes: Sequence[int], types: Tensor | None = None) -> Neighbours:
    """Return the nearest rows of each query, of all rows and, with types, of those of another type.

    Args:
        units: [n, d], rows of length one.
        queries: [q], row numbers.
        sizes: Numbers of neighbours, ascending; for each the first so many columns are exact.
        types: [n].
    """
    n, every, others = units.shape[0], [], []
    for start, stop in row_blocks(len(queries), n, SIMILARITIES):
        rows = queries[start:stop]
        similarity = units[rows] @ units.T
        similarity[torch.arange(len(rows), device=rows.device), rows] = -torch.inf
        every.append(_nearest(similarity, sizes))
        if types is not None:
            similarity.masked_fill_(types[rows][:, None] == types[None, :], -torch.inf)
            others.append(_nearest(similarity, sizes))
    return Neighbours(torch.cat(every), torch.cat(others) if types is not None else None)


def _nearest(similarity: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the columns [q, k] of the greatest values of each row, ties in column order, -1 for -infinity."""
    n, k = similarity.shape[1], sizes[-1]
    values, columns = similarity.topk(min(k + 1, n), dim=1)
    # topk orders equal values as it likes. That matters only where one is in and the next is out.
    tied = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    for size in sizes:
        if size < values.shape[1]:
            tied |= values[:, size - 1] == values[:, size]
    columns = columns[:, :k].masked_fill(values[:, :k] == -torch.inf, -1)
    if tied.any():
        # A step per column number, together well below half a float32 rounding step of a cosine: breaks ties
        # and nothing else.
        steps = torch.arange(n, dtype=torch.float64, device=similarity.device) * (2.0**-27 / n)
        values, found = (similarity[tied].double() - steps).topk(k, dim=1)
        columns[tied] = found.masked_fill(values == -torch.inf, -1)
    return columns


def mean_jaccard(near_x: Tensor | None, near_y: Tensor | None, sizes: Sequence[int]) -> dict[int, float]:
    """Return the mean Jaccard index of two lists of neighbours [q, k], for the first ``size`` of each."""
    assert near_x is not None
    assert near_y is not None
    found = {}
    for size in sizes:
        first, second = near_x[:, :size], near_y[:, :size]
        full = (first >= 0).all(dim=1) & (second >= 0).all(dim=1)
        both = torch.cat([first[full], second[full]], dim=1).sort(dim=1).values
        shared = (both[:, 1:] == both[:, :-1]).sum(dim=1).double()
        found[size] = float((shared / (2 * size - shared)).mean())
    return found
