"""Debiased CKA of many layers from minibatches that hold one token of each sentence at most.

Tokens of a sentence depend on each other: taken as independent rows they make unrelated representations look
alike. So only pairs of tokens of different sentences count. Minibatches (Nguyen et al. 2021) are a sample of these
pairs; centring needs no sample, because row sums of centred Gram matrices are known.

Symbols: n tokens, M minibatches of at most b tokens, L layers, G blocks of sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa.cores import Over

# HSIC_1 divides by n (n - 3).
FEWEST = 4
FEWEST_SENTENCES = 2 * FEWEST
# Long sentences would leave the later minibatches nearly empty: below this size they are cut instead.
_SMALL = 16
# Rows of Gram matrices worked on at a time.
_ROWS = 128


def draw_minibatches(sentences: Tensor, *, size: int, seed: int) -> Tensor:
    """Return minibatches of rows, no two of one sentence in any, as row numbers [M, b], -1 where there is none.

    Laid out sentence by sentence, in random order, token t goes to minibatch t mod m: tokens of a sentence
    meet in none if it has at most m of them. Where that makes minibatches much smaller than ``size``, the
    tokens are dealt out again and again, so that the pairs seen number about n ``size`` in all. A sentence
    so long that minibatches would hold fewer than 16 tokens (or half of the sentences, if that is less) gives as many
    tokens as it may, others at each deal.

    Args:
        sentences: [n], the sentence of each token.
        size: Tokens wanted in a minibatch.
        seed: Of the order.

    Raises:
        InputError: for fewer than 8 sentences.
    """
    names, inverse, lengths = np.unique(sentences.cpu().numpy(), return_inverse=True, return_counts=True)
    if len(names) < FEWEST_SENTENCES:
        raise InputError(
            f"texts: expected at least {FEWEST_SENTENCES}, because the fast estimator pairs tokens of different texts, "
            f'got {len(names)}; use estimator "exact"'
        )
    least = min(_SMALL, len(names) // 2)
    longest = int(lengths.max())
    while np.minimum(lengths, longest).sum() < least * longest:
        longest -= max(1, longest // 64)
    count = max(1, -(-len(inverse) // size), longest)
    generator = np.random.default_rng(seed)
    used = int(np.minimum(lengths, count).sum())
    deals, width = [], -(-used // count)
    for _ in range(max(1, round(size * len(inverse) / (used * width)))):
        place = generator.permutation(len(names))[inverse]
        order = np.lexsort((generator.random(len(inverse)), place))
        first = np.flatnonzero(np.diff(place[order], prepend=-1))
        within = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
        rows = order[within < count]
        deal = np.full(width * count, -1)
        deal[: len(rows)] = rows
        deals.append(deal.reshape(width, count).T)
    return torch.from_numpy(np.concatenate(deals))


@dataclass
class PairSums:
    """Sums over pairs of tokens of different sentences, sum_ij w_ij K_ij L_ij, for all pairs of layers.

    Weights w make a sample of the pairs stand for all of them. Sums are kept apart by the block of the token i.

    Attributes:
        cross: [G, L_a, L_b].
        own_a: [G, L_a], each layer with itself.
        own_b: [G, L_b].
    """

    cross: Tensor
    own_a: Tensor
    own_b: Tensor

    @classmethod
    def zero(cls, layers_a: int, layers_b: int, blocks: int = 1) -> PairSums:
        """Return the sums over no pairs."""
        zero = torch.zeros((), dtype=torch.float64).new_zeros
        return cls(zero(blocks, layers_a, layers_b), zero(blocks, layers_a), zero(blocks, layers_b))

    def add(
        self, grams: Tensor, weights: Tensor, layers_a: int, blocks: Tensor | None = None, *, over: Over = map
    ) -> None:
        """Add pairs of some tokens i with some tokens j.

        Args:
            grams: [L_a + L_b, r, c], products of rows that are centred over all tokens.
            weights: [r, c], 0 for pairs that do not count.
            layers_a: L_a.
            blocks: [r], the block of each i, from 0 to G - 1; by default all are of block 0.
            over: How to go over parts of the rows.
        """
        blocks = torch.zeros(len(weights), dtype=torch.int64) if blocks is None else blocks
        roots = weights.sqrt().to(grams.dtype)
        parts = _parts(weights)

        def sums(rows: slice) -> tuple[Tensor, Tensor]:
            # Over a row of the Gram matrices in float32, over rows in float64.
            by_row = (grams[:, rows] * roots[rows]).transpose(0, 1)
            cross = (by_row[:, :layers_a] @ by_row[:, layers_a:].transpose(1, 2)).double()
            return cross, torch.linalg.vector_norm(by_row, dim=2).double().square()

        for rows, (cross, own) in zip(parts, over(sums, parts), strict=True):
            self.cross.index_add_(0, blocks[rows], cross)
            self.own_a.index_add_(0, blocks[rows], own[:, :layers_a])
            self.own_b.index_add_(0, blocks[rows], own[:, layers_a:])

    def add_mirrored(self, grams: Tensor, weights: Tensor, layers_a: int, blocks: Tensor, *, over: Over = map) -> None:
        """Add the mirror images of pairs: of the tokens j with the tokens i.

        Args:
            grams: [L_a + L_b, r, c], as :meth:`add` takes them.
            weights: [r, c].
            layers_a: L_a.
            blocks: [c], the block of each j; quick where tokens of a block follow each other.
            over: How to go over parts of the rows.
        """
        roots = weights.sqrt().to(grams.dtype)
        names, counts = torch.unique_consecutive(blocks, return_counts=True)
        starts = counts.cumsum(0) - counts
        runs = [slice(first, first + count) for first, count in zip(starts.tolist(), counts.tolist(), strict=True)]
        parts = _parts(weights)

        def sums(rows: slice) -> list[tuple[Tensor, Tensor]]:
            found = []
            for columns in runs:
                part = (grams[:, rows, columns] * roots[rows, columns]).flatten(1)
                own = torch.linalg.vector_norm(part, dim=1).double().square()
                found.append(((part[:layers_a] @ part[layers_a:].T).double(), own))
            return found

        for found in over(sums, parts):
            for block, (cross, own) in zip(names.tolist(), found, strict=True):
                self.cross[block] += cross
                self.own_a[block] += own[:layers_a]
                self.own_b[block] += own[layers_a:]

    def debiased(self, within_a: Tensor, within_b: Tensor, blocks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return debiased CKA and the same without each block; NaN where undefined.

        HSIC_1 (Song et al. 2012, equation 5) of centred rows, up to 1 / (n (n - 3)), with the token replaced by the
        sentence as what is independent of the others::

            sum_ij K_ij L_ij - 2 / (n - 2) sum_i A_i B_i + (sum_i A_i) (sum_i B_i) / ((n - 1) (n - 2))

        over i and j of different sentences. A_i is the sum of K_ij over the sentence of i, i among them: the rows of a
        centred K sum to zero, so that -A_i is the row sum over the other sentences. With one token to a sentence this
        is HSIC_1 itself.

        Args:
            within_a: [L_a, n], A of each layer, in the scale of the Gram matrices.
            within_b: [L_b, n].
            blocks: [n], the block of each row; by default all are of block 0.

        Returns:
            [L_a, L_b] and [G, L_a, L_b].
        """
        return self._estimate(within_a, within_b, blocks, 0.0, debias=True)[:2]

    def biased(
        self, squares_a: Tensor, squares_b: Tensor, blocks: Tensor | None = None, *, share: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return biased CKA, the same without each block, and |X'X|_F^2 of each layer, as estimated.

        |X'Y|_F^2 is sum_{i != j} K_ij L_ij, of which ``share`` of the pairs are of different sentences and the others
        taken to be like them, and sum_i K_ii L_ii, which is known.

        Args:
            squares_a: [L_a, n], K_ii: squared lengths of the centred rows, in the scale of the Gram matrices.
            squares_b: [L_b, n].
            blocks: [n], the block of each row; by default all are of block 0.
            share: Of all n (n - 1) pairs, those of different sentences.

        Returns:
            [L_a, L_b], [G, L_a, L_b], [L_a] and [L_b].
        """
        return self._estimate(squares_a, squares_b, blocks, share, debias=False)

    def _estimate(
        self, own_rows_a: Tensor, own_rows_b: Tensor, blocks: Tensor | None, share: float, *, debias: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count = len(self.cross)
        blocks = torch.zeros(own_rows_a.shape[1], dtype=torch.int64) if blocks is None else blocks
        products = block_products(own_rows_a, own_rows_b, blocks, count)
        squares_a, squares_b = (block_sums(side.square(), blocks, count) for side in (own_rows_a, own_rows_b))
        totals_a, totals_b = (block_sums(side, blocks, count) for side in (own_rows_a, own_rows_b))

        def whole(pairs: Tensor, products: Tensor, totals: Tensor, n: Tensor) -> Tensor:
            n = n[(slice(None), *[None] * (pairs.ndim - 1))]
            if debias:
                return pairs - products * (2 / (n - 2)) + totals / ((n - 1) * (n - 2))
            return pairs / share + products

        def over(n: Tensor, part: Callable[[Tensor, int], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            a, b = part(totals_a, 1), part(totals_b, 1)
            return (
                whole(part(self.cross, 2), part(products, 1), a[:, :, None] * b[:, None, :], n),
                whole(part(self.own_a, 2), part(squares_a, 1), a.square(), n),
                whole(part(self.own_b, 2), part(squares_b, 1), b.square(), n),
            )

        every = torch.tensor([float(own_rows_a.shape[1])], dtype=torch.float64)
        found = over(every, lambda sums, _: sums.sum(dim=0, keepdim=True))
        left = over(every - torch.bincount(blocks, minlength=count), without)
        return ratio(*found)[0], ratio(*left), found[1][0], found[2][0]


def _parts(weights: Tensor) -> list[slice]:
    """Return the rows of weights [r, c], a few at a time."""
    return [slice(start, start + _ROWS) for start in range(0, len(weights), _ROWS)]


def without(sums: Tensor, power: float) -> Tensor:
    """Return what a sum loses with each block, to first order: sums by block [G, ...] -> the sum without it.

    Args:
        sums: [G, ...], by the block of one of the tokens that a summand belongs to.
        power: How many tokens that are; all of them can be the one that is left out.
    """
    return sums.sum(dim=0) - power * sums


def block_sums(values: Tensor, blocks: Tensor, count: int) -> Tensor:
    """Return the sums of values [L, n] over the rows of each block, [G, L]."""
    return values.new_zeros(count, len(values)).index_add_(0, blocks, values.T)


def block_products(a: Tensor, b: Tensor, blocks: Tensor, count: int) -> Tensor:
    """Return the sums of products of a [L_a, n] with b [L_b, n] over the rows of each block, [G, L_a, L_b]."""
    return torch.stack([a[:, rows] @ b[:, rows].T for rows in (blocks == block for block in range(count))])


def ratio(cross: Tensor, own_a: Tensor, own_b: Tensor, *, floor: float = 0.0) -> Tensor:
    """Return cross [..., L_a, L_b] over the roots of both normalisers [..., L], NaN where one is below the floor."""
    # The roots are taken apart: the product of two normalisers can overflow where neither of them does.
    lengths_a, lengths_b = (torch.where(own > floor, own, torch.nan).sqrt() for own in (own_a, own_b))
    return (cross / lengths_a[..., :, None] / lengths_b[..., None, :]).cpu()
