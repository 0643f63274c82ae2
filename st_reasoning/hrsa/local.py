"""The local geometry of matched layers: shared neighbours, with and without those that say little.

Symbols: n tokens, q queries among them, k neighbours, G blocks of sentences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from st_reasoning.hrsa.facts import Columns
from st_reasoning.hrsa.measures import neighbours as knn
from st_reasoning.hrsa.measures.sampling import spread
from st_reasoning.hrsa.settings import Settings
from st_reasoning.hrsa.store import Store
from st_reasoning.hrsa.tokens import Tokens

# Most lists without the query's own type follow from one that is this much longer; a longer spare costs more than it
# saves (measured: 0.66 s instead of 0.68 s with 64 for 2,048 queries).
_SPARE = 16
# Queries that tell how much two layers share by chance, and of the search in standardised columns, by one of "fast".
_CHANCE_QUERIES = 128
_STANDARDISED_SHARE = 8


@dataclass(frozen=True)
class Overlap:
    """Mean Jaccard index of neighbours.

    Attributes:
        value: By k; NaN where no query has enough neighbours.
        left_out: [G] by k, what the value is without each block.
        chance: By k, of some tokens with those of other sentences, see ``Tokens.partners``; NaN where there are none.
    """

    value: dict[int, float]
    left_out: dict[int, Tensor]
    chance: dict[int, float]


@dataclass(frozen=True)
class Local:
    """What the neighbours of a pair of layers show.

    Attributes:
        every: Of all tokens.
        other_types: Neighbours of the query's own type left out.
        without_sinks: Sinks are neither queries nor neighbours; None if too few tokens are none.
        standardised: Of columns with mean 0 and variance 1.
        hubness: Of either layer: skewness of how often a token is a neighbour (Radovanovic et al. 2010).
        same_type_share: Of either layer: share of neighbours of the query's own type.
    """

    every: Overlap
    other_types: Overlap
    without_sinks: Overlap | None
    standardised: Overlap
    hubness: tuple[float, float]
    same_type_share: tuple[float, float]


class Neighbours:
    """Finds the neighbours in layers, and what two layers share of them."""

    def __init__(
        self,
        stores: tuple[Store, Store],
        columns: tuple[list[Columns], list[Columns]],
        tokens: Tokens,
        settings: Settings,
    ) -> None:
        self.stores, self.columns, self.tokens, self.settings = stores, columns, tokens, settings
        n = len(tokens.order)
        self.sizes = settings.k
        self.length = min(n - 1, self.sizes[-1] + 1)
        exact = settings.estimator == "exact"
        self.queries = torch.arange(n) if exact else draw(tokens, settings.queries, settings.seed)
        few = settings.queries if exact else max(1, settings.queries // _STANDARDISED_SHARE)
        self.standardised_queries = draw(tokens, few, settings.seed)
        self.questions = _Questions.of(self.queries, tokens.partners)
        self.standardised_questions = _Questions.of(self.standardised_queries, tokens.partners)
        sinks = torch.arange(n) >= tokens.kept
        self.sinks = sinks if tokens.usable and tokens.kept < n and self.sizes[-1] < tokens.kept - 1 else None
        self.without = [knn.Excluded(types=tokens.types)]
        if self.sinks is not None:
            self.without.append(knn.Excluded(rows=self.sinks))

    @property
    def searched_without_sinks(self) -> bool:
        """Whether overlaps without sinks are known: there are none, or enough other tokens."""
        return self.sinks is not None or self.tokens.kept == len(self.tokens.order)

    def overlap(self, x: Found, y: Found) -> Local:
        """Return what the neighbours in a layer of the first and of the second model show."""
        n, kept = len(self.tokens.order), self.tokens.kept
        every = self._overlap(x.every, y.every, self.questions)
        without_sinks = every if kept == n else None
        if x.without_sinks is not None and y.without_sinks is not None:
            without_sinks = self._overlap(x.without_sinks, y.without_sinks, self.questions, rows=kept)
        middle = self.sizes[len(self.sizes) // 2]
        near_x, near_y = x.every.near[:, :middle], y.every.near[:, :middle]
        return Local(
            every=every,
            other_types=self._overlap(x.other_types, y.other_types, self.questions),
            without_sinks=without_sinks,
            standardised=self._overlap(x.standardised, y.standardised, self.standardised_questions),
            hubness=(hubness(near_x, n), hubness(near_y, n)),
            same_type_share=(self._same_type(near_x), self._same_type(near_y)),
        )

    def search(self, side: int, layer: int) -> Found:
        """Return the neighbours in a layer of the first (0) or second (1) model."""
        x = self.stores[side].read(layer, 0, len(self.tokens.order))
        units = knn.unit_rows(x, f"layer {layer} of model {'ab'[side]}", out=x)

        def near(units: Tensor, questions: _Questions, without: list[knn.Excluded]) -> list[_Near]:
            spare = min(_SPARE, len(units) - 1 - self.length) if without else 0
            rows = torch.cat([questions.queries, questions.extra]) if side == 1 else questions.queries
            found = knn.neighbours(units, rows, self.length, without=without, spare=spare)
            of_partners = questions.places if side == 1 else questions.places[:0]
            return [_Near(lists[: len(questions.queries)], lists[of_partners]) for lists in found]

        every, other_types, *without_sinks = near(units, self.questions, self.without)
        del x, units  # read again, so that memory holds the layer once
        x, found = self.stores[side].read(layer, 0, len(self.tokens.order)), self.columns[side][layer]
        x.sub_(found.mean.float()).mul_(found.factors.float())
        lengths = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        x.div_(lengths.clamp_min(torch.finfo(torch.float32).tiny))
        (standardised,) = near(x, self.standardised_questions, [])
        return Found(every, other_types, standardised, *without_sinks)

    def _overlap(self, x: _Near, y: _Near, questions: _Questions, *, rows: int | None = None) -> Overlap:
        """Return the overlap of two lists, of queries below ``rows`` alone and with such partners, if that is given."""
        partners, near_x, near_y = self.tokens.partners, x.near, y.near
        queries, asked = questions.queries, questions.asked
        theirs, of_partners = near_x[asked], y.of_partners
        if rows is not None:
            below, both = queries < rows, (queries[asked] < rows) & (partners[queries[asked]] < rows)
            queries, near_x, near_y = queries[below], near_x[below], near_y[below]
            theirs, of_partners = theirs[both], of_partners[both]
        values, left_out, chance = {}, {}, {}
        shared = knn.Shared.of(near_x, near_y, len(partners))
        for size in self.sizes:
            values[size], left_out[size] = mean_overlap(
                shared, size, queries, self.tokens.blocks, self.tokens.block_count
            )
            chance[size] = chance_overlap(theirs, of_partners, size, partners)
        return Overlap(values, left_out, chance)

    def _same_type(self, near: Tensor) -> float:
        types = self.tokens.types
        return float((types[near] == types[self.queries][:, None]).double().mean())


@dataclass(frozen=True)
class _Questions:
    """Rows whose neighbours are looked for, and which of them tell what chance gives.

    Those must have a partner: their neighbours are known in the first model, those of their partners are asked of the
    second. Where enough partners are queries themselves, nothing more is asked.

    Attributes:
        queries: [q], rows, ascending.
        asked: [p], places among the queries.
        extra: Rows of partners that are no queries, asked of the second model beside the queries.
        places: [p], where the partner of each of ``asked`` is in the queries followed by ``extra``.
    """

    queries: Tensor
    asked: Tensor
    extra: Tensor
    places: Tensor

    @classmethod
    def of(cls, queries: Tensor, partners: Tensor) -> _Questions:
        """Choose among queries [q], ascending, by the partners [n] of all rows."""
        theirs = partners[queries]
        paired, inside = theirs >= 0, torch.isin(theirs, queries)
        enough = int(inside.sum()) >= min(_CHANCE_QUERIES, int(paired.sum()))
        asked = (inside if enough else paired).nonzero().flatten()
        asked = asked[spread(len(asked), _CHANCE_QUERIES)]
        if enough:
            return cls(queries, asked, queries[:0], torch.searchsorted(queries, theirs[asked]))
        return cls(queries, asked, theirs[asked], len(queries) + torch.arange(len(asked)))


@dataclass(frozen=True)
class _Near:
    """Neighbours [q, k + 1] of queries, and of the partners of some of them, which only the second model is asked."""

    near: Tensor
    of_partners: Tensor


@dataclass(frozen=True)
class Found:
    """Neighbours in one layer; of fewer queries in standardised columns."""

    every: _Near
    other_types: _Near
    standardised: _Near
    without_sinks: _Near | None = None


def mean_overlap(shared: knn.Shared, size: int, queries: Tensor, blocks: Tensor, count: int) -> tuple[float, Tensor]:
    """Return the mean Jaccard index of neighbours and what it is without each block, [G], to first order.

    A block that is left out takes its queries along, and its tokens from among the candidates of all others.

    Args:
        shared: Lists of k + 1 or more.
        size: k.
        queries: [q], rows.
        blocks: [n], of each row.
        count: G.
    """
    index = shared.jaccard(size)
    known = ~index.isnan()
    if not known.any():
        return math.nan, torch.full((count,), torch.nan, dtype=torch.float64)
    of_query = blocks[queries]
    lost = torch.zeros(count, dtype=torch.float64)
    if shared.x.shape[1] > size:
        for near, change in zip((shared.x, shared.y), shared.changes(size), strict=True):
            block = blocks[near[:, :size].clamp_min(0)]
            # Of a query that is left out too nothing changes.
            change = torch.where(block == of_query[:, None], 0.0, change)
            lost.index_add_(0, block.flatten(), change.flatten())
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, of_query[known], index[known])
    left = int(known.sum()) - torch.bincount(of_query[known], minlength=count)
    return float(index[known].mean()), (sums.sum() - sums + lost) / left


def hubness(near: Tensor, n: int) -> float:
    """Return the skewness of how often each of n tokens is among the neighbours of the queries.

    Radovanovic, Nanopoulos and Ivanovic (2010). Neighbours that are dealt out at random give 1 / sqrt(q k / n).

    Args:
        near: [q, k], rows, -1 for none.
        n: Tokens.
    """
    counts = np.bincount(near[near >= 0].numpy(), minlength=n)
    return float(scipy.stats.skew(counts)) if counts.var() > 0 else 0.0


def draw(tokens: Tokens, count: int, seed: int) -> Tensor:
    """Return rows to look for neighbours of: all, or every so many-th in the order of token types.

    Tokens of one type at one place of their texts have overlaps more alike than others: taking all in proportion
    halves the error of the mean (measured: 0.0028 instead of 0.0045 for 2,048 of 14,046 tokens, k = 5).
    """
    n = len(tokens.order)
    if n <= count:
        return torch.arange(n)
    generator = np.random.default_rng(seed)
    order = np.lexsort((generator.random(n), tokens.places.numpy(), tokens.types.numpy()))
    places = (np.arange(count) + generator.random()) * (n / count)
    return torch.from_numpy(np.sort(order[places.astype(int)]))


def chance_overlap(near_x: Tensor, of_partners: Tensor, size: int, partners: Tensor) -> float:
    """Return the mean Jaccard index of the partners of neighbours in x and the neighbours of partners in y.

    NaN where no query has enough neighbours in both.

    Args:
        near_x: [q, size or more], rows, -1 for none.
        of_partners: Likewise.
        size: Number of neighbours.
        partners: [n], row of each row's partner, -1 for none.
    """
    first, second = near_x[:, :size], of_partners[:, :size]
    full = (first >= 0).all(dim=1) & (second >= 0).all(dim=1)
    if not full.any():
        return math.nan
    first, second = partners[first[full]], second[full]
    shared = (first[:, :, None] == second[:, None, :]).any(dim=1).sum(dim=1).double()
    return float((shared / (2 * size - shared)).mean())
