"""The estimates that need one pass over the layers on disk: column facts, correlations, minibatch CKA.

Symbols: n tokens, of which the first n_kept are no sinks; d width; L layers; M minibatches of b tokens; G blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa import measures
from st_reasoning.hrsa.measures.columns import FLOAT32_RUN
from st_reasoning.hrsa.measures.minibatch import PairSums
from st_reasoning.hrsa.store import Store
from st_reasoning.hrsa.tokens import Tokens

# Bytes of Gram matrices, or of standardised rows of all layers, held at once.
_BUFFER = 160 << 20
# Rows worked on at a time: what fits in a cache is read from memory once.
_ROWS = 512
# Bytes of Gram matrices of heavy tokens: 1,024 of them in two models of 38 layers.
_HEAVY_BUFFER = 320 << 20


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
            constant &= (part == x[0]).all(dim=0)
            by_sentence.index_add_(0, numbers, centred)
        shift /= n
        mean, variance = near32.double() + shift, (square / n - shift.square()).clamp_min(0)
        variance[constant] = 0
        constant |= variance == 0
        zeros = (torch.empty(n, dtype=torch.float64) for _ in range(2))
        found = cls(mean, variance, constant, *zeros, torch.empty(2, n, dtype=torch.float64))
        mean32, factors = mean.float(), found.factors.float()
        by_sentence -= torch.bincount(sentences)[:, None] * (mean32 - near32)
        for start in range(0, n, _ROWS):
            rows = slice(start, start + _ROWS)
            part, others = x[rows] - mean32, by_sentence[sentences[rows]]
            found.squares[rows] = part.square().sum(dim=1)
            found.within[rows] = (part * others).sum(dim=1)
            part *= factors
            others *= factors
            found.standardised[0, rows] = part.square().sum(dim=1)
            found.standardised[1, rows] = (part * others).sum(dim=1)
        return found


def facts(store: Store, sentences: Tensor) -> list[Columns]:
    """Return the facts of every layer over its first rows, whose sentences [n] are given."""
    numbers = sentences.unique(return_inverse=True)[1]
    return [Columns.of(store.read(layer, 0, len(sentences)), numbers) for layer in range(len(store))]


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


def linear_cka(
    stores: tuple[Store, Store],
    columns: tuple[list[Columns], list[Columns]],
    kept: tuple[list[Columns], list[Columns]] | None,
    pairs: Sequence[tuple[int, int]],
    tokens: Tokens,
    batches: Tensor,
    *,
    seed: int,
) -> AllCKA:
    """Estimate CKA from minibatches that hold one token of each sentence at most.

    Pairs of ``tokens.heavy`` are all looked at, and their pairs with a sample of the others: a few of them may be
    most of what raw states amount to.

    Args:
        stores: The two models.
        columns: Facts of every layer over all n rows.
        kept: Over the rows that are no sinks, which come first; None if there are too few of them.
        pairs: The matched layers.
        tokens: Their sentences and blocks.
        batches: [M, b], rows of minibatches, -1 where there is none.
        seed: Of the sample.
    """
    n, count_a, count_b, blocks = len(tokens.order), len(stores[0]), len(stores[1]), tokens.block_count
    whole, guarded = (PairSums.zero(count_a, count_b, blocks) for _ in range(2))
    standardised = [PairSums.zero(1, 1, blocks) for _ in pairs]
    guard = kept is not None and tokens.kept < n
    layers = _Layers(stores, columns, kept if kept is not None else columns, _scales(columns, n))
    for tile in _tiles(tokens, batches, count_a + count_b, seed):
        grams = torch.empty(count_a + count_b, *tile.shape)
        moved = [torch.zeros(count_a + count_b, *rows.shape) for rows in (tile.rows, tile.columns)]
        plain = torch.empty(2, *tile.shape)
        done = [-1, -1]
        for number, pair in enumerate([*pairs, *_left_over(pairs, count_b)]):
            for side, layer in enumerate(pair):
                if layer not in (None, done[side]):
                    layers.gram(
                        side,
                        layer,
                        tile,
                        grams[layer + side * count_a],
                        plain[side],
                        [m[layer + side * count_a] for m in moved],
                    )
                    done[side] = layer
            if number < len(pairs):
                tile.add_to(standardised[number], plain, 1, tokens)
        if guard:
            tile.add_to(guarded, grams, count_a, tokens, below=tokens.kept)
            grams -= moved[0][..., :, None]
            grams -= moved[1][..., None, :]
        tile.add_to(whole, grams, count_a, tokens)

    share = _share(tokens, n)
    every = _result(whole, *_scaled(columns, layers.scales), share, tokens.blocks)
    without_sinks = None if kept is None else every
    if kept is not None and guard:
        share_kept = _share(tokens, tokens.kept)
        without_sinks = _result(guarded, *_scaled(kept, layers.scales), share_kept, tokens.blocks[: tokens.kept])
    return AllCKA(
        every,
        without_sinks,
        [
            _result(
                sums, *(_stacked([side[layer].standardised]) for side, layer in zip(columns, pair, strict=True)), share,
                tokens.blocks,
            )
            for sums, pair in zip(standardised, pairs, strict=True)
        ],
    )  # fmt: skip


def _left_over(pairs: Sequence[tuple[int, int]], count_b: int) -> list[tuple[None, int]]:
    """Return the layers of the second model that no layer of the first is matched with."""
    return [(None, layer) for layer in range(count_b) if layer not in {b for _, b in pairs}]


@dataclass(frozen=True)
class _Layers:
    """Makes Gram matrices of rows about one centre, and of the same rows with standardised columns."""

    stores: tuple[Store, Store]
    columns: tuple[list[Columns], list[Columns]]
    centres: tuple[list[Columns], list[Columns]]
    scales: list[list[float]]

    def gram(self, side: int, layer: int, tile: _Tile, out: Tensor, plain: Tensor, moved: Sequence[Tensor]) -> None:
        """Write the products of a tile's rows with its columns [M, r, c], also of standardised ones, and ``moved``.

        ``moved`` [M, r] and [M, c] is what K_ij = (x_i - c)(x_j - c) has more about the centre than about the mean of
        all tokens, as a sum of what either token has.
        """
        found, scale = self.columns[side][layer], self.scales[side][layer]
        centre, factors = self.centres[side][layer].mean.float() * scale, found.factors.float()
        offset = ((found.mean - self.centres[side][layer].mean) * scale).float()
        every = self.stores[side].read(layer, 0, len(found.squares))
        rows = []
        for number, places in enumerate((tile.rows, tile.columns)):
            if number and tile.square:
                moved[1].copy_(moved[0])
                rows.append(rows[0])
                continue
            picked = every[places.clamp_min(0).flatten()]
            centred = torch.addcmul(-centre, picked, torch.tensor(scale))
            moved[number].copy_((centred @ offset - offset.square().sum() / 2).view(places.shape))
            standard = torch.addcmul(-(found.mean.float() * factors), picked, factors, out=picked)
            rows.append((centred.view(*places.shape, -1), standard.view(*places.shape, -1)))
        for target, left, right in zip((out, plain), *rows, strict=True):
            torch.bmm(left, right.transpose(1, 2), out=target)


@dataclass(frozen=True)
class _Tile:
    """Pairs of tokens: of each of M lists with each of another one.

    Attributes:
        rows: [M, r], -1 where there is none.
        columns: [M, c].
        weights: [M, r, c], how many pairs each stands for; 0 for pairs of one sentence.
        square: Whether rows and columns are the same; otherwise each pair stands for its mirror image too.
    """

    rows: Tensor
    columns: Tensor
    weights: Tensor
    square: bool

    @property
    def shape(self) -> torch.Size:
        return self.weights.shape

    def add_to(self, sums: PairSums, grams: Tensor, layers_a: int, tokens: Tokens, *, below: int | None = None) -> None:
        """Add the pairs, or those of rows below a number only, to sums; grams are [L, M, r, c]."""
        for number, weights in enumerate(self.weights):
            rows, columns = self.rows[number], self.columns[number]
            if below is not None:
                weights = weights * (rows < below)[:, None] * (columns < below)[None, :]
            gram = grams[:, number]
            sums.add(gram, weights, layers_a, tokens.blocks[rows.clamp_min(0)])
            if not self.square:
                sums.add(gram.transpose(1, 2), weights.T, layers_a, tokens.blocks[columns])


def _tiles(tokens: Tokens, batches: Tensor, layers: int, seed: int) -> Iterator[_Tile]:
    """Yield the pairs to look at: of heavy tokens, of those with some of the others, and minibatches of the others."""
    n = len(tokens.order)
    most = math.isqrt(_HEAVY_BUFFER // (4 * layers))
    heavy = tokens.heavy if len(tokens.heavy) <= most else tokens.heavy[:0]
    light = torch.ones(n, dtype=torch.bool)
    light[heavy] = False
    pairs = _pairs(tokens, light, light)
    some = light[batches.clamp_min(0)] & (batches >= 0)
    met = float((some.sum(dim=1).double() * (some.sum(dim=1) - 1)).sum())
    if len(heavy) and met:
        others = light.nonzero().flatten()
        drawn = np.random.default_rng(seed).permutation(len(others))[:most]
        sample = others[torch.from_numpy(drawn[: max(len(heavy), 1)])]

        def apart(columns: Tensor) -> Tensor:
            return (tokens.sentences[heavy][:, None] != tokens.sentences[columns][None, :]).double()

        yield _Tile(heavy[None], heavy[None], apart(heavy)[None], square=True)
        yield _Tile(heavy[None], sample[None], (apart(sample) * (len(others) / len(sample)))[None], square=False)
    else:
        some, pairs = batches >= 0, _pairs(tokens, *[torch.ones(n, dtype=torch.bool)] * 2)
        met = float((some.sum(dim=1).double() * (some.sum(dim=1) - 1)).sum())
    for part, used in zip(
        *(values.split(max(1, _BUFFER // (4 * batches.shape[1] ** 2 * layers))) for values in (batches, some)),
        strict=True,
    ):
        weights = (used[:, :, None] & used[:, None, :]).double() * (pairs / max(1.0, met))
        weights.diagonal(dim1=1, dim2=2).zero_()
        yield _Tile(part, part, weights, square=True)


def _share(tokens: Tokens, n: int) -> float:
    """Return which share of all pairs of the first n rows are of different sentences."""
    first = torch.arange(len(tokens.order)) < n
    return _pairs(tokens, first, first) / (n * (n - 1))


def _pairs(tokens: Tokens, left: Tensor, right: Tensor) -> float:
    """Return how many ordered pairs of one of some rows and one of others, booleans [n], are of different sentences."""
    numbers = tokens.sentences.unique(return_inverse=True)[1]
    count = int(numbers.max()) + 1
    here, there = (torch.bincount(numbers[rows], minlength=count).double() for rows in (left, right))
    return float(here.sum() * there.sum() - here @ there)


def chance_cka(
    stores: tuple[Store, Store],
    columns: tuple[list[Columns], list[Columns]],
    pair: tuple[int, int],
    batches: Tensor,
    tokens: Tokens,
) -> tuple[float, float]:
    """Return biased and debiased CKA of a layer's tokens with those of other sentences, see ``Tokens.partners``.

    Args:
        stores: The two models.
        columns: Facts of every layer over all n rows.
        pair: The layers.
        batches: [M, b], rows of minibatches, -1 where there is none.
        tokens: With their partners.
    """
    partners, n = tokens.partners, len(tokens.order)
    theirs = torch.where(batches >= 0, partners[batches.clamp_min(0)], -1)
    paired, used = partners >= 0, theirs >= 0
    met = float((used.sum(dim=1).double() * (used.sum(dim=1) - 1)).sum())
    if not met:
        return math.nan, math.nan
    p, share = int(paired.sum()), _pairs(tokens, paired, paired)
    scales = _scales(columns, n)
    grams, rows_of = [], []
    for side, (layer, rows, of) in enumerate(((pair[0], batches, torch.arange(n)), (pair[1], theirs, partners))):
        found = columns[side][layer]
        picked = stores[side].read(layer, 0, n)[rows.clamp_min(0).flatten()]
        picked = ((picked - found.mean.float()) * scales[side][layer]).view(*rows.shape, -1)
        grams.append(picked @ picked.transpose(1, 2))
        rows_of.append(torch.stack([found.squares, found.within])[:, of[paired]] * scales[side][layer] ** 2)
    sums = PairSums.zero(1, 1)
    for one, present in enumerate(used):
        weights = (present[:, None] & present[None, :]).double().fill_diagonal_(0) * (share / met)
        sums.add(torch.stack([gram[one] for gram in grams]), weights, 1)
    found_cka = _result(sums, *(_stacked([rows]) for rows in rows_of), share / (p * (p - 1)))
    return float(found_cka.matrices.biased), float(found_cka.matrices.debiased)


def _result(
    sums: PairSums,
    rows_a: tuple[Tensor, Tensor],
    rows_b: tuple[Tensor, Tensor],
    share: float,
    blocks: Tensor | None = None,
) -> CKA:
    """Return both estimators of CKA.

    Args:
        sums: Over pairs.
        rows_a: Squared lengths, and products with the sum of the sentence, of centred rows, [L_a, n] each.
        rows_b: Likewise [L_b, n].
        share: Of all pairs, those of different sentences.
        blocks: [n], their blocks; by default all are one block.
    """
    biased, biased_left_out, own_a, own_b = sums.biased(rows_a[0], rows_b[0], blocks, share=share)
    debiased, debiased_left_out = sums.debiased(rows_a[1], rows_b[1], blocks)
    return CKA(
        measures.CKAMatrices(
            biased=biased.clamp(0, 1),
            debiased=debiased,
            effective_rank_x=rows_a[0].sum(dim=1).square() / own_a,
            effective_rank_y=rows_b[0].sum(dim=1).square() / own_b,
        ),
        biased_left_out,
        debiased_left_out,
    )


def _scales(columns: tuple[list[Columns], list[Columns]], n: int) -> list[list[float]]:
    """Return what makes a layer's mean squared length one: squares of massive activations stay in float32."""
    return [[float((n / found.squares.sum()).sqrt()) for found in side] for side in columns]


def _scaled(
    columns: tuple[list[Columns], list[Columns]], scales: list[list[float]]
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return squared lengths and products within sentences, in the scale of the Gram matrices."""
    first, second = (
        _stacked([
            torch.stack([found.squares, found.within]) * scale**2 for found, scale in zip(side, own, strict=True)
        ])
        for side, own in zip(columns, scales, strict=True)
    )  # fmt: skip
    return first, second


def _stacked(layers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return two tensors [L, n] for L tensors [2, n]."""
    both = torch.stack(list(layers), dim=1)
    return both[0], both[1]
