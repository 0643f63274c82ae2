"""Orthogonal Procrustes: the rotation between two representations, and how far it is from a permutation.

Symbols: n tokens, d width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa.measures._check import check_pair
from st_reasoning.hrsa.measures.columns import column_means
from st_reasoning.hrsa.measures.moments import NO_VARIANCE, Moments, means, summed


class NoVarianceError(InputError):
    """Rows that determine no map, or that no map can be scored on, because they do not differ."""


@dataclass(frozen=True)
class ProcrustesFit:
    """An orthogonal map fitted on some rows and scored on others.

    Attributes:
        map: O [d, d], orthogonal, float64.
        scale: s, the least-squares factor beside O.
        inverse_row_entropy: 1 for a permutation (with signs), 0 for rows that mix all dimensions evenly; a
            random rotation has :func:`~st_reasoning.hrsa.measures.inverse_row_entropy_chance`.
        residual: |s X O - Y|_F^2 / |Y|_F^2 on the held-out rows, both centred with the training means: 0 is a
            perfect map, 1 is as good as predicting the mean, more is worse than that.
        rank: Numerical rank of X'Y on the training rows.
        train_rows: Rows the map was fitted on.
        test_rows: Rows it was scored on.
        singular: U [d, d], S [d] and V' [d, d] of X'Y = U S V'.
        centre: Means [d] of the training rows of x and of y.
    """

    map: Tensor
    scale: float
    inverse_row_entropy: float
    residual: float
    rank: int
    train_rows: int
    test_rows: int
    singular: tuple[Tensor, Tensor, Tensor]
    centre: tuple[Tensor, Tensor]

    @property
    def determined(self) -> bool:
        """Whether the training rows determine the map; never so when they are no more than dimensions.

        A determined map still carries sampling error until rows outnumber dimensions many times over.
        """
        return self.rank == self.map.shape[0]


def procrustes(
    x: Tensor,
    y: Tensor,
    *,
    groups: Sequence[int] | Tensor | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    held_out: Tensor | None = None,
) -> ProcrustesFit:
    """Fit the orthogonal map from x to y on part of the rows and score it on the rest.

    O = U V' with X'Y = U S V' minimises |X O - Y|_F over orthogonal O (Schoenemann 1966). All of it is
    float64: where one dimension holds nearly all variance, the other ones are below float32's rounding of
    X'Y.

    Args:
        x: [n, d].
        y: [n, d].
        groups: [n], e.g. the sentence of each token; rows of one group are never split between fitting and
            scoring. By default each row is a group.
        test_share: Share of the groups to score on.
        seed: Of the split.
        held_out: [n], boolean: the rows to score on, instead of a split drawn from ``groups``.

    Raises:
        InputError: for malformed input, d < 2, fewer than two groups, or training rows without variance.
    """
    check_pair(x, y, min_rows=4, min_columns=2, same_width=True)
    if held_out is None:
        held_out = split(x.shape[0], groups, test_share, seed)
    elif held_out.dtype != torch.bool or held_out.shape != x.shape[:1]:
        raise InputError(f"held_out: expected {x.shape[0]} booleans, got {list(held_out.shape)} of {held_out.dtype}")
    held_out = held_out.to(x.device)
    return solve([moments(x[~held_out], y[~held_out])], [moments(x[held_out], y[held_out])])


def moments(x: Tensor, y: Tensor) -> Moments:
    """Return what :func:`solve` needs of the rows of x [n, d] and y [n, d]."""
    found = Moments.about(column_means(x), column_means(y))
    found.add(x, y)
    return found


def solve(train: Sequence[Moments], test: Sequence[Moments]) -> ProcrustesFit:
    """Return the map that the moments of some rows determine, scored on those of others.

    |s X O - Y|^2 = s^2 |X|^2 + |Y|^2 - 2 s tr(O' X'Y), so that no row is needed again.

    Args:
        train: Moments of the rows to fit on, in any number of parts.
        test: Moments of the rows to score on.

    Raises:
        NoVarianceError: without variance in the training rows or around their mean in the held-out rows of y.
        InputError: for too few rows.
    """
    train_rows, test_rows = (int(sum(part.rows for part in parts)) for parts in (train, test))
    if train_rows < 2 or test_rows < 1:
        raise InputError(f"rows: expected at least 2 to fit on and 1 to score on, got {train_rows} and {test_rows}")
    centre = means(train)
    fit, held_out = summed(train, *centre), summed(test, *centre)
    for name, square, mean in (("x", fit.xx, centre[0]), ("y", fit.yy, centre[1])):
        if square <= NO_VARIANCE * (square + fit.rows * mean.square().sum()):
            raise NoVarianceError(f"{name}: expected training rows that differ, got the same row {train_rows} times")
    left, singular, right = _svd(fit.xy)
    fitted = left @ right
    scale = float(singular.sum() / fit.xx)
    if held_out.yy <= NO_VARIANCE * (held_out.yy + held_out.rows * centre[1].square().sum()):
        raise NoVarianceError("y: expected held-out rows that differ from the training mean, got none")
    error = scale**2 * held_out.xx + held_out.yy - 2 * scale * (fitted * held_out.xy).sum()
    threshold = singular[0] * len(singular) * torch.finfo(torch.float64).eps
    # Rank cannot exceed the rows that are left after centring; rounding of a huge leading value may say
    # otherwise.
    rank = min(int((singular > threshold).sum()), train_rows - 1)
    return ProcrustesFit(
        map=fitted,
        scale=scale,
        inverse_row_entropy=inverse_row_entropy(fitted),
        residual=max(0.0, float(error / held_out.yy)),
        rank=rank,
        train_rows=train_rows,
        test_rows=test_rows,
        singular=(left, singular, right),
        centre=centre,
    )


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, S and V' of a matrix [d, d]."""
    if matrix.device.type != "cpu":
        return tuple(torch.linalg.svd(matrix))
    # NumPy's LAPACK, on the same memory, takes a fifth less (measured on an AMD EPYC, d = 576).
    left, singular, right = np.linalg.svd(matrix.numpy())
    return torch.from_numpy(left), torch.from_numpy(singular), torch.from_numpy(right)


