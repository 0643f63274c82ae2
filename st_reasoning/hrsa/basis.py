"""The coordinate basis of matched layers: orthogonal Procrustes, and how far each block of sentences decides it.

Symbols: n tokens, d width, G blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from st_reasoning.hrsa.facts import Columns
from st_reasoning.hrsa.measures.columns import row_blocks, zeros
from st_reasoning.hrsa.measures.moments import Moments
from st_reasoning.hrsa.measures.procrustes import NoVarianceError, ProcrustesFit, entropy_gradient, solve
from st_reasoning.hrsa.store import Store
from st_reasoning.hrsa.tokens import Tokens


@dataclass(frozen=True)
class Basis:
    """A map between two layers.

    Attributes:
        fit: The map.
        entropy_left_out: [G], the inverse row entropy without each block; None where the tokens determine no map.
        residual_left_out: Likewise the residual.
    """

    fit: ProcrustesFit
    entropy_left_out: Tensor | None
    residual_left_out: Tensor | None


def procrustes(
    stores: tuple[Store, Store], tokens: Tokens, columns: tuple[Columns, Columns], pair: tuple[int, int]
) -> tuple[Basis | None, Basis | None, Basis | None]:
    """Return the map from all fitted tokens, the one from those that are no sinks, and the one of standardised columns.

    None for one that is undefined: its rows do not differ, or too few are no sinks.

    Products X'Y of the tokens of each block, fitted and held out, are held in float32, 8 G d^2 bytes.

    Args:
        stores: The two models.
        tokens: Which rows are what.
        columns: Facts of the layers over all rows.
        pair: The layers.
    """
    rows = _Rows(stores, columns, pair)
    width = stores[0].width
    # float64 also for "fast": float32 products of few distinct rows look as if they determined the map.
    parts = {(sink, held_out): _Sums.zero(width) for sink in (False, True) for held_out in (False, True)}
    # No more rows than dimensions determine no map, and then nothing is asked of the blocks.
    by_block = sum(segment.stop - segment.start for segment in tokens.segments if not segment.held_out) > width
    blocks = {out: _Blocks.zero(tokens.block_count if by_block else 0, width) for out in (False, True)}
    found = _Sums.zero(width)
    for segment in tokens.segments:
        whole = parts[segment.sink, segment.held_out]
        into = found.cleared() if by_block else whole
        for x, y in rows.read(segment.start, segment.stop):
            into.add(x, y)
        if by_block:
            whole.join(found)
        if by_block and not segment.sink:
            # Rows that are no sinks are in one segment for each block, fitted and held out.
            blocks[segment.held_out].put(segment.block, found)
    ones = torch.ones(width, dtype=torch.float64)
    plain, unit = (ones, ones), (columns[0].factors, columns[1].factors)

    def fitted(factors: tuple[Tensor, Tensor], *, sinks: bool) -> ProcrustesFit | None:
        train, test = (
            [parts[sink, out].moments(*rows.means, factors) for sink in (False, True)[: 1 + sinks]]
            for out in (False, True)
        )
        try:
            return solve(train, test)
        except NoVarianceError:
            return None

    kinds = [(plain, True), (unit, True), (plain, False)][: 2 if tokens.kept == len(tokens.order) else 3]
    fits = [fitted(factors, sinks=sinks) if sinks or tokens.usable else None for factors, sinks in kinds]
    determined = [
        _Fitted.of(fit, factors, rows.means, sinks=sinks)
        for fit, (factors, sinks) in zip(fits, kinds, strict=True)
        if fit is not None and fit.determined
    ]
    bases = iter(_with_blocks(determined, rows, blocks, tokens))
    raw, standardised, *guarded = (
        None if fit is None else next(bases) if fit.determined else Basis(fit, None, None) for fit in fits
    )
    return raw, guarded[0] if guarded else raw, standardised


@dataclass(frozen=True)
class _Fitted:
    """A determined map between columns times factors, in terms of the columns themselves, about their means.

    Attributes:
        fit: The map.
        factors: [d] and [d].
        sinks: Whether sinks were fitted and scored too.
        gradient: [d, d], derivative of the inverse row entropy by the entries of X'Y.
        turned: [d, d], the map with its scale.
        a: [d], where the map has its centre in x, less the mean of the columns.
        b: [d], likewise in y.
    """

    fit: ProcrustesFit
    factors: tuple[Tensor, Tensor]
    sinks: bool
    gradient: Tensor
    turned: Tensor
    a: Tensor
    b: Tensor

    @classmethod
    def of(
        cls, fit: ProcrustesFit, factors: tuple[Tensor, Tensor], means: tuple[Tensor, Tensor], *, sinks: bool
    ) -> _Fitted:
        """Bring a map from columns times factors, about any centre, to columns about their means."""
        tiny = torch.finfo(torch.float64).tiny
        a, b = (
            torch.where(scale > 0, at / scale.clamp_min(tiny) - mean, 0.0)
            for at, scale, mean in zip(fit.centre, factors, means, strict=True)
        )
        gradient, turned = (
            factors[0][:, None] * matrix * factors[1] for matrix in (entropy_gradient(fit), fit.map * fit.scale)
        )
        return cls(fit, factors, sinks, gradient, turned, a, b)


def _with_blocks(every: Sequence[_Fitted], rows: _Rows, blocks: dict[bool, _Blocks], tokens: Tokens) -> list[Basis]:
    """Add what the scores of some maps are without each block, to first order.

    Its fitted rows change the map. The residual is an average over held-out rows; what a slightly other map would leave
    is the same to first order, because the map is where the residual is least.

    Args:
        every: The maps, all of them determined.
        rows: The layers.
        blocks: Sums over the rows of each block that are no sinks, fitted (False) and held out (True).
        tokens: Which rows are what.
    """
    if not every:
        return []
    entropies = blocks[False].products_with([(one.gradient, one.a, one.b) for one in every])
    crossed = blocks[True].products_with([(one.turned, one.a, one.b) for one in every])
    errors, spread = [], []
    for one, cross in zip(every, crossed, strict=True):
        x, y = blocks[True].squares(one.a, one.b, one.factors)
        errors.append(one.fit.scale**2 * x + y - 2 * cross)
        spread.append(y)
    held_out = torch.zeros(len(tokens.order), dtype=torch.bool)
    for segment in tokens.segments:
        held_out[segment.start : segment.stop] = segment.held_out
    start = tokens.kept
    for x, y in rows.read(tokens.kept, len(tokens.order)):
        out, block = held_out[start : start + len(x)], tokens.blocks[start : start + len(x)]
        start += len(x)
        for number, one in enumerate(every):
            if one.sinks:
                u, v = x - one.a, y - one.b
                entropies[number].index_add_(0, block[~out], ((u[~out] @ one.gradient) * v[~out]).sum(dim=1))
                u, v = u[out] * one.factors[0], v[out] * one.factors[1]
                error = (u @ (one.fit.map * one.fit.scale) - v).square().sum(dim=1)
                errors[number].index_add_(0, block[out], error)
                spread[number].index_add_(0, block[out], v.square().sum(dim=1))
    found = []
    for one, entropy, error, square in zip(every, entropies, errors, spread, strict=True):
        left_out = (error.sum() - error) / (square.sum() - square)
        # What rounding adds to all errors is not in the residual.
        residual = one.fit.residual + left_out - error.sum() / square.sum()
        found.append(Basis(one.fit, one.fit.inverse_row_entropy - entropy, residual))
    return found


class _Rows:
    """Rows of a pair of layers about the means of their columns, float64."""

    def __init__(self, stores: tuple[Store, Store], columns: tuple[Columns, Columns], pair: tuple[int, int]) -> None:
        self.stores, self.pair = stores, pair
        self.means = columns[0].mean, columns[1].mean

    def read(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield x [m, d] and y [m, d] of rows from ``first`` to before ``last``, a few at a time."""
        for start, stop in row_blocks(last - first, self.stores[0].width):
            x, y = (
                store.read(layer, first + start, first + stop).double().sub_(mean)
                for store, layer, mean in zip(self.stores, self.pair, self.means, strict=True)
            )
            yield x, y


