"""Linear centred kernel alignment: the global geometry of two representations.

Symbols: n tokens, d width, L layers. X [n, d] has its column means removed; K = XX' [n, n] is its Gram matrix
and a_i = |x_i|^2 the diagonal of K.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from st_reasoning.errors import InputError, unknown_name
from st_reasoning.hrsa.measures._check import check_layers, check_pair
from st_reasoning.hrsa.measures.columns import FLOAT32_RUN, column_means, row_blocks
from st_reasoning.hrsa.measures.minibatch import ratio
from st_reasoning.hrsa.measures.moments import NO_VARIANCE, Moments, Norms, means, summed

Estimator = Literal["biased", "debiased"]

# Bytes of Gram tiles held at once; tiles of some 500 to 1000 rows hide the cost of centring their rows.
_TILE_BYTES = 128 << 20


def linear_cka(x: Tensor, y: Tensor, *, estimator: Estimator = "biased") -> float:
    """Return the linear CKA of two representations of the same tokens.

    See :func:`linear_cka_matrix` for the equations and the errors.

    Args:
        x: [n, d_x].
        y: [n, d_y].
        estimator: ``"biased"`` or ``"debiased"``.
    """
    check_pair(x, y, min_rows=min_rows(estimator))
    return float(linear_cka_matrix([x], [y], estimator=estimator)[0, 0])


def linear_cka_matrix(xs: Sequence[Tensor], ys: Sequence[Tensor], *, estimator: Estimator = "biased") -> Tensor:
    """Return the linear CKA of every layer of one model with every layer of the other.

    Biased (Kornblith et al. 2019, equations 3 and 4)::

        CKA = |X'Y|_F^2 / (|X'X|_F |Y'Y|_F)

    Debiased: each of the three terms is replaced by HSIC_1 (Song et al. 2012, equation 5), which for centred
    X and Y, whose Gram rows sum to zero, is up to the factor 1 / (n (n - 3))::

        sum_{i != j} K_ij L_ij  -  2 / (n - 2) sum_i a_i b_i  +  (sum_i a_i) (sum_i b_i) / ((n - 1) (n - 2))

    Both follow from the off-diagonal sums, which are had by whichever of two exact routes is cheaper:
    products X'Y [d, d] in float64, or Gram tiles of all layers flattened to [L, tile] and multiplied by one
    another in the input's precision (float32 at least). Rows are centred tile by tile, so no centred copy of
    a layer is held.

    Error of the Gram route in float32, u = 2^-24: an entry K_ij is off by at most d u |x_i| |x_j|, which over
    all entries is d u tr K = d u sqrt(r) |K|_F with r the effective rank; runs of 4,096 products are summed
    in float32, the rest in float64. By Cauchy-Schwarz the three terms of the biased value are off by at most
    (4096 + d (sqrt(r_x) + sqrt(r_y))) u of what they are divided by: 2e-3 if every rounding went the same way
    at d = r = 576. They do not: against float64 the cells differ by less than 1e-7 (measured, with and
    without massive activations).

    Args:
        xs: L_a layers, each [n, d_x]; widths may differ.
        ys: L_b layers, each [n, d_y], of the same n tokens.
        estimator: ``"biased"`` is the published one; for unrelated data it is far above zero unless n >> d
            (:func:`~st_reasoning.hrsa.measures.linear_cka_chance`). ``"debiased"`` is zero on average for
            unrelated rows that are independent of each other, and may be negative.

    Returns:
        [L_a, L_b], float64.

    Raises:
        InputError: for malformed layers, a layer without variance, or fewer than 2 (debiased: 4) rows.
    """
    check_layers(xs, ys, min_rows=min_rows(estimator))
    found = _statistics(xs, ys, cheaper_route(xs, ys))
    if estimator == "biased":
        return found.biased
    if found.debiased.isnan().any():
        layer_a, layer_b = found.debiased.isnan().nonzero()[0].tolist()
        raise InputError(
            f"xs[{layer_a}] with ys[{layer_b}]: expected rows that are not all equally far from each other, "
            "for which debiased CKA is undefined"
        )
    return found.debiased


@dataclass(frozen=True)
class CKAMatrices:
    """Both estimators over all layer pairs, and the effective ranks their normalisers contain.

    Attributes:
        biased: [L_a, L_b], float64.
        debiased: [L_a, L_b], float64; NaN where undefined (all rows equally far from each other).
        effective_rank_x: [L_a], see :func:`effective_rank`.
        effective_rank_y: [L_b].
    """

    biased: Tensor
    debiased: Tensor
    effective_rank_x: Tensor
    effective_rank_y: Tensor


def linear_cka_statistics(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> CKAMatrices:
    """Return both matrices of :func:`linear_cka_matrix` for the price of one.

    Args:
        xs: L_a layers, each [n, d_x].
        ys: L_b layers, each [n, d_y].

    Raises:
        InputError: as :func:`linear_cka_matrix`, except for undefined debiased values.
    """
    check_layers(xs, ys, min_rows=min_rows("debiased"))
    return _statistics(xs, ys, cheaper_route(xs, ys))


def effective_rank(x: Tensor) -> float:
    """Return the effective rank of x [n, d]: the participation ratio of its covariance.

    (sum of eigenvalues)^2 / (sum of their squares): 1 when one direction holds all variance, d when all
    directions hold the same.
    """
    check_layers([x], [x], min_rows=2)
    layer = _Layer(x, "x")
    return layer.rows_count**2 / float(_feature_product(layer, layer).square().sum())


def cheaper_route(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Literal["features", "gram"]:
    """Return the route that needs less time, counting a float64 operation as two float32 ones."""
    n = xs[0].shape[0]
    widths_x, widths_y = [x.shape[1] for x in xs], [y.shape[1] for y in ys]
    squares = sum(d * d for d in widths_x + widths_y)
    features = 2 * (2 * n * (sum(widths_x) * sum(widths_y) + squares))
    gram = n * n * (sum(widths_x) + sum(widths_y) + len(xs) * len(ys))
    return "features" if features < gram else "gram"


class _Layer:
    """A layer that hands out its rows centred and scaled to a mean squared norm of one.

    The scale cancels in CKA. Without it the squares of a massive activation leave the range of float32.
    """

    def __init__(self, x: Tensor, name: str) -> None:
        self.x = x
        self.rows_count = x.shape[0]
        self.mean = column_means(x)
        norms, raw = [], 0.0
        for start, stop in row_blocks(*x.shape):
            block = x[start:stop].double()
            raw += float(block.square().sum())
            norms.append((block - self.mean).square().sum(dim=1))
        squared = torch.cat(norms)
        total = float(squared.sum())
        if total <= NO_VARIANCE * raw:
            raise InputError(f"{name}: expected rows that differ, got the same row {self.rows_count} times")
        self.factor = math.sqrt(self.rows_count / total)
        self.squared_norms = squared * (self.rows_count / total)  # a [n]; sums to n

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        # Centred in float64: a large mean would otherwise leave its rounding in every row.
        return ((self.x[start:stop].double() - self.mean) * self.factor).to(dtype)


def _statistics(xs: Sequence[Tensor], ys: Sequence[Tensor], route: Literal["features", "gram"]) -> CKAMatrices:
    """Return both estimators by one of the two routes."""
    n = xs[0].shape[0]
    layers_a = [_Layer(x, f"xs[{number}]") for number, x in enumerate(xs)]
    layers_b = [_Layer(y, f"ys[{number}]") for number, y in enumerate(ys)]
    norms_a = torch.stack([layer.squared_norms for layer in layers_a])
    norms_b = torch.stack([layer.squared_norms for layer in layers_b])
    by_route = _off_diagonal_by_features if route == "features" else _off_diagonal_by_gram
    cross, own_a, own_b = by_route(layers_a, layers_b)
    diagonal, diagonal_a, diagonal_b = norms_a @ norms_b.T, norms_a.square().sum(1), norms_b.square().sum(1)

    biased = ratio(cross + diagonal, own_a + diagonal_a, own_b + diagonal_b)
    debiased = torch.full_like(biased, torch.nan)
    if n >= min_rows("debiased"):
        # The trace of each K is n, see _Layer.
        constant = n * n / ((n - 1) * (n - 2))
        hsic, hsic_a, hsic_b = (
            total - 2 / (n - 2) * products + constant
            for total, products in ((cross, diagonal), (own_a, diagonal_a), (own_b, diagonal_b))
        )
        # HSIC_1 of a layer with itself is a squared length; below the floor it is what rounding left of zero.
        debiased = ratio(hsic, hsic_a, hsic_b, floor=1e-6 * constant)
    return CKAMatrices(biased, debiased, (n * n / (own_a + diagonal_a)).cpu(), (n * n / (own_b + diagonal_b)).cpu())


def by_moments(parts: Sequence[Moments], norms: Sequence[Norms], estimator: Estimator) -> Tensor:
    """Return CKA [] from the moments of rows, in any number of parts.

    Args:
        parts: Second moments with all of X'X and Y'Y.
        norms: Fourth moments of the same rows.
        estimator: ``"biased"`` or ``"debiased"``.

    Raises:
        InputError: for too few rows, or rows without variance.
    """
    n = int(sum(part.rows for part in parts))
    if n < min_rows(estimator):
        raise InputError(f"rows: expected at least {min_rows(estimator)}, got {n}")
    parts, norms = zip(*((p, q) for p, q in zip(parts, norms, strict=True) if p.rows), strict=True)
    centre = means(parts)
    whole = summed(parts, *centre)
    totals = whole.xx.trace(), whole.yy.trace()
    for name, total, mean in (("x", totals[0], centre[0]), ("y", totals[1], centre[1])):
        if total <= NO_VARIANCE * (total + n * mean.square().sum()):
            raise InputError(f"{name}: expected rows that differ, got the same row {n} times")
    # The scale cancels; without it the squares below may overflow.
    x, y = 1 / totals[0], 1 / totals[1]
    squares = [(whole.xx * x).square().sum(), (whole.yy * y).square().sum(), (whole.xy * (x * y).sqrt()).square().sum()]
    if estimator == "debiased":
        diagonals = [norm.about(part, *centre) for norm, part in zip(norms, parts, strict=True)]
        sums = torch.stack([torch.stack(found) for found in diagonals]).sum(dim=0)
        products = sums * torch.stack([x * x, y * y, x * y])
        # Totals are 1, so this is HSIC_1 times n (n - 3).
        squares = [
            square - product * (1 + 2 / (n - 2)) + 1 / ((n - 1) * (n - 2))
            for square, product in zip(squares, products, strict=True)
        ]
    return ratio(squares[2][None, None], squares[0][None], squares[1][None])[0, 0]


def _off_diagonal_by_features(layers_a: list[_Layer], layers_b: list[_Layer]) -> tuple[Tensor, Tensor, Tensor]:
    """Return sum_{i != j} K_ij L_ij across [L_a, L_b], and of each side with itself [L_a], [L_b].

    |X'Y|_F^2 minus its diagonal part: a difference of nearly equal numbers where one token dominates, hence
    float64.
    """

    def off(a: _Layer, b: _Layer) -> Tensor:
        return _feature_product(a, b).square().sum() - a.squared_norms @ b.squared_norms

    cross = torch.stack([torch.stack([off(a, b) for b in layers_b]) for a in layers_a])
    return cross, torch.stack([off(a, a) for a in layers_a]), torch.stack([off(b, b) for b in layers_b])


def _feature_product(a: _Layer, b: _Layer) -> Tensor:
    """Return X'Y [d_x, d_y] in float64, centred block by block."""
    product = torch.zeros(a.x.shape[1], b.x.shape[1], dtype=torch.float64, device=a.x.device)
    for start, stop in row_blocks(a.rows_count, max(product.shape)):
        rows_a = a.rows(start, stop, torch.float64)
        product.addmm_(rows_a.T, rows_a if a is b else b.rows(start, stop, torch.float64))
    return product


