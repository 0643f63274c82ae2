"""The estimates that need one pass over the layers on disk: column facts, correlations, minibatch CKA.

Symbols: n tokens, of which the first n_kept are no sinks; d width; L layers; M minibatches of b tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa import measures
from st_reasoning.hrsa.measures.columns import FLOAT32_RUN
from st_reasoning.hrsa.measures.minibatch import MinibatchHSIC, draw_minibatches
from st_reasoning.hrsa.store import Store

# Bytes of Gram matrices, or of standardised rows of all layers, held at once.
_BUFFER = 160 << 20
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
        standardised: [n], float64: of the rows with every column at mean 0 and variance 1.
    """

    mean: Tensor
    variance: Tensor
    constant: Tensor
    squares: Tensor
    standardised: Tensor

    @property
    def factors(self) -> Tensor:
        """What makes the columns' variance 1, [d], 0 for constant columns."""
        return torch.where(self.constant, 0.0, self.variance.rsqrt())

    @property
    def top_share(self) -> float:
        """The share of all variance in the most varying column; 0 without variance."""
        total = float(self.variance.sum())
        return float(self.variance.max()) / total if total > 0 else 0.0

    @classmethod
    def of(cls, x: Tensor) -> Columns:
        """Return the facts of x [n, d], float32.

        Sums run over blocks in float32, about a first mean, and over the blocks in float64.
        """
        n = x.shape[0]
        near = torch.stack([part.sum(dim=0).double() for part in torch.split(x, _ROWS)]).sum(dim=0) / n
        near32 = near.float()
        shift, square = torch.zeros_like(near), torch.zeros_like(near)
        constant = torch.ones(x.shape[1], dtype=torch.bool)
        for part in torch.split(x, _ROWS):
            centred = part - near32
            shift += centred.sum(dim=0)
            square += centred.square().sum(dim=0)
            constant &= (part == x[0]).all(dim=0)
        shift /= n
        mean, variance = near32.double() + shift, (square / n - shift.square()).clamp_min(0)
        variance[constant] = 0
        constant |= variance == 0
        found = cls(mean, variance, constant, *(torch.empty(n, dtype=torch.float64) for _ in range(2)))
        mean32, factors = mean.float(), found.factors.float()
        for start in range(0, n, _ROWS):
            part = x[start : start + _ROWS] - mean32
            found.squares[start : start + _ROWS] = part.square().sum(dim=1)
            found.standardised[start : start + _ROWS] = part.mul_(factors).square_().sum(dim=1)
        return found


def facts(store: Store, layers: Sequence[int], n: int) -> list[Columns]:
    """Return the facts of the first n rows of some layers."""
    return [Columns.of(store.read(layer, 0, n)) for layer in layers]


