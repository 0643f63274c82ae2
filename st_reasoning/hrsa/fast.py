"""Estimates of CKA from a sample of the pairs of tokens, for all pairs of layers.

Symbols: n tokens, of which the first n_kept are no sinks; d width; L layers; M minibatches of b tokens; G blocks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from st_reasoning.hrsa import measures
from st_reasoning.hrsa.cores import Cores, each
from st_reasoning.hrsa.facts import Columns
from st_reasoning.hrsa.measures.columns import empty, products
from st_reasoning.hrsa.measures.minibatch import PairSums
from st_reasoning.hrsa.pairs import Longest, Tile, apart, pairs_apart, pairs_met, tiles, within
from st_reasoning.hrsa.store import Store
from st_reasoning.hrsa.tokens import Tokens


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
    cores: Cores,
    *,
    seed: int,
) -> AllCKA:
    """Estimate CKA from minibatches that hold one token of each sentence at most.

    Pairs of ``tokens.heavy`` are all looked at, and their pairs with a sample of the others: a few of them may be
    most of what raw states amount to. In standardised columns it is the tokens that are longest there, see
    :class:`~.pairs.Longest`.

    Args:
        stores: The two models.
        columns: Facts of every layer over all n rows.
        kept: Over the rows that are no sinks, which come first; None if there are too few of them.
        pairs: The matched layers.
        tokens: Their sentences and blocks.
        batches: [M, b], rows of minibatches, -1 where there is none.
        cores: Where to work.
        seed: Of the sample.
    """
    n, count_a, count_b, blocks = len(tokens.order), len(stores[0]), len(stores[1]), tokens.block_count
    whole, guarded = (PairSums.zero(count_a, count_b, blocks) for _ in range(2))
    guard = kept is not None and tokens.kept < n
    layers = _Layers(stores, columns, kept if kept is not None else columns)
    standardised = [*cores.map(partial(_Standardised.of, layers, tokens, batches), pairs)]
    numbered = [*enumerate(pairs), *((None, pair) for pair in _left_over(pairs, count_b))]
    runs = by_second(numbered)
    buffer = empty(0)
    for tile in tiles(tokens, batches, count_a + count_b, seed):
        size = (count_a + count_b) * tile.weights.numel()
        if len(buffer) < size:
            del buffer  # before a larger one is made
            buffer = empty(size)
        grams = buffer[:size].view(-1, *tile.shape)
        moved = [torch.zeros(count_a + count_b, *rows.shape) for rows in (tile.rows, tile.columns)]
        each(cores.map(partial(_fill, layers, tile, grams, moved, standardised, tokens), runs))
        if guard:
            tile.add_to(guarded, grams, count_a, tokens, below=tokens.kept, over=cores.map)
            each(cores.map(partial(_recentre, grams, moved), range(len(grams))))
        tile.add_to(whole, grams, count_a, tokens, over=cores.map)
        del grams  # or it would hold the buffer while a larger one is made

    share = _share(tokens, n)
    every = _result(whole, _scaled(columns, columns), share, tokens.blocks)
    without_sinks = None if kept is None else every
    if kept is not None and guard:
        share_kept = _share(tokens, tokens.kept)
        without_sinks = _result(guarded, _scaled(kept, columns), share_kept, tokens.blocks[: tokens.kept])
    return AllCKA(
        every,
        without_sinks,
        [
            _result(
                found.sums,
                [_stacked([side[layer].standardised]) for side, layer in zip(columns, pair, strict=True)],
                share,
                tokens.blocks,
            )
            for found, pair in zip(standardised, pairs, strict=True)
        ],
    )


# Numbers of matched layers, None for a layer of the second model that none of the first is matched with, and layers.
_Run = Sequence[tuple[int | None, tuple[int | None, int]]]
_Match = TypeVar("_Match", bound=tuple[int | None, tuple[int | None, int]])


def by_second(matched: Iterable[_Match]) -> list[list[_Match]]:
    """Return numbers and pairs of layers, together those that follow each other with one layer of the second model.

    What is found of that layer is then found once.
    """
    return [[*run] for _, run in itertools.groupby(matched, key=lambda entry: entry[1][1])]


def _fill(
    layers: _Layers,
    tile: Tile,
    grams: Tensor,
    moved: Sequence[Tensor],
    standardised: Sequence[_Standardised],
    tokens: Tokens,
    run: _Run,
) -> None:
    """Write the Gram matrices of some layers to ``grams`` [L, M, r, c], and add up those with standardised columns."""
    count_a = len(layers.stores[0])
    plain = None if tile.within is None else empty(2, *tile.shape)
    made = [-1, -1]
    for number, pair in run:
        for side, layer in enumerate(pair):
            if layer is not None and layer != made[side]:
                place = layer + side * count_a
                targets = [grams[place]] if plain is None else [grams[place], plain[side]]
                layers.gram(side, layer, tile, targets, [offsets[place] for offsets in moved])
                made[side] = layer
        if number is not None and plain is not None:
            found = standardised[number]
            tile.add_to(found.sums, plain, 1, tokens, weights=found.longest.others(tile))


def _recentre(grams: Tensor, moved: Sequence[Tensor], layer: int) -> None:
    """Move the Gram matrices of a layer from the mean of the tokens that are no sinks to that of all."""
    grams[layer].sub_(moved[0][layer, ..., :, None]).sub_(moved[1][layer, ..., None, :])


def _left_over(pairs: Sequence[tuple[int, int]], count_b: int) -> list[tuple[None, int]]:
    """Return the layers of the second model that no layer of the first is matched with."""
    return [(None, layer) for layer in range(count_b) if layer not in {b for _, b in pairs}]


@dataclass(frozen=True)
class _Layers:
    """Makes Gram matrices of rows about one centre, and of the same rows with standardised columns."""

    stores: tuple[Store, Store]
    columns: tuple[list[Columns], list[Columns]]
    centres: tuple[list[Columns], list[Columns]]

    def gram(self, side: int, layer: int, tile: Tile, out: Sequence[Tensor], moved: Sequence[Tensor]) -> None:
        """Write the products of a tile's rows with its columns, and ``moved``.

        ``out`` is [M, r, c], and another one where those of standardised columns are wanted too. ``moved`` [M, r] and
        [M, c] is what K_ij = (x_i - c)(x_j - c) has more about the centre than about the mean of all tokens, as a sum
        of what either token has.
        """
        found = self.columns[side][layer]
        scale = found.scale
        centre = self.centres[side][layer].mean
        offset = ((found.mean - centre) * scale).float()
        rows: list[list[Tensor]] = []
        for number, places in enumerate((tile.rows, tile.columns)):
            if number and tile.square:
                moved[1].copy_(moved[0])
                rows.append(rows[0])
                continue
            picked = self.stores[side].pick(layer, places.clamp_min(0).flatten())
            centred = torch.sub(picked, centre.float(), out=empty(*picked.shape)).mul_(scale)
            moved[number].copy_((centred @ offset - offset.square().sum() / 2).view(places.shape))
            kinds = [centred]
            if len(out) > 1:
                kinds.append(_standardise(picked, found))
            rows.append([kind.view(*places.shape, -1) for kind in kinds])
        for target, left, right in zip(out, *rows, strict=True):
            products(left, right, out=target)


def _share(tokens: Tokens, n: int) -> float:
    """Return which share of all pairs of the first n rows are of different sentences."""
    first = torch.arange(len(tokens.order)) < n
    return pairs_apart(tokens, first, first) / (n * (n - 1))


@dataclass(frozen=True)
class _Standardised:
    """Sums over pairs of tokens in the standardised columns of a pair of layers.

    Attributes:
        longest: Tokens all pairs of which are in ``sums`` from the start.
        sums: Over pairs.
    """

    longest: Longest
    sums: PairSums

    @classmethod
    def of(cls, layers: _Layers, tokens: Tokens, batches: Tensor, pair: tuple[int, int]) -> _Standardised:
        """Add the pairs of the longest tokens."""
        columns = layers.columns[0][pair[0]], layers.columns[1][pair[1]]
        longest = Longest.of(columns, tokens, batches)
        grams = torch.empty(2, len(longest.rows), len(longest.rows))
        for store, layer, found, gram in zip(layers.stores, pair, columns, grams, strict=True):
            rows = _standardise(store.pick(layer, longest.rows), found)
            products(rows, rows, out=gram)
        sums = PairSums.zero(1, 1, tokens.block_count)
        sums.add(grams, apart(tokens, longest.rows, longest.rows), 1, tokens.blocks[longest.rows])
        return cls(longest, sums)


def _standardise(rows: Tensor, columns: Columns) -> Tensor:
    """Bring columns to mean 0 and variance 1, in place."""
    return rows.sub_(columns.mean.float()).mul_(columns.factors.float())


def chance_cka(
    stores: tuple[Store, Store],
    pair: tuple[int, int],
    columns: tuple[Columns, Columns],
    batches: Tensor,
    tokens: Tokens,
    *,
    standardised: bool = False,
) -> tuple[float, float]:
    """Return biased and debiased CKA of a layer's tokens with those of other sentences, see ``Tokens.partners``.

    Args:
        stores: The two models.
        pair: The layers.
        columns: Facts of the layers over all n rows.
        batches: [M, b], rows of minibatches, -1 where there is none.
        tokens: With their partners.
        standardised: Whether of columns with variance 1.
    """
    partners, n = tokens.partners, len(tokens.order)
    theirs = torch.where(batches >= 0, partners[batches.clamp_min(0)], -1)
    paired, used = partners >= 0, theirs >= 0
    met = pairs_met(used)
    if not met:
        return math.nan, math.nan
    p, share = int(paired.sum()), pairs_apart(tokens, paired, paired)
    grams, rows_of = [], []
    sides = zip(stores, pair, columns, (batches, theirs), (torch.arange(n), partners), strict=True)
    for store, layer, found, rows, of in sides:
        factors = found.factors.float() if standardised else found.scale
        picked = store.pick(layer, rows.clamp_min(0).flatten()).sub_(found.mean.float()).mul_(factors)
        picked = picked.view(*rows.shape, -1)
        grams.append(products(picked, picked, out=torch.empty(*rows.shape, rows.shape[1])))
        centred = torch.stack([found.squares, found.within]) * found.scale**2
        rows_of.append((found.standardised if standardised else centred)[:, of[paired]])
    sums = PairSums.zero(1, 1)
    sums.add(torch.stack(grams).flatten(1, 2), (within(used) * (share / met)).flatten(0, 1), 1)
    found_cka = _result(sums, [_stacked([rows]) for rows in rows_of], share / (p * (p - 1)))
    return float(found_cka.matrices.biased), float(found_cka.matrices.debiased)


def _result(sums: PairSums, rows: Sequence[tuple[Tensor, Tensor]], share: float, blocks: Tensor | None = None) -> CKA:
    """Return both estimators of CKA.

    Args:
        sums: Over pairs.
        rows: Of either model, squared lengths and products with the sum of the sentence, of centred rows, [L, n] each.
        share: Of all pairs, those of different sentences.
        blocks: [n], their blocks; by default all are one block.
    """
    (squares_a, within_a), (squares_b, within_b) = rows
    biased, biased_left_out, own_a, own_b = sums.biased(squares_a, squares_b, blocks, share=share)
    debiased, debiased_left_out = sums.debiased(within_a, within_b, blocks)
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


def _scaled(
    columns: tuple[list[Columns], list[Columns]], scales: tuple[list[Columns], list[Columns]]
) -> list[tuple[Tensor, Tensor]]:
    """Return squared lengths and products within sentences of either model, in the scale of the Gram matrices."""
    return [
        _stacked([torch.stack([one.squares, one.within]) * of.scale**2 for one, of in zip(side, own, strict=True)])
        for side, own in zip(columns, scales, strict=True)
    ]


def _stacked(layers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return two tensors [L, n] for L tensors [2, n]."""
    both = torch.stack(list(layers), dim=1)
    return both[0], both[1]