def _off_diagonal_by_gram(layers_a: list[_Layer], layers_b: list[_Layer]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of :func:`_off_diagonal_by_features` from Gram tiles on and above the diagonal."""
    layers = [*layers_a, *layers_b]
    n, device, count_a = layers[0].rows_count, layers[0].x.device, len(layers_a)
    dtype = torch.float64 if any(layer.x.dtype == torch.float64 for layer in layers) else torch.float32
    side = min(n, max(64, math.isqrt(_TILE_BYTES // (dtype.itemsize * len(layers)))))
    buffer = torch.empty(len(layers), side * side, dtype=dtype, device=device)
    cross = torch.zeros(count_a, len(layers_b), dtype=torch.float64, device=device)
    own = torch.zeros(len(layers), dtype=torch.float64, device=device)
    for top in range(0, n, side):
        bottom = min(n, top + side)
        for left in range(top, n, side):
            right = min(n, left + side)
            size = (bottom - top) * (right - left)
            for layer, flat in zip(layers, buffer, strict=True):
                rows = layer.rows(top, bottom, dtype)
                columns = rows if left == top else layer.rows(left, right, dtype)
                tile = torch.mm(rows, columns.T, out=flat[:size].view(bottom - top, right - left))
                if left == top:
                    tile.fill_diagonal_(0)
            weight = 1 if left == top else 2  # K is symmetric: the tiles below the diagonal repeat those above
            for start in range(0, size, FLOAT32_RUN):
                run = buffer[:, start : min(size, start + FLOAT32_RUN)]
                cross += weight * (run[:count_a] @ run[count_a:].T).double()
                own += weight * torch.linalg.vector_norm(run, dim=1).double().square()
    return cross, own[:count_a], own[count_a:]


def min_rows(estimator: str) -> int:
    """Return the fewest rows for which an estimator is defined; HSIC_1 divides by n (n - 3)."""
    rows = {"biased": 2, "debiased": 4}
    if estimator not in rows:
        raise unknown_name("CKA estimator", estimator, rows)
    return rows[estimator]
