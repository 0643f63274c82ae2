"""The coordinate basis of matched layers: orthogonal Procrustes, and how far each block of sentences decides it.

Symbols: n tokens, d width, G blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from st_reasoning.hrsa.fast import Columns
from st_reasoning.hrsa.measures.columns import row_blocks
from st_reasoning.hrsa.measures.moments import Moments
from st_reasoning.hrsa.measures.procrustes import ProcrustesFit, entropy_gradient, solve
from st_reasoning.hrsa.store import Store
from st_reasoning.hrsa.tokens import Segment, Tokens


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
) -> tuple[Basis, Basis | None, Basis]:
    """Return the map from all fitted tokens, the one from those that are no sinks, and the one of standardised columns.

    Products X'Y of the fitted tokens of each block are held in float32, 4 G d^2 bytes.

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
    blocks = _Blocks.zero(tokens.block_count, width)
    for segment in tokens.segments:
        found = _Sums.zero(width)
        for x, y in rows.read(segment):
            found.add(x, y)
        parts[segment.sink, segment.held_out].join(found)
        if not segment.sink and not segment.held_out:
            blocks.add(segment.block, found)
    ones = torch.ones(width, dtype=torch.float64)
    plain, unit = (ones, ones), (columns[0].factors, columns[1].factors)

    def basis(factors: tuple[Tensor, Tensor], *, sinks: bool) -> Basis:
        fitted, held_out = (
            [parts[sink, out].moments(*rows.means, factors) for sink in (False, True)[: 1 + sinks]]
            for out in (False, True)
        )
        fit = solve(fitted, held_out)
        if not fit.determined:
            return Basis(fit, None, None)
        return _with_blocks(fit, rows, blocks, tokens, factors, sinks=sinks)

    raw = basis(plain, sinks=True)
    guarded = raw
    if tokens.kept < len(tokens.order):
        guarded = basis(plain, sinks=False) if tokens.usable else None
    return raw, guarded, basis(unit, sinks=True)


def _with_blocks(
    fit: ProcrustesFit,
    rows: _Rows,
    blocks: _Blocks,
    tokens: Tokens,
    factors: tuple[Tensor, Tensor],
    *,
    sinks: bool,
) -> Basis:
    """Add what the scores are without each block, to first order.

    Its fitted rows change the map. The residual is an average over held-out rows; what a slightly other map would leave
    is the same to first order, because the map is where the residual is least.

    Args:
        fit: The map between columns times ``factors``.
        rows: The layers.
        blocks: Sums over the fitted rows that are no sinks.
        tokens: Which rows are what.
        factors: [d] and [d].
        sinks: Whether sinks were fitted and scored too.
    """
    # About the means of the columns and in their own scale, as the sums over the blocks are.
    gradient = factors[0][:, None] * entropy_gradient(fit) * factors[1]
    tiny = torch.finfo(torch.float64).tiny
    a, b = (
        torch.where(scale > 0, at / scale.clamp_min(tiny) - mean, 0.0)
        for at, scale, mean in zip(fit.centre, factors, rows.means, strict=True)
    )
    entropy = blocks.products_with(gradient, a, b)
    errors, spread = torch.zeros_like(entropy), torch.zeros_like(entropy)
    turned = (fit.map * fit.scale).float()
    for segment in tokens.segments:
        if segment.sink and not sinks:
            continue
        if not segment.held_out and not segment.sink:
            continue
        for x, y in rows.read(segment):
            u, v = x - a, y - b
            if segment.held_out:
                u, v = (u * factors[0]).float(), (v * factors[1]).float()
                errors[segment.block] += (u @ turned - v).square().sum()
                spread[segment.block] += v.square().sum()
            else:
                entropy[segment.block] += ((u @ gradient) * v).sum()
    left_out = (errors.sum() - errors) / (spread.sum() - spread)
    return Basis(
        fit,
        fit.inverse_row_entropy - entropy,
        # The rows' errors are float32, the residual is not.
        fit.residual + left_out - errors.sum() / spread.sum(),
    )


class _Rows:
    """Rows of a pair of layers about the means of their columns, float64."""

    def __init__(self, stores: tuple[Store, Store], columns: tuple[Columns, Columns], pair: tuple[int, int]) -> None:
        self.stores, self.pair = stores, pair
        self.means = columns[0].mean, columns[1].mean

    def read(self, segment: Segment) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield x [m, d] and y [m, d] of all rows of a segment, a few at a time."""
        for start, stop in row_blocks(segment.stop - segment.start, self.stores[0].width):
            x, y = (
                store.read(layer, segment.start + start, segment.start + stop).double() - mean
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
        none = [torch.zeros(width, dtype=torch.float64) for _ in range(4)]
        return cls(0.0, *none, torch.zeros(width, width, dtype=torch.float64))

    def add(self, x: Tensor, y: Tensor) -> None:
        self.rows += len(x)
        self.x += x.sum(dim=0)
        self.y += y.sum(dim=0)
        self.squares_x += x.square().sum(dim=0)
        self.squares_y += y.square().sum(dim=0)
        self.product.addmm_(x.T, y)

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
    """Sums over the fitted rows of each block that are no sinks: [G], [G, d] each, and X'Y [G, d, d] in float32."""

    rows: Tensor
    x: Tensor
    y: Tensor
    products: Tensor

    @classmethod
    def zero(cls, count: int, width: int) -> _Blocks:
        none = [torch.zeros(count, width, dtype=torch.float64) for _ in range(2)]
        return cls(torch.zeros(count, dtype=torch.float64), *none, torch.zeros(count, width, width))

    def add(self, block: int, found: _Sums) -> None:
        self.rows[block] += found.rows
        self.x[block] += found.x
        self.y[block] += found.y
        self.products[block] += found.product

    def products_with(self, gradient: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Return sum_ij gradient_ij (X - a)'(Y - b)_ij of each block, [G]."""
        # float64 a block at a time: what is summed cancels.
        flat = gradient.flatten()
        whole = torch.stack([product.flatten().double() @ flat for product in self.products])
        return whole - self.x @ (gradient @ b) - self.y @ (a @ gradient) + self.rows * (a @ gradient @ b)
