"""Which pairs of tokens the fast estimate of CKA looks at, and how many pairs each stands for.

Symbols: n tokens; L layers; M minibatches of b tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from st_reasoning.hrsa.cores import Over
from st_reasoning.hrsa.facts import Columns
from st_reasoning.hrsa.measures.minibatch import PairSums
from st_reasoning.hrsa.tokens import Tokens

# Bytes of Gram matrices held at once.
_BUFFER = 160 << 20
# Tokens that are longest in standardised columns, all pairs of which are looked at.
_LONGEST = 512


@dataclass(frozen=True)
class Tile:
    """Pairs of tokens: of each of M lists with each of another one.

    Attributes:
        rows: [M, r], -1 where there is none.
        columns: [M, c].
        weights: [M, r, c], how many pairs each stands for; 0 for pairs of one sentence.
        square: Whether rows and columns are the same; otherwise each pair stands for its mirror image too.
        within: [M, r, c], 1 for the pairs of a minibatch, whatever other tiles hold; None if these are no minibatches.
    """

    rows: Tensor
    columns: Tensor
    weights: Tensor
    square: bool
    within: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """M, r and c."""
        return self.weights.shape

    def add_to(
        self,
        sums: PairSums,
        grams: Tensor,
        layers_a: int,
        tokens: Tokens,
        *,
        weights: Tensor | None = None,
        below: int | None = None,
        over: Over = map,
    ) -> None:
        """Add the pairs, or those of rows below a number only, to sums; grams are [L, M, r, c]."""
        weights = self.weights if weights is None else weights
        if below is not None:
            weights = weights * (self.rows < below)[:, :, None] * (self.columns < below)[:, None, :]
        blocks = tokens.blocks[self.rows.clamp_min(0)].flatten()
        sums.add(grams.flatten(1, 2), weights.flatten(0, 1), layers_a, blocks, over=over)
        if not self.square:
            for gram, weight, columns in zip(grams.unbind(1), weights, self.columns, strict=True):
                sums.add_mirrored(gram, weight, layers_a, tokens.blocks[columns], over=over)


def tiles(tokens: Tokens, batches: Tensor, layers: int, seed: int) -> Iterator[Tile]:
    """Yield the pairs to look at: of heavy tokens, of those with some of the others, and minibatches of the others."""
    n = len(tokens.order)
    heavy, light = tokens.heavy, torch.ones(n, dtype=torch.bool)
    light[heavy] = False
    every = batches >= 0
    some = every & light[batches.clamp_min(0)]
    if len(heavy) and pairs_met(some):
        others = light.nonzero().flatten()
        # As many as are heavy: the second tile is as large as the first.
        sample = others[torch.from_numpy(np.random.default_rng(seed).permutation(len(others))[: len(heavy)])]
        sample = sample[tokens.blocks[sample].argsort(stable=True)]  # sums are kept by block
        stands_for = len(others) / len(sample)
        yield Tile(heavy[None], heavy[None], apart(tokens, heavy, heavy)[None], square=True)
        yield Tile(heavy[None], sample[None], (apart(tokens, heavy, sample) * stands_for)[None], square=False)
    else:
        some, light = every, torch.ones_like(light)
    share = pairs_apart(tokens, light, light) / max(1.0, pairs_met(some))
    group = max(1, _BUFFER // (4 * batches.shape[1] ** 2 * layers))
    for part, of_light, of_all in zip(*(torch.split(rows, group) for rows in (batches, some, every)), strict=True):
        yield Tile(part, part, within(of_light) * share, square=True, within=within(of_all))


@dataclass(frozen=True)
class Longest:
    """The tokens that are longest in the standardised columns of a pair of layers.

    A few tokens that are far from the others in most dimensions are most of what also standardised columns amount to,
    and minibatches would hold a handful of their pairs, or none. So all pairs of the longest are looked at, and those
    that minibatches hold stand for the other pairs.

    Attributes:
        rows: [h], ascending.
        there: [n], whether a row is among them.
        weight: How many pairs each pair of a minibatch stands for that is not one of two of them.
    """

    rows: Tensor
    there: Tensor
    weight: float

    @classmethod
    def of(cls, columns: tuple[Columns, Columns], tokens: Tokens, batches: Tensor) -> Longest:
        """Choose by the greater share that a token has of either layer, for minibatches [M, b]."""
        n = len(tokens.order)
        squares = torch.stack([found.standardised[0] for found in columns])
        shares = (squares / squares.sum(dim=1, keepdim=True)).nan_to_num(nan=0.0).amax(dim=0)
        rows = shares.argsort(descending=True, stable=True)[: min(_LONGEST, n // 8)].sort().values
        there = torch.zeros(n, dtype=torch.bool)
        there[rows] = True
        whole, every = torch.ones_like(there), batches >= 0
        left = pairs_apart(tokens, whole, whole) - pairs_apart(tokens, there, there)
        return cls(rows, there, left / max(1.0, pairs_met(every) - pairs_met(every & there[batches.clamp_min(0)])))

    def others(self, tile: Tile) -> Tensor:
        """Return how many pairs each pair of a tile of minibatches stands for, 0 for two of them, [M, b, b]."""
        assert tile.within is not None
        there = self.there[tile.rows.clamp_min(0)]
        return tile.within * self.weight * ~(there[:, :, None] & there[:, None, :])


def apart(tokens: Tokens, rows: Tensor, columns: Tensor) -> Tensor:
    """Return 1 for pairs of rows [r] and columns [c] that are of different sentences, otherwise 0, [r, c]."""
    return (tokens.sentences[rows][:, None] != tokens.sentences[columns][None, :]).double()


def pairs_met(used: Tensor) -> float:
    """Return how many ordered pairs of different tokens minibatches [M, b] hold, of those that are used."""
    counts = used.sum(dim=1).double()
    return float((counts * (counts - 1)).sum())


def within(used: Tensor) -> Tensor:
    """Return 1 for pairs of different tokens of a minibatch, of those that are used [M, b], otherwise 0, [M, b, b]."""
    weights = (used[:, :, None] & used[:, None, :]).double()
    weights.diagonal(dim1=1, dim2=2).zero_()
    return weights


def pairs_apart(tokens: Tokens, left: Tensor, right: Tensor) -> float:
    """Return how many ordered pairs of one of some rows and one of others, booleans [n], are of different sentences."""
    numbers = torch.unique(tokens.sentences, return_inverse=True)[1]
    count = int(numbers.max()) + 1
    here, there = (torch.bincount(numbers[rows], minlength=count).double() for rows in (left, right))
    return float(here.sum() * there.sum() - here @ there)
