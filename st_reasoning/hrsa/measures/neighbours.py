"""k-NN overlap: the local geometry of two representations.

Symbols: n tokens, q queries among them, d width, k neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa.measures._check import check_pair
from st_reasoning.hrsa.measures.columns import empty, products, row_blocks

# Similarities looked at in one go: 16 MB, a product wide enough for a GEMM to be fast. As many again are held where
# some rows may not be neighbours.
SIMILARITIES = 1 << 22
# Entries of the tables in which rows are looked up: what fits in a cache.
_TABLE = 1 << 20
# Rows whose ties are ordered at a time.
_TIED = 64
# Columns that are first looked at together where few of many are wanted.
_GROUP = 8


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
    queries = queries.to(x.device, torch.int64)
    without = [] if types is None else [Excluded(types=types)]
    near_x, near_y = (
        neighbours(unit_rows(rows, name), queries, sizes[-1], without=without)[-1]
        for rows, name in ((x, "x"), (y, "y"))
    )
    shared = Shared.of(near_x, near_y, n)
    return {size: float(shared.jaccard(size).nanmean()) for size in sizes}


def unit_rows(x: Tensor, name: str, *, out: Tensor | None = None) -> Tensor:
    """Return x [n, d] with rows of length one, in float32 or, for float64 input, float64.

    Written to ``out``, which may be x itself, if that is given.
    """
    units = out
    if units is None:
        units = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    for start, stop in row_blocks(*x.shape):
        block = x[start:stop].double()
        lengths = torch.linalg.vector_norm(block, dim=1, keepdim=True)
        if (lengths == 0).any():
            raise InputError(
                f"{name}: expected rows with a direction, got zeros in row {start + int(lengths.argmin())}"
            )
        torch.div(block, lengths, out=units[start:stop])
    return units


def neighbours(
    units: Tensor, queries: Tensor, length: int, *, without: Sequence[Excluded] = (), spare: int = 0
) -> list[Tensor]:
    """Return the nearest rows of each query, nearest first and ties in row order, without the query itself.

    Args:
        units: [n, d], rows of length one.
        queries: [q], row numbers.
        length: Neighbours of each query.
        without: Rows that may not be neighbours, each a list of its own.
        spare: How many more are looked for at first, so that most lists without some rows follow from the first one.

    Returns:
        [q, length], and one more of that shape for each of ``without``, -1 where there are too few.
    """
    n = len(units)
    found = [queries.new_empty(len(queries), length) for _ in range(1 + len(without))]
    parts = list(row_blocks(len(queries), n, SIMILARITIES))
    again, first_of = _repeated(units)
    # One buffer for all parts, and one for lists that need a second look: pages that are new each time cost as much as
    # a third of the products.
    most = max((stop - start for start, stop in parts), default=0)
    buffer, other = (empty(size, n, dtype=units.dtype, device=units.device) for size in (most, most if without else 0))
    for start, stop in parts:
        rows = queries[start:stop]
        similarity = products(units.index_select(0, rows), units, out=buffer[: stop - start])
        if len(again):
            # A BLAS may round equal rows differently, depending on where they stand.
            similarity.index_copy_(1, again, similarity.index_select(1, first_of))
        similarity[torch.arange(len(rows), device=rows.device), rows] = -torch.inf
        near = nearest(similarity, length + spare)
        found[0][start:stop] = near[:, :length]
        for lists, excluded in zip(found[1:], without, strict=True):
            stays = ~(excluded.of(rows, near) | (near < 0))
            rank = stays.cumsum(dim=1)
            few = rank[:, -1] < length
            first = stays & (rank <= length) & ~few[:, None]
            lists[start:stop][~few] = near[first].view(-1, length)
            asked = few.nonzero().flatten()
            if len(asked):
                left = torch.index_select(similarity, 0, asked, out=other[: len(asked)])
                lists[start:stop][asked] = nearest(excluded.drop(left, rows[asked]), length)
    return found


def _repeated(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of x [n, d] that are equal to an earlier one bit by bit, and the first of each, [p] and [p]."""
    bits = x.view(torch.int32 if x.element_size() == 4 else torch.int64)
    weights = torch.randint(1, 2**31 - 1, x.shape[1:], generator=torch.Generator().manual_seed(0)).to(bits)
    # Integer sums do not depend on their order: equal rows have equal keys, a block of rows in a cache at a time.
    keys = torch.cat([(bits[start:stop] * weights).sum(dim=1) for start, stop in row_blocks(*x.shape)])
    names, numbers = torch.unique(keys, return_inverse=True)
    every = torch.arange(len(x), device=x.device)
    firsts = torch.full_like(names, len(x)).scatter_reduce_(0, numbers, every, "amin")[numbers]
    again = (firsts < every).nonzero().flatten()
    again = again[(x.index_select(0, again) == x.index_select(0, firsts[again])).all(dim=1)]
    return again, firsts[again]


