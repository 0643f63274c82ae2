"""All HRSA measures of two models whose states are on disk: no model, a layer of each in memory at a time.

Symbols: n tokens looked at, m texts, d width, L layers, G blocks of sentences.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from st_reasoning.hrsa import exact, fast, measures, probing
from st_reasoning.hrsa.basis import Basis, procrustes
from st_reasoning.hrsa.correlation import correlations, paired_correlation
from st_reasoning.hrsa.facts import Columns, facts
from st_reasoning.hrsa.fast import CKA
from st_reasoning.hrsa.inference import Intervals, described, finite
from st_reasoning.hrsa.local import Local, Neighbours, Overlap
from st_reasoning.hrsa.measures.minibatch import FEWEST_SENTENCES, draw_minibatches
from st_reasoning.hrsa.measures.sampling import spread
from st_reasoning.hrsa.probing import Probe
from st_reasoning.hrsa.settings import Settings, Stopwatch
from st_reasoning.hrsa.store import Store
from st_reasoning.hrsa.tokens import Tokens

Stores = tuple[Store, Store]
WITHOUT_SINKS = (
    "linear_cka_without_sinks",
    "dimension_correlation_without_sinks",
    "procrustes_without_sinks",
    "knn_overlap_without_sinks",
)
# Rows that tell what unrelated tokens have in common: a mean over many tokens, so these are enough.
_CHANCE_ROWS = 4096
_CHANCES = ("biased", "debiased", "dimension_correlation", "standardised_biased", "standardised_debiased")


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
    """Return layers, matrices, sensitivity, sinks, intervals, jackknife, sample and omitted.

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
    intervals = Intervals(tokens.weights(), len(pairs))
    near = Neighbours(stores, shared.columns, tokens, settings)
    probe = None
    if pooled is not None and labels is not None and same_width and pooled[0].width == pooled[1].width:
        probe = Probe(stores, tokens, pooled, pooled_texts, labels, settings)
    layers, sensitivity = [], []
    for number, (a, b) in enumerate(tqdm(pairs, desc="layers", disable=not progress)):
        bases: tuple[Basis | None, Basis | None, Basis | None] = (None, None, None)
        if same_width:
            with watch.part("procrustes"):
                bases = procrustes(stores, tokens, (shared.columns[0][a], shared.columns[1][b]), (a, b))
        with watch.part("knn_overlap"):
            local = near.overlap(a, b)
        with watch.part("chance"):
            n = len(tokens.order)
            states = stores[0].read(a, 0, n), stores[1].read(b, 0, n)
            columns = shared.columns[0][a], shared.columns[1][b]
            chances = _chances(states, tokens, columns, shared.batches, standardised=True)
            chances_kept = chances
            if (kept := shared.kept_columns) is not None and tokens.kept < n:
                chances_kept = _chances(states, tokens.without_sinks(), (kept[0][a], kept[1][b]), shared.batches)
            del states
        with watch.part("linear_probe"):
            probed = None if probe is None else probe.layer(intervals, number, a, b)
        entries = _Entries(intervals, number)
        layers.append(
            {
                "layer": number,
                "matched_layer": b,
                "dimension_correlation": entries.correlation(shared, a, b, chances["dimension_correlation"], names),
                "procrustes": entries.basis("procrustes", bases[0]),
                "linear_cka": entries.cka("linear_cka", shared.whole, a, b)
                | _cka_chances(shared, a, b, tokens, chances),
                "knn_overlap": entries.overlaps(local, len(tokens.order)),
                "linear_probe": None if probed is None else probed.pooled,
            }
        )
        found = _sensitivity(shared, tokens, entries, (a, b), names, local, bases[1:], (chances, chances_kept))
        found |= {
            probing.WITHOUT_SINKS: None if probed is None else probed.without_sinks,
            f"{probing.ADDRESS}_standardised": None if probed is None else probed.standardised,
        }
        sensitivity.append(found)
    usable = tokens.usable
    return {
        "layers": layers,
        "matrices": shared.matrices(intervals),
        "sensitivity": sensitivity,
        "sinks_left_out": len(tokens.order) - tokens.kept if usable else None,
        "sinks": {
            "tokens": len(tokens.order) - tokens.kept,
            "positions": {
                str(place): count for place, count in sorted(Counter(tokens.places[tokens.kept :].tolist()).items())
            },
        },
        "sample": {
            "tokens_seen": tokens_seen,
            "tokens": len(tokens.order),
            "queries": len(near.queries),
            "queries_standardised": len(near.standardised_queries),
        },
        "intervals": described(tokens.block_count, intervals.left_out),
        "jackknife": intervals.to_mapping(),
        "omitted": _omitted(stores, pooled, labels, probe, usable=usable, searched=near.searched_without_sinks)
        | _without_variance(shared.columns, names),
    }


