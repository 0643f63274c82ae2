"""Sums over rows from which Procrustes and CKA follow, so that rows can come in any portions and none is kept.

Symbols: n rows, widths d_x, d_y. All is float64 and relative to a reference row near the mean: sums of raw values
would lose the variance behind a large mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import reduce

import torch
from torch import Tensor

from st_reasoning.hrsa.measures.columns import row_blocks

# Below this share of its raw second moment, what is left after centring is float64 rounding.
NO_VARIANCE = 1e-26


@dataclass
class Moments:
    """Second moments of paired rows.

    Attributes:
        rows: n, [].
        at_x: Reference [d_x] that is taken from every row of x.
        at_y: Likewise [d_y].
        x: Sum of the rows of x, [d_x].
        y: Sum of the rows of y, [d_y].
        xx: X'X, [d_x, d_x], or only its trace, [], where that is all that is needed.
        yy: Likewise of y.
        xy: X'Y, [d_x, d_y].
    """

    rows: Tensor
    at_x: Tensor
    at_y: Tensor
    x: Tensor
    y: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor

    @classmethod
    def about(cls, at_x: Tensor, at_y: Tensor, *, square: bool = False) -> Moments:
        """Return the moments of no rows yet, about two references; ``square`` asks for all of X'X and Y'Y."""
        at_x, at_y = at_x.double(), at_y.double()
        d_x, d_y = len(at_x), len(at_y)
        zero = at_x.new_zeros
        return cls(
            rows=zero(()),
            at_x=at_x,
            at_y=at_y,
            x=zero(d_x),
            y=zero(d_y),
            xx=zero(d_x, d_x) if square else zero(()),
            yy=zero(d_y, d_y) if square else zero(()),
            xy=zero(d_x, d_y),
        )

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add the rows of x [n, d_x] and y [n, d_y]."""
        for start, stop in row_blocks(x.shape[0], max(x.shape[1], y.shape[1])):
            self._add_block(x[start:stop].double() - self.at_x, y[start:stop].double() - self.at_y)

    def _add_block(self, x: Tensor, y: Tensor) -> None:
        # Not in place: the sums may be those a metric will be reset to.
        self.rows = self.rows + x.shape[0]
        self.x, self.y = self.x + x.sum(dim=0), self.y + y.sum(dim=0)
        self.xx = self.xx + (x.T @ x if self.xx.ndim else x.square().sum())
        self.yy = self.yy + (y.T @ y if self.yy.ndim else y.square().sum())
        self.xy = torch.addmm(self.xy, x.T, y)

    def moved(self, to_x: Tensor, to_y: Tensor) -> Moments:
        """Return the same moments about other references."""
        a, b = to_x - self.at_x, to_y - self.at_y
        return Moments(
            rows=self.rows,
            at_x=to_x,
            at_y=to_y,
            x=self.x - self.rows * a,
            y=self.y - self.rows * b,
            xx=_moved(self.xx, self.x, self.x, a, a, self.rows),
            yy=_moved(self.yy, self.y, self.y, b, b, self.rows),
            xy=_moved(self.xy, self.x, self.y, a, b, self.rows),
        )


def _moved(product: Tensor, x: Tensor, y: Tensor, a: Tensor, b: Tensor, rows: Tensor) -> Tensor:
    """Return sum (x_i - a)(y_i - b)' from sum x_i y_i', matrix or trace."""
    x = x - rows * a
    if not product.ndim:
        return product - a @ y - x @ b
    return torch.addr(product, a, y, alpha=-1).addr_(x, b, alpha=-1)


def means(parts: Sequence[Moments]) -> tuple[Tensor, Tensor]:
    """Return the means [d_x] and [d_y] over the rows of all parts, each about references of its own."""
    rows = sum(part.rows for part in parts)
    return (
        torch.stack([part.x + part.rows * part.at_x for part in parts]).sum(dim=0) / rows,
        torch.stack([part.y + part.rows * part.at_y for part in parts]).sum(dim=0) / rows,
    )


def summed(parts: Sequence[Moments], at_x: Tensor, at_y: Tensor) -> Moments:
    """Return the moments of the rows of all parts about common references."""
    moved = [part.moved(at_x, at_y) for part in parts]
    sums = {field.name: reduce(torch.add, [getattr(part, field.name) for part in moved]) for field in fields(Moments)}
    return Moments(**{**sums, "at_x": at_x, "at_y": at_y})


@dataclass
class Norms:
    """Fourth moments of paired rows: what debiased CKA needs beside the second ones.

    With u, v the rows less their references: sums of |u|^4, |v|^4 and |u|^2 |v|^2, [], and of |u|^2 and |v|^2
    times each of u [d_x] and v [d_y].
    """

    xx: Tensor
    yy: Tensor
    xy: Tensor
    x: Tensor
    y: Tensor
    by_x: Tensor
    x_by_y: Tensor
    y_by_x: Tensor
    by_y: Tensor

    @classmethod
    def zero(cls, d_x: int, d_y: int) -> Norms:
        """Return the moments of no rows."""
        zero = torch.zeros((), dtype=torch.float64).new_zeros
        return cls(zero(()), zero(()), zero(()), zero(()), zero(()), zero(d_x), zero(d_y), zero(d_x), zero(d_y))

    def add(self, u: Tensor, v: Tensor) -> None:
        """Add rows u [n, d_x] and v [n, d_y], less their references, float64."""
        p, q = u.square().sum(dim=1), v.square().sum(dim=1)
        self.xx, self.yy, self.xy = self.xx + p @ p, self.yy + q @ q, self.xy + p @ q
        self.x, self.y = self.x + p.sum(), self.y + q.sum()
        self.by_x, self.x_by_y = self.by_x + p @ u, self.x_by_y + p @ v
        self.y_by_x, self.by_y = self.y_by_x + q @ u, self.by_y + q @ v

    def about(self, second: Moments, at_x: Tensor, at_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums of a_i^2, b_i^2 and a_i b_i, a_i = |x_i - at_x|^2 and b_i = |y_i - at_y|^2.

        Args:
            second: The second moments of the same rows about the same references.
            at_x: [d_x].
            at_y: [d_y].
        """
        a, b, n = at_x - second.at_x, at_y - second.at_y, second.rows

        def product(pq: Tensor, p: tuple[Tensor, ...], q: tuple[Tensor, ...], cross: Tensor) -> Tensor:
            # |u - a|^2 = p - 2 u.a + a.a, times the same of v: nine sums.
            (p_sum, p_by_v, u_sum, a), (q_sum, q_by_u, v_sum, b) = p, q
            return (
                pq - 2 * p_by_v @ b + b @ b * p_sum
                - 2 * q_by_u @ a + 4 * a @ cross @ b - 2 * (b @ b) * (u_sum @ a)
                + a @ a * q_sum - 2 * (a @ a) * (v_sum @ b) + n * (a @ a) * (b @ b)
            )  # fmt: skip

        x = (self.x, self.by_x, second.x, a)
        y = (self.y, self.by_y, second.y, b)
        return (
            product(self.xx, x, x, second.xx),
            product(self.yy, y, y, second.yy),
            product(self.xy, (self.x, self.x_by_y, second.x, a), (self.y, self.y_by_x, second.y, b), second.xy),
        )