@dataclass
class _Sums:
    """Sums over rows: number, x [d], y [d], squares of x [d] and of y [d], X'Y [d, d]."""

    rows: float
    x: Tensor
    y: Tensor
    squares_x: Tensor
    squares_y: Tensor
    product: Tensor

    @classmethod
    def zero(cls, width: int) -> _Sums:
        x, y, squares_x, squares_y = (torch.zeros(width, dtype=torch.float64) for _ in range(4))
        return cls(0.0, x, y, squares_x, squares_y, zeros(width, width, dtype=torch.float64))

    def add(self, x: Tensor, y: Tensor) -> None:
        self.rows += len(x)
        self.x += x.sum(dim=0)
        self.y += y.sum(dim=0)
        self.squares_x += x.square().sum(dim=0)
        self.squares_y += y.square().sum(dim=0)
        self.product.addmm_(x.T, y)

    def cleared(self) -> _Sums:
        """Start anew in the same memory."""
        self.rows = 0.0
        for sums in (self.x, self.y, self.squares_x, self.squares_y, self.product):
            sums.zero_()
        return self

    def join(self, other: _Sums) -> None:
        self.rows += other.rows
        for name in ("x", "y", "squares_x", "squares_y", "product"):
            getattr(self, name).add_(getattr(other, name))

    def moments(self, at_x: Tensor, at_y: Tensor, factors: tuple[Tensor, Tensor]) -> Moments:
        """Return the moments of the rows times ``factors`` about references times the same."""
        p, q = factors
        return Moments(
            rows=torch.tensor(self.rows, dtype=torch.float64),
            at_x=at_x * p,
            at_y=at_y * q,
            x=self.x * p,
            y=self.y * q,
            xx=self.squares_x @ p.square(),
            yy=self.squares_y @ q.square(),
            xy=p[:, None] * self.product * q,
        )


