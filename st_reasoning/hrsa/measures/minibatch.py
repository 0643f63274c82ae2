"""Debiased CKA of many layers from minibatches that hold one token of each sentence at most.

Tokens of a sentence depend on each other: taken as independent rows they make unrelated representations look alike. The
minibatch estimator is that of Nguyen et al. 2021: HSIC_1 (Song et al. 2012, equation 5) is unbiased in each
minibatch, so its sum over minibatches is too.

Symbols: n tokens, M minibatches of at most b tokens, L layers, G blocks of sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from st_reasoning.errors import InputError

# HSIC_1 divides by n (n - 3).
FEWEST = 4
FEWEST_SENTENCES = 2 * FEWEST
# Long sentences would leave the later minibatches nearly empty: below this size they are cut instead.
_SMALL = 16


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
class MinibatchHSIC:
    """Sums of n_g (n_g - 3) HSIC_1 over minibatches g of n_g tokens, for all pairs of layers.

    Each is a sum over the rows of the Gram matrices, kept apart by the block of sentences a row belongs to.

    Attributes:
        cross: [G, L_a, L_b].
        own_a: [G, L_a], each layer with itself.
        own_b: [G, L_b].
        pairs: [G], of the sum of n_g (n_g - 3).
    """

    cross: Tensor
    own_a: Tensor
    own_b: Tensor
    pairs: Tensor

    @classmethod
    def zero(cls, layers_a: int, layers_b: int, blocks: int = 1) -> MinibatchHSIC:
        """Return the sums over no minibatches."""
        zero = torch.zeros((), dtype=torch.float64).new_zeros
        return cls(zero(blocks, layers_a, layers_b), zero(blocks, layers_a), zero(blocks, layers_b), zero(blocks))

    def add(self, grams: Tensor, present: Tensor, layers_a: int, blocks: Tensor | None = None) -> None:
        """Add minibatches.

        n (n - 3) HSIC_1 = sum_{i != j} K~_ij L~_ij with K~ U-centred (Szekely and Rizzo 2014): off the diagonal
        K_ij - (k_i + k_j) / (n - 2) + (sum_i k_i) / ((n - 1) (n - 2)), where k holds the row sums of K without its
        diagonal. The rows of K~ sum to zero, so that what row i adds is also what the sum loses with it, to first
        order half of it.

        Args:
            grams: [L_a + L_b, M, b, b]; U-centred in place, entries of rows that are not present and the diagonal
                set to 0. U-centring what is U-centred over more rows gives the same.
            present: [M, b], booleans.
            layers_a: L_a.
            blocks: [M, b], the block of each row, from 0 to G - 1; by default all are of block 0.
        """
        used = present.sum(dim=1) >= FEWEST
        blocks = torch.zeros_like(present, dtype=torch.int64) if blocks is None else blocks
        a, b = slice(0, layers_a), slice(layers_a, len(grams))
        for number in used.nonzero().flatten().tolist():
            here, block = present[number], blocks[number]
            n = int(here.sum())
            gram, outside = grams[:, number], ~(here[:, None] & here[None, :])
            outside.fill_diagonal_(True)
            gram.masked_fill_(outside, 0)
            rows = gram.sum(dim=2, dtype=torch.float64) / (n - 2)
            # Half of the total with each of the two indices of an entry.
            rows -= rows.sum(dim=1, keepdim=True) / (2 * (n - 1))
            gram -= rows[:, :, None].to(gram.dtype)
            gram -= rows[:, None, :].to(gram.dtype)
            gram.masked_fill_(outside, 0)
            by_row = gram.transpose(0, 1)
            self.cross.index_add_(0, block, (by_row[:, a] @ by_row[:, b].transpose(1, 2)).double())
            own = gram.square().sum(dim=2).double().T
            self.own_a.index_add_(0, block, own[:, a])
            self.own_b.index_add_(0, block, own[:, b])
            self.pairs.index_add_(0, block, here.double() * (n - 3))

    def debiased(self) -> tuple[Tensor, Tensor]:
        """Return debiased CKA [L_a, L_b] and what it is without each block [G, L_a, L_b]; NaN where undefined."""
        total = ratio(self.cross.sum(dim=0), self.own_a.sum(dim=0), self.own_b.sum(dim=0))
        return total, ratio(without(self.cross, 2), without(self.own_a, 2), without(self.own_b, 2))

    def biased(
        self, squares_a: Tensor, squares_b: Tensor, blocks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return biased CKA, the same without each block, and |X'X|_F^2 of each layer, as estimated.

        HSIC_1 of all rows, centred, is sum_{i != j} K_ij L_ij - 2 / (n - 2) sum_i a_i b_i + (sum_i a_i) (sum_i b_i) /
        ((n - 1) (n - 2)), up to 1 / (n (n - 3)). The minibatches estimate it without bias; the diagonals
        a_i = K_ii are known, and give |X'Y|_F^2 from it.

        Args:
            squares_a: [L_a, n], squared lengths of the centred rows, in the scale of the Gram matrices.
            squares_b: [L_b, n].
            blocks: [n], the block of each row; by default all are of block 0.

        Returns:
            [L_a, L_b], [G, L_a, L_b], [L_a] and [L_b].
        """
        n, count = float(squares_a.shape[1]), len(self.cross)
        blocks = torch.zeros(squares_a.shape[1], dtype=torch.int64) if blocks is None else blocks
        products = block_products(squares_a, squares_b, blocks, count)
        own_a, own_b = (block_squares(side, blocks, count) for side in (squares_a, squares_b))
        traces_a, traces_b = (block_sums(side, blocks, count) for side in (squares_a, squares_b))

        def whole(hsic: Tensor, products: Tensor, traces: Tensor, per_pair: Tensor, n: Tensor) -> Tensor:
            axes = (slice(None), *[None] * (hsic.ndim - 1))
            n, per_pair = n[axes], per_pair[axes]
            return hsic * per_pair * n * (n - 3) + products * (1 + 2 / (n - 2)) - traces / ((n - 1) * (n - 2))

        def over(n: Tensor, part: Callable[[Tensor, int], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            a, b, per_pair = part(traces_a, 1), part(traces_b, 1), 1 / part(self.pairs, 2)
            return (
                whole(part(self.cross, 2), part(products, 1), a[:, :, None] * b[:, None, :], per_pair, n),
                whole(part(self.own_a, 2), part(own_a, 1), a.square(), per_pair, n),
                whole(part(self.own_b, 2), part(own_b, 1), b.square(), per_pair, n),
            )

        every = torch.tensor([n], dtype=torch.float64)
        found = over(every, lambda sums, _: sums.sum(dim=0, keepdim=True))
        left = over(every - torch.bincount(blocks, minlength=count), without)
        return ratio(*found)[0], ratio(*left), found[1][0], found[2][0]


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


def block_squares(values: Tensor, blocks: Tensor, count: int) -> Tensor:
    """Return the sums of squares of values [L, n] over the rows of each block, [G, L]."""
    return block_sums(values.square(), blocks, count)


def block_products(a: Tensor, b: Tensor, blocks: Tensor, count: int) -> Tensor:
    """Return the sums of products of a [L_a, n] with b [L_b, n] over the rows of each block, [G, L_a, L_b]."""
    return torch.stack([a[:, rows] @ b[:, rows].T for rows in (blocks == block for block in range(count))])


def ratio(cross: Tensor, own_a: Tensor, own_b: Tensor, *, floor: float = 0.0) -> Tensor:
    """Return cross [..., L_a, L_b] over the roots of both normalisers [..., L], NaN where one is below the floor."""
    # The roots are taken apart: the product of two normalisers can overflow where neither of them does.
    lengths_a, lengths_b = (torch.where(own > floor, own, torch.nan).sqrt() for own in (own_a, own_b))
    return (cross / lengths_a[..., :, None] / lengths_b[..., None, :]).cpu()