def matched_layers(count_a: int, count_b: int) -> list[tuple[int, int]]:
    """Return which hidden state of the second model each of the first is compared with: equal relative depth."""
    return [(i, round(i * (count_b - 1) / max(1, count_a - 1))) for i in range(count_a)]


@dataclass(frozen=True)
class _Shared:
    """What is computed for all layers at once; ``kept`` means without sinks, and is None if they are too few.

    Correlations are values [L_a, L_b] and what they are without each block, [G, L_a, L_b].
    """

    columns: tuple[list[Columns], list[Columns]]
    kept_columns: tuple[list[Columns], list[Columns]] | None
    whole: CKA
    kept: CKA | None
    standardised: list[CKA]
    correlation: tuple[Tensor, Tensor] | None
    kept_correlation: tuple[Tensor, Tensor] | None
    batches: Tensor | None

    @classmethod
    def of(
        cls, stores: Stores, tokens: Tokens, pairs: list[tuple[int, int]], settings: Settings, watch: Stopwatch
    ) -> _Shared:
        n, n_kept = len(tokens.order), tokens.kept
        with watch.part("columns"):
            columns = _both_sides(stores, tokens, n)
        with watch.part("sensitivity"):
            kept = columns if n_kept == n else _both_sides(stores, tokens, n_kept) if tokens.usable else None
        correlation = kept_correlation = None
        if stores[0].width == stores[1].width:
            with watch.part("dimension_correlation"):
                kept_correlation = correlation = correlations(stores, columns, tokens, n)
            with watch.part("sensitivity"):
                if n_kept < n:
                    kept_correlation = correlations(stores, kept, tokens, n_kept) if kept is not None else None
        batches = None
        if settings.estimator == "fast" or len(torch.unique(tokens.sentences)) >= FEWEST_SENTENCES:
            batches = draw_minibatches(tokens.sentences, size=settings.minibatch, seed=settings.seed)
        with watch.part("linear_cka"):
            if settings.estimator == "fast":
                assert batches is not None
                cka = fast.linear_cka(stores, columns, kept, pairs, tokens, batches, seed=settings.seed)
            else:
                cka = exact.linear_cka(stores, columns, kept, pairs, tokens)
        return cls(columns, kept, cka.whole, cka.kept, cka.standardised, correlation, kept_correlation, batches)

    def effective_ranks(self, a: int, b: int) -> tuple[float | None, float | None]:
        """Return those of layer a of the first and b of the second model, None for a layer without variance."""
        ranks = self.whole.matrices
        return finite(ranks.effective_rank_x[a]), finite(ranks.effective_rank_y[b])

    def matrices(self, intervals: Intervals) -> dict[str, list[list[float | None]] | None]:
        """Return what pairs every layer with every layer, and half the width of their intervals."""
        found: dict[str, list[list[float | None]] | None] = {}
        for suffix, cka, correlation in (
            ("", self.whole, self.correlation),
            ("_without_sinks", self.kept, self.kept_correlation),
        ):
            if cka is None:
                continue
            for name, values in (
                ("linear_cka", (cka.matrices.biased, cka.biased_left_out)),
                ("linear_cka_debiased", (cka.matrices.debiased, cka.debiased_left_out)),
                ("dimension_correlation", correlation),
            ):
                found[name + suffix] = None if values is None else _rows(values[0])
                found[f"{name}{suffix}_half_width"] = None if values is None else intervals.half_widths(*values)
        return found


def _both_sides(stores: Stores, tokens: Tokens, n: int) -> tuple[list[Columns], list[Columns]]:
    return facts(stores[0], tokens.sentences[:n]), facts(stores[1], tokens.sentences[:n])