def correlation(stores: tuple[Store, Store], columns: tuple[list[Columns], list[Columns]], n: int) -> Tensor:
    """Return the mean dimension-wise correlation of all layers [L_a, L_b] over the first n rows.

    Raises:
        InputError: for a pair in which every column is constant on one side.
    """
    every = [*columns[0], *columns[1]]
    count_a = len(columns[0])
    varies = torch.stack([~found.constant for found in every]).double()
    used = varies[:count_a] @ varies[count_a:].T
    if (used == 0).any():
        a, b = (used == 0).nonzero()[0].tolist()
        raise InputError(f"layer {a} with layer {b}: expected a column that varies in both, got none")
    # Dividing by the length of the centred column turns a product of columns into a correlation.
    factors = [(found.factors / n**0.5).float() for found in every]
    offsets = [-(found.mean * found.factors / n**0.5).float() for found in every]
    sources = [(stores[0], layer) for layer in range(count_a)] + [(stores[1], layer) for layer in range(len(stores[1]))]
    rows = max(1, _BUFFER // 2 // (4 * stores[0].width * len(every)))
    total = torch.zeros(count_a, len(stores[1]), dtype=torch.float64)
    buffer = torch.empty(len(every), rows, stores[0].width)
    for start in range(0, n, rows):
        stop = min(n, start + rows)
        for number, (store, layer) in enumerate(sources):
            block = store.read(layer, start, stop)
            torch.addcmul(offsets[number], block, factors[number], out=buffer[number, : stop - start])
        flat = buffer[:, : stop - start].flatten(start_dim=1)
        for left in range(0, flat.shape[1], FLOAT32_RUN):
            run = flat[:, left : left + FLOAT32_RUN]
            total += (run[:count_a] @ run[count_a:].T).double()
    return total / used


@dataclass(frozen=True)
class AllCKA:
    """Minibatch CKA of all tokens, of those that are no sinks, and of matched layers with standardised columns."""

    whole: measures.CKAMatrices
    kept: measures.CKAMatrices | None
    standardised: list[measures.CKAMatrices]


def linear_cka(
    stores: tuple[Store, Store],
    columns: tuple[list[Columns], list[Columns]],
    kept: tuple[list[Columns], list[Columns]] | None,
    pairs: Sequence[tuple[int, int]],
    sentences: Tensor,
    *,
    size: int,
    seed: int,
) -> AllCKA:
    """Estimate CKA from minibatches that hold one token of each sentence at most.

    Args:
        stores: The two models.
        columns: Facts of every layer over all n rows.
        kept: Over the rows that are no sinks, which come first; None if there are too few of them.
        pairs: The matched layers.
        sentences: [n].
        size: Tokens of a minibatch.
        seed: Of the minibatches.
    """
    n, count_a, count_b = len(sentences), len(stores[0]), len(stores[1])
    batches = draw_minibatches(sentences, size=size, seed=seed)
    width = batches.shape[1]
    whole, guarded = MinibatchHSIC.zero(count_a, count_b), MinibatchHSIC.zero(count_a, count_b)
    standardised = [MinibatchHSIC.zero(1, 1) for _ in pairs]
    kept_rows = len(kept[0][0].squares) if kept is not None else 0
    centres = kept if kept is not None else columns
    # A mean squared length of one keeps the squares of a massive activation within float32.
    scales = [[float((n / found.squares.sum()).sqrt()) for found in side] for side in columns]
    group = max(1, _BUFFER // (4 * width * width * (count_a + count_b)))
    for batch in torch.split(batches, group):
        grams = torch.empty(count_a + count_b, len(batch), width, width)
        plain = torch.empty(2, len(batch), width, width)
        present = batch >= 0
        done: set[int] = set()

        def gram(side: int, layer: int, *, batch: Tensor = batch, grams: Tensor = grams, plain: Tensor = plain) -> None:
            found, centre = columns[side][layer], centres[side][layer]
            picked = stores[side].read(layer, 0, n)[batch.clamp_min(0).flatten()]
            rows = (picked - centre.mean.float()) * scales[side][layer]
            rows = rows.view(*batch.shape, -1)
            torch.bmm(rows, rows.transpose(1, 2), out=grams[layer + side * count_a])
            rows = torch.addcmul(-(found.mean * found.factors).float(), picked, found.factors.float(), out=picked)
            rows = rows.view(*batch.shape, -1)
            torch.bmm(rows, rows.transpose(1, 2), out=plain[side])

        last = -1
        for number, (a, b) in enumerate(pairs):
            gram(0, a)
            if b != last:
                gram(1, b)
                done.add(b)
            last = b
            standardised[number].add(plain.clone(), present, 1)
        for b in range(count_b):
            if b not in done:
                gram(1, b)
        whole.add(grams, present, count_a)
        if kept_rows and kept_rows < n:
            guarded.add(grams, present & (batch < kept_rows), count_a)

    def result(hsic: MinibatchHSIC, squares_a: Tensor, squares_b: Tensor) -> measures.CKAMatrices:
        biased, own_a, own_b = hsic.biased(squares_a, squares_b)
        return measures.CKAMatrices(
            biased=biased.clamp(0, 1),
            debiased=hsic.debiased(),
            effective_rank_x=squares_a.sum(dim=1).square() / own_a,
            effective_rank_y=squares_b.sum(dim=1).square() / own_b,
        )

    def scaled(found: tuple[list[Columns], list[Columns]]) -> list[Tensor]:
        return [
            torch.stack([entry.squares * scale**2 for entry, scale in zip(side, own, strict=True)])
            for side, own in zip(found, scales, strict=True)
        ]

    every = result(whole, *scaled(columns))
    without = None if kept is None else every if kept_rows == n else result(guarded, *scaled(kept))
    return AllCKA(
        every,
        without,
        [
            result(hsic, columns[0][a].standardised[None], columns[1][b].standardised[None])
            for hsic, (a, b) in zip(standardised, pairs, strict=True)
        ],
    )