def entropy_gradient(fit: ProcrustesFit) -> Tensor:
    """Return the derivative of the inverse row entropy by the entries of X'Y on the training rows, [d, d].

    With X'Y = U S V' and Z = U' d(X'Y) V, dO = U [(Z_ij - Z_ji) / (s_i + s_j)] V' (e.g. Kenney and Laub 1991).
    """
    d = len(fit.map)
    tiny = torch.finfo(torch.float64).tiny
    by_map = 2 * (fit.map.square().clamp_min(tiny).log() + 1) * fit.map / (d * math.log(d))
    left, singular, right = fit.singular
    inner = (left.T @ by_map @ right.T) / (singular[:, None] + singular[None, :])
    return left @ (inner - inner.T) @ right


def inverse_row_entropy(orthogonal: Tensor) -> float:
    """Return how close an orthogonal matrix [d, d] is to a permutation (arXiv 2601.21192).

    H_inv = 1 - mean_i(-sum_j O_ij^2 ln O_ij^2) / ln d, NaN at d = 1, where every map is a permutation.
    """
    if len(orthogonal) == 1:
        return math.nan
    entropy = torch.special.entr(orthogonal.double().square()).sum(dim=1).mean()
    return 1 - float(entropy) / math.log(orthogonal.shape[0])


def split(n: int, groups: Sequence[int] | Tensor | None, test_share: float, seed: int) -> Tensor:
    """Return which of n rows to score on, as a boolean [n], groups kept whole."""
    if not 0 < test_share < 1:
        raise InputError(f"test_share: expected a share between 0 and 1, got {test_share}")
    ids = np.arange(n) if groups is None else torch.as_tensor(groups).cpu().numpy()
    if ids.shape != (n,):
        raise InputError(f"groups: expected one per row, {n}, got shape {list(ids.shape)}")
    names = np.unique(ids)
    if len(names) < 2:
        raise InputError(f"groups: expected at least 2, one to fit on and one to score on, got {len(names)}")
    count = min(len(names) - 1, max(1, round(test_share * len(names))))
    held_out = np.isin(ids, np.random.default_rng(seed).permutation(names)[:count])
    if n - held_out.sum() < 2:
        raise InputError(f"groups: expected at least 2 rows to fit on, got {n - held_out.sum()}")
    return torch.from_numpy(held_out)
