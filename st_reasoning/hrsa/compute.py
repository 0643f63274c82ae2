"""All HRSA measures of two models whose states are on disk: no model, a layer of each in memory at a time.

Symbols: n tokens looked at, m texts, d width, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from st_reasoning.errors import InputError
from st_reasoning.hrsa import exact, fast, measures
from st_reasoning.hrsa.fast import Columns
from st_reasoning.hrsa.measures import neighbours as knn
from st_reasoning.hrsa.measures.moments import Moments
from st_reasoning.hrsa.measures.procrustes import solve, split
from st_reasoning.hrsa.settings import Settings, Stopwatch
from st_reasoning.hrsa.store import Store

Stores = tuple[Store, Store]
WITHOUT_SINKS = (
    "linear_cka_without_sinks",
    "dimension_correlation_without_sinks",
    "procrustes_without_sinks",
)
# Debiased CKA and a split into fitted and held-out rows need this many.
_FEWEST_TOKENS = 4


@dataclass(frozen=True)
class Tokens:
    """The tokens looked at, in the order of their rows: every part that a value leaves out is one piece.

    Attributes:
        order: [n], the slots the rows come from.
        sentences: [n], int64.
        places: [n], int64: where in its text a token stands.
        types: [n], int64.
        sinks: [L_a, n] and [L_b, n], whether a token is a sink at a layer.
        bounds: Where these end: fitted tokens that are no sinks, held-out ones, fitted sinks, held-out sinks.
    """

    order: Tensor
    sentences: Tensor
    places: Tensor
    types: Tensor
    sinks: tuple[Tensor, Tensor]
    bounds: tuple[int, int, int, int]

    @property
    def kept(self) -> int:
        """Tokens that are a sink at no layer of either model; they come first."""
        return self.bounds[1]

    @property
    def usable(self) -> bool:
        """Whether they are enough for every measure."""
        fitted = self.bounds[0]
        return self.kept >= _FEWEST_TOKENS and 2 <= fitted < self.kept

    def segments(self) -> list[tuple[int, int]]:
        """Return where the four parts start and end."""
        return list(zip((0, *self.bounds[:-1]), self.bounds, strict=True))

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
        """
        n = len(types)
        if n < _FEWEST_TOKENS:
            raise InputError(f"texts: expected at least {_FEWEST_TOKENS} tokens, got {n}")
        if len(set(sentences.tolist())) < 2:
            raise InputError("texts: expected at least 2, one to fit Procrustes on and one to score it on, got 1")
        if max(settings.k) >= n:
            raise InputError(f"k: expected less than the {n} tokens of the texts, got {max(settings.k)}")
        sinks = tuple(sinks_of(side, settings.sink_ratio) for side in norms)
        anywhere = sinks[0].any(dim=0) | sinks[1].any(dim=0)
        held_out = split(n, sentences, settings.test_share, settings.seed)
        order = torch.from_numpy(np.lexsort((places.numpy(), sentences.numpy(), held_out.numpy(), anywhere.numpy())))
        counts = [int((anywhere == sink)[held_out == out].sum()) for sink in (False, True) for out in (False, True)]
        ends = np.cumsum(counts).tolist()
        return cls(
            order,
            sentences[order],
            places[order],
            types[order],
            (sinks[0][:, order], sinks[1][:, order]),
            (ends[0], ends[1], ends[2], ends[3]),
        )


def sinks_of(norms: Tensor, ratio: float) -> Tensor:
    """Return which rows are longer than ``ratio`` times the median row of their layer, for lengths [L, n]."""
    return norms.double() > ratio * norms.double().median(dim=1, keepdim=True).values