def _chances(
    states: tuple[Tensor, Tensor],
    tokens: Tokens,
    columns: tuple[Columns, Columns],
    batches: Tensor | None,
    *,
    standardised: bool = False,
) -> dict[str, float]:
    """Return what the measures say of tokens and those of other sentences at the same place, NaN where unknown.

    Linear CKA of ``standardised`` columns too, if that is asked for. States are [n, d_a] and [n, d_b].
    """
    found = dict.fromkeys(_CHANCES, math.nan)
    rows = (tokens.partners >= 0).nonzero().flatten()
    x, y = states
    if len(rows) and x.shape[1] == y.shape[1]:
        some = rows[spread(len(rows), _CHANCE_ROWS)]
        found["dimension_correlation"] = paired_correlation(x[some], y[tokens.partners[some]], columns)
    if batches is not None:
        some = batches[: max(1, _CHANCE_ROWS // batches.shape[1])]
        found["biased"], found["debiased"] = fast.chance_cka(states, columns, some, tokens)
        if standardised:
            found["standardised_biased"], found["standardised_debiased"] = fast.chance_cka(
                states, columns, some, tokens, standardised=True
            )
    return found


def _cka_chances(shared: _Shared, a: int, b: int, tokens: Tokens, chances: dict[str, float]) -> dict[str, float | None]:
    n, (rank_a, rank_b) = len(tokens.order), shared.effective_ranks(a, b)
    return {
        "chance": finite(chances["biased"]),
        "debiased_chance": finite(chances["debiased"]),
        "chance_exchangeable": (
            None if rank_a is None or rank_b is None else measures.linear_cka_permutation_chance(n, rank_a, rank_b)
        ),
        "chance_isotropic": measures.linear_cka_chance(
            n, *(len(side[layer].mean) for side, layer in zip(shared.columns, (a, b), strict=True))
        ),
    }


@dataclass(frozen=True)
class _Entries:
    """Makes the entries of one layer."""

    intervals: Intervals
    number: int

    def correlation(
        self, shared: _Shared, a: int, b: int, chance: float, names: tuple[str, str]
    ) -> dict[str, Any] | None:
        if shared.correlation is None:
            return None
        constant = [int(side[layer].constant.sum()) for side, layer in zip(shared.columns, (a, b), strict=True)]
        return {
            **self.value("dimension_correlation.value", shared.correlation[0][a, b], shared.correlation[1][:, a, b]),
            "chance": finite(chance),
            "constant_columns": dict(zip(names, constant, strict=True)),
        }

    def basis(self, address: str, basis: Basis | None) -> dict[str, Any] | None:
        if basis is None:
            return None
        fit, width = basis.fit, len(basis.fit.map)
        return {
            **self.value(f"{address}.inverse_row_entropy", fit.inverse_row_entropy, basis.entropy_left_out),
            "chance": measures.inverse_row_entropy_chance(width) if width > 1 else None,
            **self.value(f"{address}.residual", fit.residual, basis.residual_left_out),
            # Nothing in common leaves a map that is no better than the mean.
            "residual_chance": 1.0,
            "scale": fit.scale,
            "rank": fit.rank,
            "determined": fit.determined,
            "train_rows": fit.train_rows,
            "test_rows": fit.test_rows,
        }

    def cka(self, address: str, cka: CKA, a: int, b: int) -> dict[str, Any]:
        return {
            **self.value(f"{address}.biased", cka.matrices.biased[a, b], cka.biased_left_out[:, a, b]),
            **self.value(f"{address}.debiased", cka.matrices.debiased[a, b], cka.debiased_left_out[:, a, b]),
        }

    def overlaps(self, local: Local, n: int) -> dict[str, Any]:
        return {
            str(k): {
                **self.value(f"knn_overlap.{k}.value", value, local.every.left_out[k]),
                **self.value(
                    f"knn_overlap.{k}.value_other_types", local.other_types.value[k], local.other_types.left_out[k]
                ),
                "chance": finite(local.every.chance[k]),
                "chance_other_types": finite(local.other_types.chance[k]),
                "chance_independent": measures.knn_overlap_chance(n, k),
            }
            for k, value in local.every.value.items()
        }

    def guarded_overlaps(self, address: str, overlap: Overlap | None) -> dict[str, Any] | None:
        if overlap is None:
            return None
        return {
            str(k): self.value(f"{address}.{k}.value", value, overlap.left_out[k])
            | {"chance": finite(overlap.chance[k])}
            for k, value in overlap.value.items()
        }

    def value(self, address: str, value: float | Tensor, left_out: Tensor | None) -> dict[str, Any]:
        return self.intervals.entry(address, self.number, value, left_out)


def _sensitivity(
    shared: _Shared,
    tokens: Tokens,
    entries: _Entries,
    pair: tuple[int, int],
    names: tuple[str, str],
    local: Local,
    bases: tuple[Basis | None, ...],
    chances: tuple[dict[str, float], dict[str, float]],
) -> dict[str, Any]:
    """Return how far a few dimensions and a few tokens dominate a layer, and what is left without them."""
    a, b = pair
    sinks = tokens.sinks[0][a], tokens.sinks[1][b]
    guarded, standardised = bases
    of_all, of_kept = ({name: finite(value) for name, value in found.items()} for found in chances)

    def named(*values: float | None) -> dict[str, float | None]:
        return dict(zip(names, values, strict=True))

    kept = shared.kept_correlation
    return {
        "layer": entries.number,
        "top_dimension_share": named(shared.columns[0][a].top_share, shared.columns[1][b].top_share),
        "effective_rank": named(*shared.effective_ranks(a, b)),
        "sink_tokens": {
            **named(*(int(found.sum()) for found in sinks)),
            "either": int((sinks[0] | sinks[1]).sum()),
        },
        "hubness": named(*local.hubness),
        "same_type_share": named(*local.same_type_share),
        "linear_cka_standardised": entries.cka(
            "sensitivity.linear_cka_standardised", shared.standardised[entries.number], 0, 0
        )
        | {"chance": of_all["standardised_biased"], "debiased_chance": of_all["standardised_debiased"]},
        "linear_cka_without_sinks": (
            None
            if shared.kept is None
            else entries.cka("sensitivity.linear_cka_without_sinks", shared.kept, a, b)
            | {"chance": of_kept["biased"], "debiased_chance": of_kept["debiased"]}
        ),
        "dimension_correlation_without_sinks": (
            None
            if kept is None
            else entries.value("sensitivity.dimension_correlation_without_sinks.value", kept[0][a, b], kept[1][:, a, b])
            | {"chance": of_kept["dimension_correlation"]}
        ),
        "procrustes_without_sinks": entries.basis("sensitivity.procrustes_without_sinks", guarded),
        "procrustes_standardised": entries.basis("sensitivity.procrustes_standardised", standardised),
        "knn_overlap_without_sinks": entries.guarded_overlaps(
            "sensitivity.knn_overlap_without_sinks", local.without_sinks
        ),
        "knn_overlap_standardised": entries.guarded_overlaps(
            "sensitivity.knn_overlap_standardised", local.standardised
        ),
    }


def _omitted(
    stores: Stores,
    pooled: Stores | None,
    labels: Sequence[Hashable] | None,
    probe: Probe | None,
    *,
    usable: bool,
    searched: bool,
) -> dict[str, str]:
    """Return why a measure is null, for each that is."""
    omitted = {}
    if probe is None:
        omitted[probing.ADDRESS] = (
            "no labels were given"
            if labels is None
            else "no pooled states were given"
            if pooled is None
            else f"widths of pooled states differ: {pooled[0].width} and {pooled[1].width}"
        )
    elif not probe.usable:
        omitted[probing.WITHOUT_SINKS] = "too few texts of some class have a token that is no sink at any layer"
    if stores[0].width != stores[1].width:
        reason = f"widths differ: {stores[0].width} and {stores[1].width}"
        omitted |= dict.fromkeys(("dimension_correlation", "procrustes", "linear_probe"), reason)
    if not usable:
        omitted |= dict.fromkeys(WITHOUT_SINKS, "nearly every token is a sink at some layer")
    elif not searched:
        omitted["knn_overlap_without_sinks"] = "fewer tokens are no sinks than neighbours were asked for"
    return omitted


def _without_variance(columns: tuple[list[Columns], list[Columns]], names: tuple[str, str]) -> dict[str, str]:
    """Return which layers hold one vector only, if there are any: values of theirs are null, whatever the measure."""
    found = [
        f"layer {number} of {name}"
        for name, side in zip(names, columns, strict=True)
        for number, layer in enumerate(side)
        if layer.constant.all()
    ]
    if not found:
        return {}
    return {"layers_without_variance": f"{', '.join(found)}: all rows are alike, so that only ties can be compared"}


def _rows(matrix: Tensor) -> list[list[float | None]]:
    return [[finite(value) for value in row] for row in matrix]