@dataclass(frozen=True)
class Excluded:
    """Rows that may not be neighbours: those of the query's own type, or some rows whoever asks.

    Attributes:
        types: [n], or None.
        rows: [n], booleans, or None.
    """

    types: Tensor | None = None
    rows: Tensor | None = None

    def of(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Return which candidates [q, c] of queries [q] are excluded, [q, c]."""
        if self.types is not None:
            return self.types[queries][:, None] == self.types[candidates]
        assert self.rows is not None
        return self.rows[candidates]

    def drop(self, similarity: Tensor, queries: Tensor) -> Tensor:
        """Set to -infinity what of similarities [q, n] of queries [q] is excluded, and return them."""
        if self.rows is not None:
            return similarity.index_fill_(1, self.rows.nonzero().flatten(), -torch.inf)
        # By number: a comparison of all types with that of each query takes ten times as long.
        order, first, count = self._by_type
        counts = count[queries]
        before = counts.cumsum(dim=0) - counts
        places = torch.arange(int(counts.sum()), device=counts.device)
        places += (first[queries] - before).repeat_interleave(counts)
        starts = len(order) * torch.arange(len(queries), device=counts.device)
        similarity.view(-1).index_fill_(0, starts.repeat_interleave(counts) + order[places], -torch.inf)
        return similarity

    @cached_property
    def _by_type(self) -> tuple[Tensor, Tensor, Tensor]:
        """All rows in the order of their types, and of each row where those of its type begin there and how many."""
        assert self.types is not None
        _, numbers, counts = torch.unique(self.types, return_inverse=True, return_counts=True)
        return numbers.argsort(stable=True), (counts.cumsum(dim=0) - counts)[numbers], counts[numbers]


def nearest(similarity: Tensor, length: int) -> Tensor:
    """Return the columns [q, length] of the greatest values of each row, ties in column order, -1 for -infinity."""
    n = similarity.shape[1]
    width = min(length + 1, n)
    values, columns = _greatest(similarity, width)
    # topk orders equal values as it likes, and takes any of them where not all are in.
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1).nonzero().flatten()
    if len(tied):
        by_column = columns[tied].argsort(dim=1)
        again = values[tied].gather(1, by_column).argsort(dim=1, descending=True, stable=True)
        columns[tied] = columns[tied].gather(1, by_column).gather(1, again)
    if width > length:
        last = values[:, length:]
        open_end = (values[:, length - 1 : length] == last) & (last > -torch.inf)
        places = (values == last) & open_end
        # Of the columns that hold the last value the lowest come in. A few rows at a time: all columns of theirs may.
        for rows in torch.split(open_end.flatten().nonzero().flatten(), _TIED):
            row, column = (similarity.index_select(0, rows) == last[rows]).nonzero(as_tuple=True)
            held, free = torch.bincount(row), places[rows].sum(dim=1)
            rank = torch.arange(len(row), device=row.device) - (held.cumsum(dim=0) - held)[row]
            columns[rows] = columns[rows].masked_scatter(places[rows], column[rank < free[row]])
    columns = columns.masked_fill_(values == -torch.inf, -1)[:, :length]
    return torch.nn.functional.pad(columns, (0, length - columns.shape[1]), value=-1)


def _greatest(similarity: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return the greatest values of each row [q, width], descending, and columns that hold them."""
    groups = similarity.shape[1] // _GROUP
    if groups < 2 * width or similarity.device.type != "cpu":
        return similarity.topk(width, dim=1)
    # They are in as many groups of columns at most, those whose maxima are greatest: a third of the time of topk over
    # all (measured: 68 of 14,046).
    covered = _GROUP * groups
    maxima = similarity[:, :covered].view(-1, _GROUP, groups).amax(dim=1)
    best = torch.from_numpy(np.argpartition(maxima.numpy(), groups - width, axis=1)[:, groups - width :])
    within = (best[:, None, :] + groups * torch.arange(_GROUP)[:, None]).flatten(start_dim=1)
    rest = torch.arange(covered, similarity.shape[1]).expand(len(similarity), -1)
    columns = torch.cat([within, rest], dim=1)
    values, places = similarity.gather(1, columns).topk(width, dim=1)
    return values, columns.gather(1, places)


@dataclass(frozen=True)
class Shared:
    """Two lists of neighbours of the same queries, and where those of one stand in the other.

    Attributes:
        x: [q, k], nearest first, -1 at the end where there are too few.
        y: [q, k], likewise.
        in_y: [q, k], places of the neighbours in x in the list of y, k for those that are not in it.
        in_x: [q, k], places of those in y in the list of x.
    """

    x: Tensor
    y: Tensor
    in_y: Tensor
    in_x: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor, n: int) -> Shared:
        """Look up x [q, k] and y [q, k] in each other, rows below n."""
        return cls(x, y, _places(x, y, n), _places(y, x, n))

    def jaccard(self, size: int) -> Tensor:
        """Return the Jaccard index [q] of the first ``size`` of both lists, NaN where they are fewer."""
        full = (self.x[:, size - 1] >= 0) & (self.y[:, size - 1] >= 0)
        shared = (self.in_y[:, :size] < size).sum(dim=1).double()
        return torch.where(full, shared / (2 * size - shared), torch.nan)

    def changes(self, size: int) -> tuple[Tensor, Tensor]:
        """Return how the Jaccard index of each query changes when one of its neighbours is no candidate any more.

        The next one takes its place: for a list a neighbour is dropped from, row ``size`` comes in.

        Args:
            size: Number of neighbours, less than there are.

        Returns:
            The change for each neighbour in x [q, size], and for each in y that is none in x (0 for the others),
            [q, size]; 0 where there are too few neighbours.
        """
        full = (self.x[:, size] >= 0) & (self.y[:, size] >= 0)
        in_y, in_x = self.in_y[:, :size] < size, self.in_x[:, :size] < size
        shared = in_y.sum(dim=1).double()
        next_x, next_y = self.in_y[:, size], self.in_x[:, size]
        enters_x, enters_y = (next_x < size).double(), (next_y < size).double()

        def index(common: Tensor) -> Tensor:
            return common / (2 * size - common)

        now = index(shared)
        both = index(shared - 1 + enters_x + enters_y + (next_x == size).double()) - now
        only_x, only_y = index(shared + enters_x) - now, index(shared + enters_y) - now
        change_x = torch.where(in_y, both[:, None], only_x[:, None])
        change_y = torch.where(in_x, 0.0, only_y[:, None])
        known = full.double()[:, None]
        return change_x * known, change_y * known


def _places(near: Tensor, other: Tensor, n: int) -> Tensor:
    """Return where in the lists of other [q, k] the rows in near [q, k] stand, k for those that are not there."""
    found, k = torch.empty_like(near), other.shape[1]
    parts = list(row_blocks(len(near), n + 1, _TABLE))
    # A column for each row and the last one for none, which stands nowhere.
    table = near.new_full((max((stop - start for start, stop in parts), default=0), n + 1), k, dtype=torch.int32)
    numbers = torch.arange(k, dtype=torch.int32, device=near.device)
    for start, stop in parts:
        part, columns = table[: stop - start], other[start:stop] % (n + 1)
        part.scatter_(1, columns, numbers.expand(stop - start, -1))
        part[:, n] = k
        found[start:stop] = part.gather(1, near[start:stop] % (n + 1))
        part.scatter_(1, columns, k)
    return found
