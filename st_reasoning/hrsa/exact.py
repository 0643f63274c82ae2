"""The published CKA: all pairs of tokens, from Gram tiles of all layers that are multiplied with one another.

Symbols: n tokens, of which the first n_kept are no sinks; L layers; G blocks of sentences; K = XX' without its
diagonal, rows of X less any one centre; k its row sums, a its diagonal.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from st_reasoning.hrsa import measures
from st_reasoning.hrsa.cores import Cores, Over
from st_reasoning.hrsa.facts import Columns
from st_reasoning.hrsa.fast import CKA, AllCKA
from st_reasoning.hrsa.measures.columns import FLOAT32_RUN, empty, products, row_blocks
from st_reasoning.hrsa.measures.minibatch import block_products, block_sums, ratio, without
from st_reasoning.hrsa.store import Store
from st_reasoning.hrsa.tokens import Tokens

# Rows that make a tile: start, stop and block of each run.
_Unit = list[tuple[int, int, int]]
# Bytes of Gram tiles held at once: wide ones read the layers less often.
_TILE_BYTES = 192 << 20


def linear_cka(
    stores: tuple[Store, Store],
    columns: tuple[list[Columns], list[Columns]],
    kept: tuple[list[Columns], list[Columns]] | None,
    pairs: Sequence[tuple[int, int]],
    tokens: Tokens,
    cores: Cores,
) -> AllCKA:
    """Return CKA of all rows, of those that are no sinks, and of matched layers with standardised columns.

    Args:
        stores: The two models.
        columns: Facts of every layer over all n rows.
        kept: Over the rows that are no sinks, which come first; None if there are too few of them.
        pairs: The matched layers.
        tokens: Their blocks.
        cores: Where to work.
    """
    n, n_kept, count_a = len(tokens.order), tokens.kept, len(stores[0])

    def about(centres: tuple[list[Columns], list[Columns]]) -> list[_Source]:
        return [
            _Source(store, layer, of.mean, torch.full_like(of.mean, found.scale))
            for store, side, near in zip(stores, columns, centres, strict=True)
            for layer, (found, of) in enumerate(zip(side, near, strict=True))
        ]

    plain = about(columns)
    guards = about(kept) if kept is not None and n_kept < n else None
    size = _TILE_BYTES // cores.workers
    whole, guarded = _sums(plain, count_a, tokens, guards, size=size, over=cores.map)
    every = _result(whole, plain, count_a, tokens, n, over=cores.map)
    without_sinks = None if kept is None else every
    if guards is not None and guarded is not None:
        without_sinks = _result(guarded, guards, count_a, tokens, n_kept, over=cores.map)

    def standardised(pair: tuple[int, int]) -> CKA:
        sources = [
            _Source(store, layer, side[layer].mean, side[layer].factors)
            for store, layer, side in zip(stores, pair, columns, strict=True)
        ]
        return _result(_sums_of_pair(sources, tokens, size=size), sources, 1, tokens, n)

    return AllCKA(every, without_sinks, [*cores.map(standardised, pairs)])


@dataclass(frozen=True)
class _Source:
    """A layer whose rows are read less a centre and times factors, [d] each."""

    store: Store
    layer: int
    centre: Tensor
    factors: Tensor

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows [stop - start, d], float32; the centre is what float32 makes of it, which is a centre too."""
        rows = self.store.read(self.layer, start, stop)
        return rows.sub_(self.centre.float()).mul_(self.factors.float())

    def moved_to(self, other: _Source, n: int) -> Tensor:
        """Return what K_ij has more about this centre than about another one, a sum of what either row has, [n]."""
        offset = (other.centre.float() - self.centre.float()) * self.factors.float()
        return torch.cat([self.rows(*part) @ offset for part in row_blocks(n, self.store.width)]) - offset @ offset / 2

    def squares_and_sums(self, n: int) -> tuple[Tensor, Tensor]:
        """Return the diagonal a and the row sums k of K over the first n rows, [n] each, float64."""
        total = torch.zeros(self.store.width, dtype=torch.float64)
        parts = list(row_blocks(n, self.store.width))
        for start, stop in parts:
            total += self.rows(start, stop).double().sum(dim=0)
        squares, sums = torch.empty(n, dtype=torch.float64), torch.empty(n, dtype=torch.float64)
        for start, stop in parts:
            rows = self.rows(start, stop).double()
            squares[start:stop] = rows.square().sum(dim=1)
            sums[start:stop] = rows @ total
        return squares, sums - squares


@dataclass
class _Sums:
    """Sums of K_ij L_ij over i != j, by the block of i: [G, L_a, L_b], and of each side with itself, [G, L]."""

    cross: Tensor
    own: Tensor

    @classmethod
    def zero(cls, blocks: int, count_a: int, count: int) -> _Sums:
        zero = torch.zeros((), dtype=torch.float64).new_zeros
        return cls(zero(blocks, count_a, count - count_a), zero(blocks, count))

    def add(self, found: Iterable[tuple[int, Tensor, Tensor]]) -> None:
        """Add what :func:`_tile_sums` found."""
        for block, cross, own in found:
            self.cross[block] += cross
            self.own[block] += own


