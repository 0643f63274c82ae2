"""Which row is which token, and which rows a value leaves out: everything in one order, so that parts are slices.

Symbols: n tokens looked at, L layers, G blocks of whole sentences.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa.measures.procrustes import split
from st_reasoning.hrsa.settings import Settings
from st_reasoning.stats.jackknife import blocks

# Debiased CKA and a split into fitted and held-out rows need this many.
FEWEST = 4
# Bytes of Gram matrices of the heavy tokens of all layers: 1,024 of them in two models of 31.
_HEAVY_BYTES = 248 << 20


@dataclass(frozen=True)
class Segment:
    """Rows that follow each other and are treated alike.

    Attributes:
        start: First row.
        stop: Behind the last one.
        sink: Whether they are sinks at some layer of either model.
        block: Number of their block.
        held_out: Whether Procrustes is scored on them instead of fitted.
    """

    start: int
    stop: int
    sink: bool
    block: int
    held_out: bool


@dataclass(frozen=True)
class Tokens:
    """The tokens looked at, in the order of their rows: no sinks first, then by block, fitted before held out.

    Attributes:
        order: [n], the slots the rows come from.
        sentences: [n], int64.
        places: [n], int64: where in its text a token stands.
        types: [n], int64.
        blocks: [n], int64: the block of whole sentences that the jackknife leaves out together.
        block_count: G.
        sinks: [L_a, n] and [L_b, n], whether a token is a sink at a layer.
        kept: Tokens that are a sink at no layer of either model; they come first.
        segments: All rows, cut where anything changes.
        heavy: [h], ascending: the longest rows of some layer. Few pairs of them may be most of what it amounts to.
        partners: [n], int64: row of the token at the same place of another sentence, -1 where it has none. No sentence
            is its own partner, none is the partner of two.
    """

    order: Tensor
    sentences: Tensor
    places: Tensor
    types: Tensor
    blocks: Tensor
    block_count: int
    sinks: tuple[Tensor, Tensor]
    kept: int
    segments: tuple[Segment, ...]
    heavy: Tensor
    partners: Tensor

    @property
    def usable(self) -> bool:
        """Whether those that are no sinks are enough for every measure."""
        kept = [segment for segment in self.segments if not segment.sink]
        held_out = sum(segment.stop - segment.start for segment in kept if segment.held_out)
        return self.kept >= FEWEST and held_out >= 1 and self.kept - held_out >= 2

    def weights(self) -> Tensor:
        """Return how many tokens each block has, [G], float64."""
        return torch.bincount(self.blocks, minlength=self.block_count).double()

    def without_sinks(self) -> Tokens:
        """Return the same tokens, of which only those that are no sinks have partners, and none that is one."""
        rows = torch.arange(len(self.partners))
        return replace(self, partners=torch.where((rows < self.kept) & (self.partners < self.kept), self.partners, -1))

    @classmethod
    def arrange(
        cls, sentences: Tensor, places: Tensor, types: Tensor, norms: tuple[Tensor, Tensor], settings: Settings
    ) -> Tokens:
        """Order tokens by what they are used for, then by text and place.

        Args:
            sentences: [n], by slot, like all that follow.
            places: [n], where in its text a token stands.
            types: [n].
            norms: [L_a, n] and [L_b, n], lengths of the rows.
            settings: Of the panel.

        Raises:
            InputError: for too few tokens or texts.
        """
        n = len(types)
        if n < FEWEST:
            raise InputError(f"texts: expected at least {FEWEST} tokens, got {n}")
        names, numbers = np.unique(sentences.numpy(), return_inverse=True)
        if len(names) < 2:
            raise InputError("texts: expected at least 2, one to fit Procrustes on and one to score it on, got 1")
        if max(settings.k) >= n:
            raise InputError(f"k: expected less than the {n} tokens of the texts, got {max(settings.k)}")
        most = min(n // 8, math.isqrt(_HEAVY_BYTES // (4 * sum(map(len, norms)))))
        sinks = tuple(sinks_of(side, settings.sink_ratio) for side in norms)
        anywhere = (sinks[0].any(dim=0) | sinks[1].any(dim=0)).numpy()
        held_out = split(n, sentences, settings.test_share, settings.seed).numpy()
        block = blocks(sentences.numpy(), count=settings.blocks, seed=settings.seed)
        order = np.lexsort((places.numpy(), sentences.numpy(), held_out, block, anywhere))
        parts = np.stack([anywhere, block, held_out])[:, order]
        starts = [0, *(np.flatnonzero((np.diff(parts, axis=1) != 0).any(axis=0)) + 1).tolist(), n]
        index = torch.from_numpy(order)
        return cls(
            order=index,
            sentences=sentences[index],
            places=places[index],
            types=types[index],
            blocks=torch.from_numpy(block[order]),
            block_count=int(block.max()) + 1,
            sinks=(sinks[0][:, index], sinks[1][:, index]),
            kept=int((~anywhere).sum()),
            segments=tuple(
                Segment(
                    start, stop, *(kind(part) for kind, part in zip((bool, int, bool), parts[:, start], strict=True))
                )
                for start, stop in itertools.pairwise(starts)
            ),
            heavy=_longest([side[:, index] for side in norms], most),
            partners=torch.from_numpy(partners(numbers[order], places.numpy()[order], seed=settings.seed)),
        )


def sinks_of(norms: Tensor, ratio: float) -> Tensor:
    """Return which rows are longer than ``ratio`` times the median row of their layer, for lengths [L, n]."""
    return norms.double() > ratio * norms.double().median(dim=1, keepdim=True).values


def _longest(norms: Sequence[Tensor], count: int) -> Tensor:
    """Return rows, ascending, that are longest at some layer, beside its median or its mean square, for lengths [L, n].

    The first finds what is long where nothing else is, the second what is half of a layer where others are long too.
    """
    ranks = []
    for size in ("median", "square"):
        places = []
        for side in norms:
            whole = side.median(dim=1).values if size == "median" else side.double().square().mean(dim=1).sqrt()
            places.append((side / whole[:, None]).nan_to_num(nan=0.0).amax(dim=0))
        order = torch.stack(places).amax(dim=0).argsort(descending=True, stable=True)
        ranks.append(torch.empty_like(order).scatter_(0, order, torch.arange(len(order))))
    return torch.minimum(*ranks).argsort(stable=True)[:count].sort().values


def partners(sentences: np.ndarray, places: np.ndarray, *, seed: int) -> np.ndarray:
    """Pair each sentence with another one of about its length, and each token with the other's at the same rank.

    What two models say alike of tokens so paired, they say of any sentence at that place: it is chance.

    Args:
        sentences: [n], from 0 on without gaps, at least 2 different ones.
        places: [n].
        seed: Of the order among sentences of one length.

    Returns:
        [n], row numbers, -1 for tokens that the other sentence has no counterpart of.
    """
    order = np.lexsort((places, sentences))
    lengths = np.bincount(sentences)
    firsts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(firsts, lengths)
    by_length = np.lexsort((np.random.default_rng(seed).random(len(lengths)), lengths))
    other = np.empty_like(by_length)
    other[by_length] = np.roll(by_length, 1)
    theirs = other[sentences]
    there = ranks < lengths[theirs]
    found = np.full(len(order), -1, dtype=np.int64)
    found[there] = order[firsts[theirs[there]] + ranks[there]]
    return found
