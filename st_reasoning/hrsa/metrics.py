"""The measures as torchmetrics: rows come in batches and on several processes, and none but a stated sample is kept.

Symbols: n rows of a batch, widths d_x, d_y. A value is that of the function of the same name over all rows at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from st_reasoning.errors import InputError
from st_reasoning.hrsa import measures
from st_reasoning.hrsa.measures._check import check_pair
from st_reasoning.hrsa.measures.cka import Estimator, by_moments
from st_reasoning.hrsa.measures.moments import Moments, Norms
from st_reasoning.hrsa.measures.procrustes import ProcrustesFit, solve
from st_reasoning.hrsa.measures.sampling import chosen, hashed


class _Pairs(Metric):
    """A metric over paired rows, from sums about a reference row of its own in each process."""

    # Sums about different references are stacked, not added: that is left to compute.
    full_state_update = True
    is_differentiable = False

    def __init__(self, width_x: int, width_y: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width_x, self.width_y = width_x, width_x if width_y is None else width_y
        for name, width in (("width_x", self.width_x), ("width_y", self.width_y)):
            if width < 1:
                raise InputError(f"{name}: expected at least 1, got {width}")

    def _add_sums(self, prefix: str, sums: Any) -> None:
        for field in fields(sums):
            self.add_state(f"{prefix}{field.name}", getattr(sums, field.name), dist_reduce_fx=None)

    def _sums(self, prefix: str, kind: Any) -> list[Any]:
        """Return the sums of every process, views of the states."""
        states = [getattr(self, f"{prefix}{field.name}") for field in fields(kind)]
        vector = getattr(self, f"{prefix}{_VECTOR[kind]}")
        if vector.ndim == 1:
            return [kind(*states)]
        return [kind(*(state[rank] for state in states)) for rank in range(len(vector))]

    def _keep(self, prefix: str, sums: Any) -> None:
        for field in fields(sums):
            setattr(self, f"{prefix}{field.name}", getattr(sums, field.name))

    def _check(self, x: Tensor, y: Tensor) -> None:
        check_pair(x, y, min_rows=1)
        for name, rows, width in (("x", x, self.width_x), ("y", y, self.width_y)):
            if rows.shape[1] != width:
                raise InputError(f"{name}: expected {width} columns, got {rows.shape[1]}")

    def _begin(self, prefix: str, x: Tensor, y: Tensor, *, square: bool) -> Moments:
        sums: Moments
        (sums,) = self._sums(prefix, Moments)
        if sums.rows == 0:
            sums = Moments.about(x.double().mean(dim=0), y.double().mean(dim=0), square=square)
        return sums


# A sum that is a vector in one process, and so a matrix when it comes from several.
_VECTOR = {Moments: "at_x", Norms: "by_x"}


class LinearCKA(_Pairs):
    """Linear CKA, exact over all rows; see :func:`~st_reasoning.hrsa.measures.linear_cka`.

    Keeps d_x^2 + d_y^2 + d_x d_y sums.

    Args:
        width_x: d_x.
        width_y: d_y, by default the same.
        estimator: ``"biased"`` or ``"debiased"``.
        **kwargs: Of :class:`torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(
        self, width_x: int, width_y: int | None = None, *, estimator: Estimator = "biased", **kwargs: Any
    ) -> None:
        super().__init__(width_x, width_y, **kwargs)
        measures.min_rows(estimator)
        self.estimator = estimator
        zero_x, zero_y = torch.zeros(self.width_x), torch.zeros(self.width_y)
        self._add_sums("", Moments.about(zero_x, zero_y, square=True))
        self._add_sums("norms_", Norms.zero(self.width_x, self.width_y))

    def update(self, x: Tensor, y: Tensor) -> None:
        """Add rows x [n, d_x] and y [n, d_y]."""
        self._check(x, y)
        sums = self._begin("", x, y, square=True)
        sums.add(x, y)
        (norms,) = self._sums("norms_", Norms)
        norms.add(x.double() - sums.at_x, y.double() - sums.at_y)
        self._keep("", sums)
        self._keep("norms_", norms)

    def compute(self) -> Tensor:
        """Return CKA, []."""
        return by_moments(self._sums("", Moments), self._sums("norms_", Norms), self.estimator)


class DimensionCorrelation(_Pairs):
    """Mean dimension-wise correlation; see :func:`~st_reasoning.hrsa.measures.dimension_correlation`.

    Keeps a few sums per dimension.

    Args:
        width: d.
        **kwargs: Of :class:`torchmetrics.Metric`.
    """

    higher_is_better = True

    rows: Tensor
    at_x: Tensor
    at_y: Tensor
    x: Tensor
    y: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor
    least: Tensor
    greatest: Tensor

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(width, None, **kwargs)
        for name in ("rows", "at_x", "at_y", "x", "y", "xx", "yy", "xy"):
            self.add_state(name, torch.zeros(width, dtype=torch.float64), dist_reduce_fx=None)
        for name, extreme in (("least", torch.inf), ("greatest", -torch.inf)):
            start = torch.full((2, width), extreme, dtype=torch.float64)
            self.add_state(name, start, dist_reduce_fx="min" if name == "least" else "max")

    def update(self, x: Tensor, y: Tensor) -> None:
        """Add rows x [n, d] and y [n, d]."""
        self._check(x, y)
        x, y = x.double(), y.double()
        if not self.rows.any():
            self.at_x, self.at_y = x.mean(dim=0), y.mean(dim=0)
        both = torch.stack([x, y])
        self.least = torch.minimum(self.least, both.amin(dim=1))
        self.greatest = torch.maximum(self.greatest, both.amax(dim=1))
        x, y = x - self.at_x, y - self.at_y
        self.rows = self.rows + len(x)
        self.x, self.y = self.x + x.sum(dim=0), self.y + y.sum(dim=0)
        self.xx, self.yy = self.xx + x.square().sum(dim=0), self.yy + y.square().sum(dim=0)
        self.xy = self.xy + (x * y).sum(dim=0)

    def compute(self) -> Tensor:
        """Return the mean correlation, []."""
        rows, at_x, at_y, x, y, xx, yy, xy = (
            getattr(self, name).reshape(-1, self.width_x)
            for name in ("rows", "at_x", "at_y", "x", "y", "xx", "yy", "xy")
        )
        count = rows.sum(dim=0)
        if count[0] < 2:
            raise InputError(f"rows: expected at least 2, got {int(count[0])}")
        a = (x + rows * at_x).sum(dim=0) / count - at_x
        b = (y + rows * at_y).sum(dim=0) / count - at_y
        varies = (self.least < self.greatest).all(dim=0)
        if not varies.any():
            raise InputError("x with y: expected a column that varies in both, got none")
        xx, yy = (xx - 2 * a * x + rows * a * a).sum(dim=0), (yy - 2 * b * y + rows * b * b).sum(dim=0)
        xy = (xy - a * y - b * x + rows * a * b).sum(dim=0)
        correlations: Tensor = (xy / xx.sqrt() / yy.sqrt())[varies]
        return correlations.mean()


class Procrustes(_Pairs):
    """Orthogonal Procrustes; see :func:`~st_reasoning.hrsa.measures.procrustes`.

    Keeps X'Y of the rows fitted on and of the rows held out; which they are is decided by a hash of their
    group, so that it does not depend on the process or the order.

    Args:
        width: d.
        test_share: Share of groups that is held out, on average.
        seed: Of the hash.
        **kwargs: Of :class:`torchmetrics.Metric`.
    """

    higher_is_better = None

    def __init__(self, width: int, *, test_share: float = 0.2, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(width, None, **kwargs)
        if not 0 < test_share < 1:
            raise InputError(f"test_share: expected a share between 0 and 1, got {test_share}")
        self.test_share, self.seed = test_share, seed
        for prefix in ("train_", "test_"):
            self._add_sums(prefix, Moments.about(torch.zeros(width), torch.zeros(width)))

    def update(self, x: Tensor, y: Tensor, groups: Tensor) -> None:
        """Add rows x [n, d] and y [n, d] of groups [n], int64, e.g. the sentence of each token."""
        self._check(x, y)
        if groups.shape != x.shape[:1]:
            raise InputError(f"groups: expected one per row, {len(x)}, got shape {list(groups.shape)}")
        held_out = chosen(groups, self.test_share, self.seed)
        for prefix, rows in (("train_", ~held_out), ("test_", held_out)):
            if rows.any():
                sums = self._begin(prefix, x[rows], y[rows], square=False)
                sums.add(x[rows], y[rows])
                self._keep(prefix, sums)

    def compute(self) -> dict[str, Tensor]:
        """Return inverse_row_entropy, residual, scale, rank, train_rows and test_rows, each []."""
        found = self.solution()
        return {
            name: torch.tensor(getattr(found, name))
            for name in ("inverse_row_entropy", "residual", "scale", "rank", "train_rows", "test_rows")
        }

    def solution(self) -> ProcrustesFit:
        """Return the map and all that is known of it, over the rows of this process."""
        return solve(self._sums("train_", Moments), self._sums("test_", Moments))


class KNNOverlap(Metric):
    """k-NN overlap among a sample of the rows; see :func:`~st_reasoning.hrsa.measures.knn_overlap`.

    Rows beyond the sample give place to each other by a hash of their key, so that the sample does not depend on
    the process or the order. The overlap of a sample is that of a corpus of its size: neighbours that were not
    drawn are not found.

    Args:
        k: Numbers of neighbours.
        rows: The most rows kept.
        seed: Of the hash.
        **kwargs: Of :class:`torchmetrics.Metric`.
    """

    full_state_update = True
    is_differentiable = False
    higher_is_better = True

    keys: list[Tensor]
    x: list[Tensor]
    y: list[Tensor]

    def __init__(self, k: int | Sequence[int] = (5, 10, 50), *, rows: int = 4096, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k, self.rows, self.seed = k, rows, seed
        for name in ("keys", "x", "y"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, x: Tensor, y: Tensor, keys: Tensor) -> None:
        """Add rows x [n, d_x] and y [n, d_y], named by keys [n], int64, no two alike."""
        check_pair(x, y, min_rows=1)
        if keys.shape != x.shape[:1]:
            raise InputError(f"keys: expected one per row, {len(x)}, got shape {list(keys.shape)}")
        self.keys, self.x, self.y = self._drawn([*self.keys, keys], [*self.x, x], [*self.y, y])

    def compute(self) -> dict[int, Tensor]:
        """Return the overlap by k, each []."""
        states = (state if isinstance(state, list) else [state] for state in (self.keys, self.x, self.y))
        _, (x,), (y,) = self._drawn(*states)
        return {k: torch.tensor(value) for k, value in measures.knn_overlap(x, y, k=self.k).items()}

    def _drawn(
        self, keys: list[Tensor], xs: list[Tensor], ys: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        names, x, y = torch.cat(keys), torch.cat(xs), torch.cat(ys)
        drawn = hashed(names, self.seed).argsort()[: self.rows]
        drawn = drawn[names[drawn].argsort()]
        return [names[drawn]], [x[drawn]], [y[drawn]]