def _sums(
    sources: Sequence[_Source],
    count_a: int,
    tokens: Tokens,
    guards: Sequence[_Source] | None = None,
    *,
    size: int,
    over: Over = map,
) -> tuple[_Sums, _Sums | None]:
    """Return the sums over all rows and, with the same layers about their means, over those that are no sinks.

    Tiles are made about the means of those that are no sinks, whose variance would be lost behind a mean that sinks
    have moved, and carried over to the means of all. They are of ``size`` bytes at most; ``over`` is how to go over
    them.
    """
    side = max(16, math.isqrt(size // (4 * len(sources))))
    units = _units(tokens, side)
    whole = _Sums.zero(tokens.block_count, count_a, len(sources))
    kept = _Sums.zero(tokens.block_count, count_a, len(sources)) if guards is not None else None
    moved = torch.empty(0)
    if guards is not None:
        pairs = zip(guards, sources, strict=True)
        moved = torch.stack([*over(lambda pair: pair[0].moved_to(pair[1], len(tokens.order)), pairs)])

    def tile(pair: tuple[_Unit, _Unit]) -> tuple[list[_TileSum], list[_TileSum]]:
        left, right = pair
        top, low, start, stop = left[0][0], left[-1][1], right[0][0], right[-1][1]
        tiles = empty(len(sources), low - top, stop - start)
        for source, product in zip(guards or sources, tiles, strict=True):
            rows = source.rows(top, low)
            products(rows, rows if left is right else source.rows(start, stop), out=product)
            if left is right:
                product.fill_diagonal_(0)
        if guards is None:
            return _tile_sums(tiles, left, right, count_a), []
        of_kept = _tile_sums(tiles, left, right, count_a) if stop <= tokens.kept else []
        for product, offsets in zip(tiles, moved, strict=True):
            product.sub_(offsets[top:low, None]).sub_(offsets[start:stop])
            if left is right:
                product.fill_diagonal_(0)
        return _tile_sums(tiles, left, right, count_a), of_kept

    for of_all, of_kept in over(tile, itertools.combinations_with_replacement(units, 2)):
        whole.add(of_all)
        if kept is not None:
            kept.add(of_kept)
    return whole, kept


# A block, and sums over some rows of it with some others: [L_a, L_b], and of each side with itself, [L].
_TileSum = tuple[int, Tensor, Tensor]


def _tile_sums(tiles: Tensor, left: _Unit, right: _Unit, count_a: int) -> list[_TileSum]:
    """Return sums over tiles [L, r, c] of the rows of one unit with those of another one, or of the same."""
    found = []
    for first, last, block in left:
        for begin, end, other in right:
            part = tiles[:, first - left[0][0] : last - left[0][0], begin - right[0][0] : end - right[0][0]]
            cross, own = _products(part, count_a)
            # K is symmetric: a tile beside the diagonal stands for the one below it too.
            found += [(of, cross, own) for of in ([block] if left is right else [block, other])]
    return found


def _sums_of_pair(sources: Sequence[_Source], tokens: Tokens, *, size: int) -> _Sums:
    """Return the sums over all rows of two layers.

    From X'Y [d, d] where that is less work than K and L [n, n], made in tiles of ``size`` bytes:
    sum_j K_ij L_ij = x_i' (X'Y) y_i.
    """
    n, width = len(tokens.order), max(source.store.width for source in sources)
    if 6 * width > n:
        return _sums(sources, 1, tokens, size=size)[0]
    parts = list(row_blocks(n, width))
    pairs = ((0, 1), (0, 0), (1, 1))
    whole = [torch.zeros(sources[i].store.width, sources[j].store.width, dtype=torch.float64) for i, j in pairs]
    for part in parts:
        rows = [source.rows(*part) for source in sources]
        for total, (i, j) in zip(whole, pairs, strict=True):
            total += products(rows[i].T, rows[j].T, out=torch.empty(total.shape))
    by_row = torch.empty(3, n, dtype=torch.float64)
    for start, stop in parts:
        rows = [source.rows(start, stop) for source in sources]
        squares = [side.double().square().sum(dim=1) for side in rows]
        for found, total, (i, j) in zip(by_row, whole, pairs, strict=True):
            turned = products(rows[i], total.T.float(), out=torch.empty(stop - start, len(total.T)))
            found[start:stop] = (turned * rows[j]).sum(dim=1) - squares[i] * squares[j]
    cross, own_a, own_b = block_sums(by_row, tokens.blocks, tokens.block_count).unbind(dim=1)
    return _Sums(cross[:, None, None], torch.stack([own_a, own_b], dim=1))


def _units(tokens: Tokens, side: int) -> list[_Unit]:
    """Return rows as start, stop and block, put together to at most so many; sinks apart from the others."""
    units: list[_Unit] = []
    for segment in tokens.segments:
        for start in range(segment.start, segment.stop, side):
            stop = min(segment.stop, start + side)
            same = units and start != tokens.kept
            if same and units[-1][-1][2] == segment.block and stop - units[-1][-1][0] <= side:
                units[-1][-1] = (units[-1][-1][0], stop, segment.block)
            elif same and stop - units[-1][0][0] <= side:
                units[-1].append((start, stop, segment.block))
            else:
                units.append([(start, stop, segment.block)])
    return units


def _products(tiles: Tensor, count_a: int) -> tuple[Tensor, Tensor]:
    """Return sums over tiles [L, r, c]: of products of entries of both sides, [L_a, L_b], and of squares, [L]."""
    cross = torch.zeros(count_a, len(tiles) - count_a, dtype=torch.float64)
    own = torch.zeros(len(tiles), dtype=torch.float64)
    rows = max(1, FLOAT32_RUN // tiles.shape[2])
    for start in range(0, tiles.shape[1], rows):
        run = tiles[:, start : start + rows].flatten(start_dim=1)
        cross += (run[:count_a] @ run[count_a:].T).double()
        own += torch.linalg.vector_norm(run, dim=1).double().square()
    return cross, own


def _result(sums: _Sums, sources: Sequence[_Source], count_a: int, tokens: Tokens, n: int, *, over: Over = map) -> CKA:
    """Return both estimators over the first n rows, and what they are without each block, to first order.

    About any centre, with K_i = k_i + a_i the whole row sums::

        HSIC   = sum_ij K_ij L_ij - 2 / n sum_i K_i L_i + sum_i K_i sum_i L_i / n^2        (all entries)
        HSIC_1 = sum_{i != j} K_ij L_ij - 2 / (n - 2) sum_i k_i l_i + sum_i k_i sum_i l_i / ((n - 1) (n - 2))

    the first up to 1 / (n - 1)^2, the second up to 1 / (n (n - 3)). A row that is left out takes along its entries
    twice, as a row and as a column; row sums of the others change by as little as one entry.
    """
    blocks, count = tokens.blocks[:n], tokens.block_count
    diagonal, rows = (
        torch.stack(found) for found in zip(*over(lambda source: source.squares_and_sums(n), sources), strict=True)
    )
    full = rows + diagonal
    a, b = slice(0, count_a), slice(count_a, None)
    gone = torch.bincount(blocks, minlength=count).double()

    def centred(total: Tensor, products: Tensor, sides: Tensor, n: Tensor, *, debias: bool) -> Tensor:
        if debias:
            return total - products * (2 / (n - 2)) + sides / ((n - 1) * (n - 2))
        return total - products * (2 / n) + sides / n**2

    def estimate(*, debias: bool) -> tuple[Tensor, Tensor, Tensor]:
        of = rows if debias else full
        cross, own = sums.cross, sums.own
        if not debias:
            cross = cross + block_products(diagonal[a], diagonal[b], blocks, count)
            own = own + block_sums(diagonal.square(), blocks, count)
        products, squares = block_products(of[a], of[b], blocks, count), block_sums(of.square(), blocks, count)
        totals = block_sums(of, blocks, count)
        size = torch.tensor([float(n)], dtype=torch.float64)
        # HSIC_1 of a layer with itself is a squared length; below the floor it is what rounding left of zero.
        floor = 1e-6 * diagonal.sum(dim=1).square() / ((n - 1) * (n - 2)) if debias else torch.zeros(len(diagonal))

        def over(size: Tensor, part: Callable[[Tensor, int], Tensor]) -> tuple[Tensor, Tensor]:
            left = part(totals, 2)
            outer = left[:, a, None] * left[:, None, b]
            crossed = centred(part(cross, 2), part(products, 3), outer, size[:, None, None], debias=debias)
            selves = centred(part(own, 2), part(squares, 3), left.square(), size[:, None], debias=debias)
            return crossed, torch.where(selves > floor, selves, torch.nan)

        crossed, selves = over(size, lambda values, _: values.sum(dim=0, keepdim=True))
        less, own_less = over(size - gone, without)
        return ratio(crossed, selves[:, a], selves[:, b])[0], ratio(less, own_less[:, a], own_less[:, b]), selves[0]

    biased, biased_left, own = estimate(debias=False)
    debiased, debiased_left = torch.full_like(biased, torch.nan), torch.full_like(biased_left, torch.nan)
    if n >= measures.min_rows("debiased"):
        debiased, debiased_left, _ = estimate(debias=True)
    # The trace of K, less what it has beyond its centred form: n |mean|^2, from the whole row sums.
    ranks = (diagonal.sum(dim=1) - full.sum(dim=1) / n).square() / own
    return CKA(measures.CKAMatrices(biased, debiased, ranks[a], ranks[b]), biased_left, debiased_left)
