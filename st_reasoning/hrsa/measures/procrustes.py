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


@dataclass(frozen=True)
class Procrustes:
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
    """

    map: Tensor
    scale: float
    inverse_row_entropy: float
    residual: float
    rank: int
    train_rows: int
    test_rows: int

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
) -> Procrustes:
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

    Raises:
        InputError: for malformed input, d < 2, fewer than two groups, or training rows without variance.
    """
    check_pair(x, y, min_rows=4, min_columns=2, same_width=True)
    train, test = _split(x.shape[0], groups, test_share, seed)
    train, test = train.to(x.device), test.to(x.device)
    x_train, y_train = x[train].double(), y[train].double()
    x_mean, y_mean = x_train.mean(dim=0), y_train.mean(dim=0)
    x_train, y_train = x_train - x_mean, y_train - y_mean
    for name, rows in (("x", x_train), ("y", y_train)):
        if not rows.any():
            raise InputError(f"{name}: expected training rows that differ, got the same row {len(rows)} times")
    left, singular, right = torch.linalg.svd(x_train.T @ y_train)
    fitted = left @ right
    scale = float(singular.sum() / x_train.square().sum())
    y_test = y[test].double() - y_mean
    error = scale * (x[test].double() - x_mean) @ fitted - y_test
    threshold = singular[0] * x.shape[1] * torch.finfo(torch.float64).eps
    # Rank cannot exceed the rows that are left after centring; rounding of a huge leading value may say
    # otherwise.
    rank = min(int((singular > threshold).sum()), len(train) - 1)
    reference = y_test.square().sum()
    if reference == 0:
        raise InputError("y: expected held-out rows that differ from the training mean, got none")
    return Procrustes(
        map=fitted,
        scale=scale,
        inverse_row_entropy=inverse_row_entropy(fitted),
        residual=float(error.square().sum() / reference),
        rank=rank,
        train_rows=len(train),
        test_rows=len(test),
    )


def inverse_row_entropy(orthogonal: Tensor) -> float:
    """Return how close an orthogonal matrix [d, d] is to a permutation (arXiv 2601.21192).

    H_inv = 1 - mean_i(-sum_j O_ij^2 ln O_ij^2) / ln d.
    """
    entropy = torch.special.entr(orthogonal.double().square()).sum(dim=1).mean()
    return 1 - float(entropy) / math.log(orthogonal.shape[0])


def _split(n: int, groups: Sequence[int] | Tensor | None, test_share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the row numbers to fit on and to score on, groups kept whole."""
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
    train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    if len(train) < 2:
        raise InputError(f"groups: expected at least 2 rows to fit on, got {len(train)}")
    return torch.from_numpy(train), torch.from_numpy(test)