@dataclass
class _Blocks:
    """Sums over rows of each block: [G], [G, d] each, and X'Y [G, d, d] in float32."""

    rows: Tensor
    x: Tensor
    y: Tensor
    squares_x: Tensor
    squares_y: Tensor
    products: Tensor

    @classmethod
    def zero(cls, count: int, width: int) -> _Blocks:
        x, y, squares_x, squares_y = (torch.zeros(count, width, dtype=torch.float64) for _ in range(4))
        return cls(torch.zeros(count, dtype=torch.float64), x, y, squares_x, squares_y, zeros(count, width, width))

    def put(self, block: int, found: _Sums) -> None:
        """Take the sums over all rows of a block."""
        for name in ("rows", "x", "y", "squares_x", "squares_y"):
            getattr(self, name)[block] = getattr(found, name)
        self.products[block] = found.product

    def products_with(self, every: Sequence[tuple[Tensor, Tensor, Tensor]]) -> list[Tensor]:
        """Return sum_ij M_ij (X - a)'(Y - b)_ij of each block, [G], for some M [d, d], a [d] and b [d]."""
        # float64 a block at a time: what is summed cancels.
        flat = torch.stack([matrix.flatten() for matrix, _, _ in every])
        whole = torch.stack([flat @ product.flatten().double() for product in self.products], dim=1)
        return [
            sums - self.x @ (matrix @ b) - self.y @ (a @ matrix) + self.rows * (a @ matrix @ b)
            for sums, (matrix, a, b) in zip(whole, every, strict=True)
        ]

    def squares(self, a: Tensor, b: Tensor, factors: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the squared lengths of the rows less a and b, times factors, summed over each block, [G] and [G]."""

        def of(squares: Tensor, sums: Tensor, at: Tensor, scale: Tensor) -> Tensor:
            return (squares - 2 * sums * at + self.rows[:, None] * at.square()) @ scale.square()

        return of(self.squares_x, self.x, a, factors[0]), of(self.squares_y, self.y, b, factors[1])
