"""What all measures need to know of the columns and rows of a layer, in one reading of it.

Symbols: n tokens, d width, L layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from st_reasoning.hrsa.cores import Cores
from st_reasoning.hrsa.store import Store

# Rows worked on at a time: what fits in a cache is read from memory once.
_ROWS = 512


@dataclass(frozen=True)
class Columns:
    """Facts of the columns of a layer over some rows.

    Attributes:
        mean: [d], float64.
        variance: [d], float64; 0 where ``constant``.
        constant: [d], whether the column holds one value only.
        squares: [n], float64: squared lengths of the centred rows.
        within: [n], float64: products of the centred rows with the sum of those of their sentence.
        standardised: [2, n], float64: both, of the rows with every column at mean 0 and variance 1.
    """

    mean: Tensor
    variance: Tensor
    constant: Tensor
    squares: Tensor
    within: Tensor
    standardised: Tensor

    @property
    def factors(self) -> Tensor:
        """What makes the columns' variance 1, [d], 0 for constant columns."""
        return torch.where(self.constant, 0.0, self.variance.rsqrt())

    @property
    def scale(self) -> float:
        """What makes the mean squared length of the rows one: squares of massive activations then stay in float32.

        1 without variance.
        """
        total = float(self.squares.sum())
        return math.sqrt(len(self.squares) / total) if total > 0 else 1.0

    @property
    def top_share(self) -> float:
        """The share of all variance in the most varying column; 0 without variance."""
        total = float(self.variance.sum())
        return float(self.variance.max()) / total if total > 0 else 0.0

    @classmethod
    def of(cls, x: Tensor, sentences: Tensor) -> Columns:
        """Return the facts of x [n, d], float32, of sentences [n] numbered from 0.

        Sums run over blocks in float32, about a first mean, and over the blocks in float64.
        """
        n, width = x.shape
        near = torch.stack([part.sum(dim=0).double() for part in torch.split(x, _ROWS)]).sum(dim=0) / n
        near32 = near.float()
        shift, square = torch.zeros_like(near), torch.zeros_like(near)
        constant = torch.ones(width, dtype=torch.bool)
        by_sentence = x.new_zeros(int(sentences.max()) + 1, width)
        for part, numbers in zip(torch.split(x, _ROWS), torch.split(sentences, _ROWS), strict=True):
            centred = part - near32
            shift += centred.sum(dim=0)
            square += centred.square().sum(dim=0)
            if constant.any():  # after the first rows hardly ever
                left = constant.nonzero().flatten()
                constant[left] = (part[:, left] == x[0, left]).all(dim=0)
            by_sentence.index_add_(0, numbers, centred)
        shift /= n
        mean, variance = near32.double() + shift, (square / n - shift.square()).clamp_min(0)
        variance[constant] = 0
        mean[constant] = x[0, constant].double()  # or rounding of the sum would be all the variance there is
        constant |= variance == 0
        empty = torch.empty(4, n, dtype=torch.float64)
        found = cls(mean, variance, constant, empty[0], empty[1], empty[2:])
        mean32, factors = mean.float(), found.factors.float()
        by_sentence -= torch.bincount(sentences)[:, None] * (mean32 - near32)
        for start in range(0, n, _ROWS):
            rows = slice(start, start + _ROWS)
            part, others = x[rows] - mean32, by_sentence.index_select(0, sentences[rows])
            found.squares[rows] = part.square().sum(dim=1)
            found.within[rows] = (part * others).sum(dim=1)
            part *= factors
            others *= factors
            found.standardised[0, rows] = part.square().sum(dim=1)
            found.standardised[1, rows] = (part * others).sum(dim=1)
        return found


def facts(store: Store, sentences: Tensor, cores: Cores) -> list[Columns]:
    """Return the facts of every layer over its first rows, whose sentences [n] are given."""
    numbers = torch.unique(sentences, return_inverse=True)[1]
    return [*cores.map(lambda layer: Columns.of(store.read(layer, 0, len(sentences)), numbers), range(len(store)))]
