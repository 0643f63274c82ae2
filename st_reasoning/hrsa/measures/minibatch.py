"""Debiased CKA of many layers from minibatches that hold one token of each sentence at most.

Tokens of a sentence depend on each other: taken as independent rows they make unrelated representations look alike. The
minibatch estimator is that of Nguyen et al. 2021: HSIC_1 (Song et al. 2012, equation 5) is unbiased in each
minibatch, so its sum over minibatches is too.

Symbols: n tokens, M minibatches of at most b tokens, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa.measures.columns import FLOAT32_RUN

# HSIC_1 divides by n (n - 3).
FEWEST = 4
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
    if len(names) < 2 * FEWEST:
        raise InputError(
            f"texts: expected at least {2 * FEWEST}, because the fast estimator pairs tokens of different texts, "
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

    Attributes:
        cross: [L_a, L_b].
        own_a: [L_a], each layer with itself.
        own_b: [L_b].
        pairs: Sum of n_g (n_g - 3).
    """

    cross: Tensor
    own_a: Tensor
    own_b: Tensor
    pairs: float = 0.0

    @classmethod
    def zero(cls, layers_a: int, layers_b: int) -> MinibatchHSIC:
        """Return the sums over no minibatches."""
        zero = torch.zeros((), dtype=torch.float64).new_zeros
        return cls(zero(layers_a, layers_b), zero(layers_a), zero(layers_b))

    def add(self, grams: Tensor, present: Tensor, layers_a: int) -> None:
        """Add minibatches.

        n (n - 3) HSIC_1 = tr KL + (1'K1) (1'L1) / ((n - 1) (n - 2)) - 2 / (n - 2) 1'KL1, diagonals taken as
        zero: sums over the minibatch of entries, of row sums and of totals, each one GEMM for all layer pairs.

        Args:
            grams: [L_a + L_b, M, b, b]; entries of rows that are not present, and the diagonal, are set to 0
                in place.
            present: [M, b], booleans.
            layers_a: L_a.
        """
        present = present & (present.sum(dim=1, keepdim=True) >= FEWEST)
        if not present.any():
            return
        used = present.any(dim=1)
        inside = present[:, :, None] & present[:, None, :]
        inside.diagonal(dim1=1, dim2=2).fill_(False)
        inside = inside.to(grams.dtype)
        flat = grams.flatten(start_dim=1)
        rows, traces = [], []
        for layer in grams:
            layer *= inside
            rows.append(layer.sum(dim=2).double()[used])
            traces.append(rows[-1].sum(dim=1))
        n = present.sum(dim=1).double()[used]
        by_row = torch.stack(rows) * (2 / (n - 2)).sqrt()[:, None]
        by_total = torch.stack(traces) / ((n - 1) * (n - 2)).sqrt()
        by_row = by_row.flatten(start_dim=1)
        a, b = slice(0, layers_a), slice(layers_a, len(grams))
        self.cross += by_total[a] @ by_total[b].T - by_row[a] @ by_row[b].T
        own = by_total.square().sum(dim=1) - by_row.square().sum(dim=1)
        for start in range(0, flat.shape[1], FLOAT32_RUN):
            run = flat[:, start : start + FLOAT32_RUN]
            self.cross += (run[a] @ run[b].T).double()
            own += torch.linalg.vector_norm(run, dim=1).double().square()
        self.own_a += own[a]
        self.own_b += own[b]
        self.pairs += float((n * (n - 3)).sum())

    def debiased(self) -> Tensor:
        """Return debiased CKA [L_a, L_b], NaN where a layer with itself has none."""
        return ratio(self.cross, self.own_a, self.own_b)

    def biased(self, squares_a: Tensor, squares_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return biased CKA [L_a, L_b] and |X'X|_F^2 of each layer, [L_a] and [L_b], as estimated.

        HSIC_1 of all rows, centred, is sum_{i != j} K_ij L_ij - 2 / (n - 2) sum_i a_i b_i + (sum_i a_i) (sum_i b_i) /
        ((n - 1) (n - 2)), up to 1 / (n (n - 3)). The minibatches estimate it without bias; the diagonals
        a_i = K_ii are known, and give |X'Y|_F^2 from it.

        Args:
            squares_a: [L_a, n], squared lengths of the centred rows, in the scale of the Gram matrices.
            squares_b: [L_b, n].
        """
        n = squares_a.shape[1]

        def whole(hsic: Tensor, products: Tensor, totals: Tensor) -> Tensor:
            per_pair = hsic / self.pairs
            return per_pair * n * (n - 3) + products * (1 + 2 / (n - 2)) - totals / ((n - 1) * (n - 2))

        totals_a, totals_b = squares_a.sum(dim=1), squares_b.sum(dim=1)
        own_a = whole(self.own_a, squares_a.square().sum(dim=1), totals_a.square())
        own_b = whole(self.own_b, squares_b.square().sum(dim=1), totals_b.square())
        cross = whole(self.cross, squares_a @ squares_b.T, torch.outer(totals_a, totals_b))
        return ratio(cross, own_a, own_b), own_a, own_b


def ratio(cross: Tensor, own_a: Tensor, own_b: Tensor, *, floor: float = 0.0) -> Tensor:
    """Return cross [L_a, L_b] over the roots of both normalisers, NaN where one is not above the floor."""
    # The roots are taken apart: the product of two normalisers can overflow where neither of them does.
    lengths_a, lengths_b = (torch.where(own > floor, own, torch.nan).sqrt() for own in (own_a, own_b))
    return (cross / lengths_a[:, None] / lengths_b[None, :]).cpu()
