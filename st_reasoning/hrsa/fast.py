"""The estimates that need one pass over the layers on disk: column facts, correlations, minibatch CKA.

Symbols: n tokens, of which the first n_kept are no sinks; d width; L layers; M minibatches of b tokens; G blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa import measures
from st_reasoning.hrsa.measures.columns import FLOAT32_RUN
from st_reasoning.hrsa.measures.minibatch import MinibatchHSIC
from st_reasoning.hrsa.store import Store
from st_reasoning.hrsa.tokens import Tokens

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


def correlation(
    stores: tuple[Store, Store], columns: tuple[list[Columns], list[Columns]], tokens: Tokens, n: int
) -> tuple[Tensor, Tensor]:
    """Return the mean dimension-wise correlation of all layers over the first n rows, and the same without each block.

    A correlation r of columns standardised to u and v changes with row i, to first order, by (u_i v_i - r (u_i^2 +
    v_i^2) / 2) / n, its influence.

    Returns:
        [L_a, L_b] and [G, L_a, L_b], float64.

    Raises:
        InputError: for a pair in which every column is constant on one side.
    """
    every = [*columns[0], *columns[1]]
    count_a, count_b, width = len(columns[0]), len(columns[1]), stores[0].width
    varies = torch.stack([~found.constant for found in every]).double()
    used = varies[:count_a] @ varies[count_a:].T
    if (used == 0).any():
        a, b = (used == 0).nonzero()[0].tolist()
        raise InputError(f"layer {a} with layer {b}: expected a column that varies in both, got none")
    # Dividing by the length of the centred column turns a product of columns into a correlation.
    factors = [(found.factors / n**0.5).float() for found in every]
    offsets = [-(found.mean * found.factors / n**0.5).float() for found in every]
    sources = [(stores[0], layer) for layer in range(count_a)] + [(stores[1], layer) for layer in range(count_b)]
    most = max(1, _BUFFER // 2 // (4 * width * len(every)))
    by_block = torch.zeros(tokens.block_count, count_a, count_b, dtype=torch.float64)
    by_column = torch.zeros(width, count_a, count_b)
    squares = torch.zeros(tokens.block_count, len(every), width)
    buffer = torch.empty(len(every), min(n, most), width)
    for start, stop, block in runs(tokens, n, most):
        for number, (store, layer) in enumerate(sources):
            torch.addcmul(
                offsets[number], store.read(layer, start, stop), factors[number], out=buffer[number, : stop - start]
            )
        rows = buffer[:, : stop - start]
        flat = rows.flatten(start_dim=1)
        for left in range(0, flat.shape[1], FLOAT32_RUN):
            run = flat[:, left : left + FLOAT32_RUN]
            by_block[block] += (run[:count_a] @ run[count_a:].T).double()
        columnwise = rows.permute(2, 0, 1).contiguous()
        by_column += columnwise[:, :count_a] @ columnwise[:, count_a:].transpose(1, 2)
        squares[block] += columnwise.square().sum(dim=2).T
    value = by_block.sum(dim=0) / used
    shrunk = torch.einsum("jab,gaj->gab", by_column, squares[:, :count_a])
    shrunk += torch.einsum("jab,gbj->gab", by_column, squares[:, count_a:])
    influence = (by_block - shrunk.double() / 2) / used
    left = n - torch.bincount(tokens.blocks[:n], minlength=tokens.block_count).double()
    return value, value - influence * (n / left)[:, None, None]


def runs(tokens: Tokens, n: int, most: int) -> Iterator[tuple[int, int, int]]:
    """Yield start, stop and block of the first n rows, at most so many rows of one block at a time."""
    for segment in tokens.segments:
        for start in range(segment.start, min(n, segment.stop), most):
            yield start, min(n, segment.stop, start + most), segment.block


def paired_correlation(x: Tensor, y: Tensor, columns: tuple[Columns, Columns]) -> float:
    """Return the mean dimension-wise correlation of rows x [p, d] with y [p, d], columns standardised as given."""
    u, v = ((rows - side.mean.float()) * side.factors.float() for rows, side in zip((x, y), columns, strict=True))
    used = float((~columns[0].constant & ~columns[1].constant).sum())
    return float((u * v).sum(dim=0).double().sum()) / (len(x) * used)


@dataclass(frozen=True)
class CKA:
    """Linear CKA of some rows.

    Attributes:
        matrices: Values and effective ranks.
        biased_left_out: [G, L_a, L_b], what the biased value is without each block.
        debiased_left_out: Likewise.
    """

    matrices: measures.CKAMatrices
    biased_left_out: Tensor
    debiased_left_out: Tensor


@dataclass(frozen=True)
class AllCKA:
    """CKA of all tokens, of those that are no sinks, and of matched layers with standardised columns."""

    whole: CKA
    kept: CKA | None
    standardised: list[CKA]


def result(hsic: MinibatchHSIC, squares_a: Tensor, squares_b: Tensor, blocks: Tensor | None = None) -> CKA:
    """Return both estimators of CKA.

    Args:
        hsic: Sums over minibatches.
        squares_a: [L_a, n], squared lengths of the centred rows, in the scale of the Gram matrices.
        squares_b: [L_b, n].
        blocks: [n], their blocks; by default all are one block.
    """
    biased, biased_left_out, own_a, own_b = hsic.biased(squares_a, squares_b, blocks)
    debiased, debiased_left_out = hsic.debiased()
    return CKA(
        measures.CKAMatrices(
            biased=biased.clamp(0, 1),
            debiased=debiased,
            effective_rank_x=squares_a.sum(dim=1).square() / own_a,
            effective_rank_y=squares_b.sum(dim=1).square() / own_b,
        ),
        biased_left_out,
        debiased_left_out,
    )


def linear_cka(
    stores: tuple[Store, Store],
    columns: tuple[list[Columns], list[Columns]],
    kept: tuple[list[Columns], list[Columns]] | None,
    pairs: Sequence[tuple[int, int]],
    tokens: Tokens,
    batches: Tensor,
) -> AllCKA:
    """Estimate CKA from minibatches that hold one token of each sentence at most.

    Args:
        stores: The two models.
        columns: Facts of every layer over all n rows.
        kept: Over the rows that are no sinks, which come first; None if there are too few of them.
        pairs: The matched layers.
        tokens: Their blocks.
        batches: [M, b], rows of minibatches, -1 where there is none.
    """
    n, count_a, count_b, blocks = len(tokens.order), len(stores[0]), len(stores[1]), tokens.block_count
    width = batches.shape[1]
    whole, guarded = (MinibatchHSIC.zero(count_a, count_b, blocks) for _ in range(2))
    standardised = [MinibatchHSIC.zero(1, 1, blocks) for _ in pairs]
    kept_rows = len(kept[0][0].squares) if kept is not None else 0
    centres = kept if kept is not None else columns
    scales = _scales(columns, n)
    group = max(1, _BUFFER // (4 * width * width * (count_a + count_b)))
    for batch in torch.split(batches, group):
        grams = torch.empty(count_a + count_b, len(batch), width, width)
        plain = torch.empty(2, len(batch), width, width)
        present = batch >= 0
        block = tokens.blocks[batch.clamp_min(0)]
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
            standardised[number].add(plain.clone(), present, 1, block)
        for b in range(count_b):
            if b not in done:
                gram(1, b)
        whole.add(grams, present, count_a, block)
        if kept_rows and kept_rows < n:
            guarded.add(grams, present & (batch < kept_rows), count_a, block)

    every = result(whole, *_scaled(columns, scales), tokens.blocks)
    without = None if kept is None else every
    if kept is not None and kept_rows < n:
        without = result(guarded, *_scaled(kept, scales), tokens.blocks[:kept_rows])
    return AllCKA(
        every,
        without,
        [
            result(hsic, columns[0][a].standardised[None], columns[1][b].standardised[None], tokens.blocks)
            for hsic, (a, b) in zip(standardised, pairs, strict=True)
        ],
    )


def chance_cka(
    stores: tuple[Store, Store],
    columns: tuple[list[Columns], list[Columns]],
    pair: tuple[int, int],
    batches: Tensor,
    partners: Tensor,
) -> tuple[float, float]:
    """Return biased and debiased CKA of a layer's tokens with those of other sentences, see ``Tokens.partners``.

    Args:
        stores: The two models.
        columns: Facts of every layer over all n rows.
        pair: The layers.
        batches: [M, b], rows of minibatches, -1 where there is none.
        partners: [n].
    """
    n = len(partners)
    theirs = torch.where(batches >= 0, partners[batches.clamp_min(0)], -1)
    factors = [float(scale[layer]) for scale, layer in zip(_scales(columns, n), pair, strict=True)]
    grams, squares = [], []
    paired = partners >= 0
    for side, (layer, rows, of) in enumerate(((pair[0], batches, torch.arange(n)), (pair[1], theirs, partners))):
        picked = stores[side].read(layer, 0, n)[rows.clamp_min(0).flatten()]
        picked = ((picked - columns[side][layer].mean.float()) * factors[side]).view(*rows.shape, -1)
        grams.append(picked @ picked.transpose(1, 2))
        squares.append((columns[side][layer].squares * factors[side] ** 2)[of[paired]][None])
    hsic = MinibatchHSIC.zero(1, 1)
    hsic.add(torch.stack(grams), theirs >= 0, 1)
    if float(hsic.pairs) == 0:
        return math.nan, math.nan
    found = result(hsic, *squares).matrices
    return float(found.biased), float(found.debiased)


def _scales(columns: tuple[list[Columns], list[Columns]], n: int) -> list[list[float]]:
    """Return what makes a layer's mean squared length one: squares of massive activations stay in float32."""
    return [[float((n / found.squares.sum()).sqrt()) for found in side] for side in columns]


def _scaled(columns: tuple[list[Columns], list[Columns]], scales: list[list[float]]) -> list[Tensor]:
    return [
        torch.stack([found.squares * scale**2 for found, scale in zip(side, own, strict=True)])
        for side, own in zip(columns, scales, strict=True)
    ]