def measure(
    stores: Stores,
    tokens: Tokens,
    *,
    pooled: Stores | None,
    pooled_texts: Tensor,
    labels: Sequence[Hashable] | None,
    names: tuple[str, str],
    settings: Settings,
    tokens_seen: int,
    watch: Stopwatch,
    progress: bool,
) -> dict[str, Any]:
    """Return layers, matrices, sensitivity, sinks_left_out, sample and omitted.

    Layer i of the first model, of L_a transformer layers, is matched with the layer of the second that is as
    deep in proportion: round(i L_b / L_a).

    Args:
        stores: The states, rows in the order of ``tokens``.
        tokens: Which rows are what.
        pooled: A row per text, if there are any.
        pooled_texts: [m], their numbers.
        labels: By number of the text.
        names: What the two models are called.
        settings: Of the panel.
        tokens_seen: Of which those looked at are a sample, if there are more.
        watch: Where to add the seconds of each part.
        progress: Whether to show a bar over the layers.
    """
    pairs = matched_layers(len(stores[0]), len(stores[1]))
    same_width = stores[0].width == stores[1].width
    shared = _Shared.of(stores, tokens, pairs, settings, watch)
    queries = _queries(tokens, settings)
    probed = pooled is not None and labels is not None and pooled[0].width == pooled[1].width
    layers, sensitivity = [], []
    near = _Neighbours(stores, tokens, queries, settings)
    for number, (a, b) in enumerate(tqdm(pairs, desc="layers", disable=not progress)):
        raw = guarded = None
        if same_width:
            with watch.part("procrustes"):
                raw, guarded = _procrustes(stores, tokens, shared, (a, b))
        with watch.part("knn_overlap"):
            overlap = near.overlap(a, b)
        entry = {
            "layer": number,
            "matched_layer": b,
            "dimension_correlation": _correlation(shared, a, b, names),
            "procrustes": raw,
            "linear_cka": _linear_cka(shared.whole, a, b, len(tokens.order), stores),
            "knn_overlap": overlap,
            "linear_probe": None,
        }
        if probed:
            assert pooled is not None
            assert labels is not None
            with watch.part("linear_probe"):
                entry["linear_probe"] = _probe(pooled, pooled_texts, labels, a, b, settings)
        layers.append(entry)
        sensitivity.append(
            _sensitivity(shared, tokens, number, (a, b), names, guarded if tokens.usable else None)
            | ({} if tokens.usable else dict.fromkeys(WITHOUT_SINKS))
        )
    return {
        "layers": layers,
        "matrices": shared.matrices(),
        "sensitivity": sensitivity,
        "sinks_left_out": len(tokens.order) - tokens.kept if tokens.usable else None,
        "sample": {
            "tokens_seen": tokens_seen,
            "tokens": len(tokens.order),
            "queries": len(queries),
        },
        "omitted": _omitted(stores, labels, probed=probed, usable=tokens.usable),
    }


def matched_layers(count_a: int, count_b: int) -> list[tuple[int, int]]:
    """Return which hidden state of the second model each of the first is compared with: equal relative depth."""
    return [(i, round(i * (count_b - 1) / max(1, count_a - 1))) for i in range(count_a)]


@dataclass(frozen=True)
class _Shared:
    """What is computed for all layers at once; ``kept`` means without sinks, and is None if they are too few."""

    columns: tuple[list[Columns], list[Columns]]
    whole: measures.CKAMatrices
    kept: measures.CKAMatrices | None
    standardised: list[measures.CKAMatrices]
    correlation: Tensor | None
    kept_correlation: Tensor | None

    @classmethod
    def of(
        cls, stores: Stores, tokens: Tokens, pairs: list[tuple[int, int]], settings: Settings, watch: Stopwatch
    ) -> _Shared:
        n, n_kept = len(tokens.order), tokens.kept
        with watch.part("columns"):
            columns = _both_sides(stores, n)
        with watch.part("sensitivity"):
            kept = columns if n_kept == n else _both_sides(stores, n_kept) if tokens.usable else None
        correlation = kept_correlation = None
        if stores[0].width == stores[1].width:
            with watch.part("dimension_correlation"):
                kept_correlation = correlation = fast.correlation(stores, columns, n)
            with watch.part("sensitivity"):
                if n_kept < n:
                    kept_correlation = fast.correlation(stores, kept, n_kept) if kept is not None else None
        with watch.part("linear_cka"):
            if settings.estimator == "fast":
                cka = fast.linear_cka(
                    stores,
                    columns,
                    kept,
                    pairs,
                    tokens.sentences,
                    size=settings.minibatch,
                    seed=settings.seed,
                )
            else:
                cka = exact.linear_cka(stores, n, n_kept if kept is not None else None, pairs)
        return cls(columns, cka.whole, cka.kept, cka.standardised, correlation, kept_correlation)

    def matrices(self) -> dict[str, list[list[float | None]] | None]:
        """Return what pairs every layer with every layer."""
        found: dict[str, list[list[float | None]] | None] = {}
        for suffix, cka, correlation in (
            ("", self.whole, self.correlation),
            ("_without_sinks", self.kept, self.kept_correlation),
        ):
            if cka is not None:
                found[f"linear_cka{suffix}"] = _rows(cka.biased)
                found[f"linear_cka_debiased{suffix}"] = _rows(cka.debiased)
                found[f"dimension_correlation{suffix}"] = None if correlation is None else _rows(correlation)
        return found


def _both_sides(stores: Stores, n: int) -> tuple[list[Columns], list[Columns]]:
    return fast.facts(stores[0], range(len(stores[0])), n), fast.facts(stores[1], range(len(stores[1])), n)


def _procrustes(
    stores: Stores, tokens: Tokens, shared: _Shared, pair: tuple[int, int]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the map from all fitted tokens, and the one from those that are no sinks."""
    columns = shared.columns[0][pair[0]], shared.columns[1][pair[1]]
    parts: list[Moments] = []
    for start, stop in tokens.segments():
        x, y = (store.read(layer, start, stop) for store, layer in zip(stores, pair, strict=True))
        # float64 also for "fast": float32 products of few distinct rows look as if they determined the map.
        parts.append(Moments.about(columns[0].mean, columns[1].mean))
        parts[-1].add(x, y)
    raw = _procrustes_entry(solve([parts[0], parts[2]], [parts[1], parts[3]]))
    if tokens.kept == len(tokens.order):
        return raw, raw
    return raw, _procrustes_entry(solve(parts[:1], parts[1:2])) if tokens.usable else None


def _procrustes_entry(found: measures.ProcrustesFit) -> dict[str, Any]:
    return {
        "inverse_row_entropy": found.inverse_row_entropy,
        "chance": measures.inverse_row_entropy_chance(found.map.shape[0]),
        "residual": found.residual,
        "scale": found.scale,
        "rank": found.rank,
        "determined": found.determined,
        "train_rows": found.train_rows,
        "test_rows": found.test_rows,
    }


class _Neighbours:
    """k-NN overlap of layers; a layer that is matched twice in a row is searched once."""

    def __init__(self, stores: Stores, tokens: Tokens, queries: Tensor, settings: Settings) -> None:
        self.stores, self.tokens, self.queries, self.settings = stores, tokens, queries, settings
        self._last: tuple[int, knn.Neighbours] | None = None

    def overlap(self, a: int, b: int) -> dict[str, Any]:
        """Return value, value_other_types and chance by k."""
        near_a = self._search(0, a)
        if self._last is None or self._last[0] != b:
            self._last = b, self._search(1, b)
        near_b = self._last[1]
        sizes, n = list(self.settings.k), len(self.tokens.order)
        every = knn.mean_jaccard(near_a.all, near_b.all, sizes)
        others = knn.mean_jaccard(near_a.other_types, near_b.other_types, sizes)
        return {
            str(k): {
                "value": every[k],
                "value_other_types": others[k] if math.isfinite(others[k]) else None,
                "chance": measures.knn_overlap_chance(n, k),
            }
            for k in sizes
        }

    def _search(self, side: int, layer: int) -> knn.Neighbours:
        x = self.stores[side].read(layer, 0, len(self.tokens.order))
        units = knn.unit_rows(x, f"layer {layer} of model {'ab'[side]}")
        return knn.neighbours(units, self.queries, self.settings.k, self.tokens.types)


def _queries(tokens: Tokens, settings: Settings) -> Tensor:
    """Return the rows whose neighbours are looked for: all, or every so many-th in the order of token types.

    Tokens of one type at one place of their texts have overlaps more alike than others: taking all in proportion
    halves the error of the mean (measured: 0.0028 instead of 0.0045 for 2,048 of 14,046 tokens, k = 5).
    """
    n = len(tokens.order)
    if settings.estimator == "exact" or n <= settings.queries:
        return torch.arange(n)
    generator = np.random.default_rng(settings.seed)
    order = np.lexsort((generator.random(n), tokens.places.numpy(), tokens.types.numpy()))
    places = (np.arange(settings.queries) + generator.random()) * (n / settings.queries)
    return torch.from_numpy(np.sort(order[places.astype(int)]))


def _correlation(shared: _Shared, a: int, b: int, names: tuple[str, str]) -> dict[str, Any] | None:
    if shared.correlation is None:
        return None
    constant = [int(side[layer].constant.sum()) for side, layer in zip(shared.columns, (a, b), strict=True)]
    return {
        "value": _number(shared.correlation[a, b]),
        "chance": 0.0,
        "constant_columns": dict(zip(names, constant, strict=True)),
    }


def _linear_cka(cka: measures.CKAMatrices, a: int, b: int, n: int, stores: Stores) -> dict[str, Any]:
    ranks = float(cka.effective_rank_x[a]), float(cka.effective_rank_y[b])
    return {
        **_cell(cka, a, b),
        "chance": measures.linear_cka_permutation_chance(n, *ranks),
        "chance_isotropic": measures.linear_cka_chance(n, stores[0].width, stores[1].width),
    }


def _probe(
    pooled: Stores, texts: Tensor, labels: Sequence[Hashable], a: int, b: int, settings: Settings
) -> dict[str, Any]:
    order = texts.argsort()
    x, y = (store.read(layer, 0, len(texts))[order] for store, layer in zip(pooled, (a, b), strict=True))
    found = measures.linear_probe_transfer(
        x,
        y,
        [labels[text] for text in texts[order].tolist()],
        seed=settings.seed,
        test_share=settings.test_share,
        kind=settings.probe,
    )
    return {
        "own": found.own,
        "transferred": found.transferred,
        "difference": found.difference,
        "chance": found.chance,
        "classes": found.classes,
        "train_rows": found.train_rows,
        "test_rows": found.test_rows,
        "converged": found.converged,
    }


def _sensitivity(
    shared: _Shared,
    tokens: Tokens,
    number: int,
    pair: tuple[int, int],
    names: tuple[str, str],
    procrustes: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return how far a few dimensions and a few tokens dominate a layer, and what is left without them."""
    a, b = pair
    sinks = tokens.sinks[0][a], tokens.sinks[1][b]

    def named(*values: float) -> dict[str, float]:
        return dict(zip(names, values, strict=True))

    return {
        "layer": number,
        "top_dimension_share": named(shared.columns[0][a].top_share, shared.columns[1][b].top_share),
        "effective_rank": named(float(shared.whole.effective_rank_x[a]), float(shared.whole.effective_rank_y[b])),
        "sink_tokens": {
            **named(*(int(found.sum()) for found in sinks)),
            "either": int((sinks[0] | sinks[1]).sum()),
        },
        "linear_cka_standardised": _cell(shared.standardised[number], 0, 0),
        "linear_cka_without_sinks": None if shared.kept is None else _cell(shared.kept, a, b),
        "dimension_correlation_without_sinks": (
            None if shared.kept_correlation is None else _number(shared.kept_correlation[a, b])
        ),
        "procrustes_without_sinks": procrustes,
    }


def _omitted(stores: Stores, labels: Sequence[Hashable] | None, *, probed: bool, usable: bool) -> dict[str, str]:
    """Return why a measure is null, for each that is."""
    omitted = {}
    if not probed:
        omitted["linear_probe"] = "no labels were given" if labels is None else "no pooled states were given"
    if stores[0].width != stores[1].width:
        reason = f"widths differ: {stores[0].width} and {stores[1].width}"
        omitted |= dict.fromkeys(("dimension_correlation", "procrustes", "linear_probe"), reason)
    if not usable:
        omitted |= dict.fromkeys(WITHOUT_SINKS, "nearly every token is a sink at some layer")
    return omitted


def _cell(cka: measures.CKAMatrices, a: int, b: int) -> dict[str, float | None]:
    return {"biased": _number(cka.biased[a, b]), "debiased": _number(cka.debiased[a, b])}


def _rows(matrix: Tensor) -> list[list[float | None]]:
    return [[_number(value) for value in row] for row in matrix]


def _number(value: Tensor) -> float | None:
    """Return a plain float, None where the measure is undefined: JSON has no NaN."""
    number = float(value)
    return number if math.isfinite(number) else None
