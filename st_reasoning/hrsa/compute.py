"""All HRSA measures of two models whose states are on disk: no model, a few layers of each in memory at a time.

Symbols: n tokens looked at, m texts, d width, L layers, G blocks of sentences.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from st_reasoning.hrsa import fast, probing
from st_reasoning.hrsa.all_layers import AllLayers, Stores
from st_reasoning.hrsa.basis import Basis, procrustes
from st_reasoning.hrsa.cores import Cores
from st_reasoning.hrsa.correlation import paired_correlation
from st_reasoning.hrsa.entries import Entries, cka_chances, sensitivity_of
from st_reasoning.hrsa.facts import Columns
from st_reasoning.hrsa.inference import Intervals, described
from st_reasoning.hrsa.local import Found, Local, Neighbours
from st_reasoning.hrsa.measures.sampling import spread
from st_reasoning.hrsa.probing import Probe, Probed
from st_reasoning.hrsa.settings import Settings, Stopwatch
from st_reasoning.hrsa.tokens import Tokens

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
    cores: Cores,
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
        cores: Where to work.
        progress: Whether to show a bar over the layers.
    """
    pairs = matched_layers(len(stores[0]), len(stores[1]))
    same_width = stores[0].width == stores[1].width
    shared = AllLayers.of(stores, tokens, pairs, settings, watch, cores)
    intervals = Intervals(tokens.weights(), len(pairs))
    near = Neighbours(stores, shared.columns, tokens, settings)
    probe = None
    if pooled is not None and labels is not None and same_width and pooled[0].width == pooled[1].width:
        probe = Probe(stores, tokens, pooled, pooled_texts, labels, settings)
    work = _Layers(stores, tokens, shared, near, probe, intervals, names, watch)
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    with tqdm(total=len(pairs), desc="layers", disable=not progress) as bar:
        for run in cores.map(work.measure, fast.by_second(enumerate(pairs))):
            found += run
            bar.update(len(run))
    layers, sensitivity = ([*part] for part in zip(*found, strict=True))
    return {
        "layers": layers,
        "matrices": shared.matrices(intervals),
        "sensitivity": sensitivity,
        "sinks_left_out": len(tokens.order) - tokens.kept if tokens.usable else None,
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
        "omitted": _omitted(stores, pooled, labels, probe, usable=tokens.usable, searched=near.searched_without_sinks)
        | _without_variance(shared.columns, names),
    }


@dataclass(frozen=True)
class _Layers:
    """Measures matched layers; may do so for several at a time, in threads of their own.

    Attributes:
        stores: The states of the two models.
        tokens: Which rows are what.
        shared: What was measured for all layers at once.
        near: Finds neighbours.
        probe: None without labels.
        intervals: Takes what is left without each block.
        names: What the two models are called.
        watch: Where to add the seconds of each part.
    """

    stores: Stores
    tokens: Tokens
    shared: AllLayers
    near: Neighbours
    probe: Probe | None
    intervals: Intervals
    names: tuple[str, str]
    watch: Stopwatch

    def measure(self, run: Sequence[tuple[int, tuple[int, int]]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Return the layer and its sensitivity for each number and pair (a, b) of layers, b the same for all."""
        near_b: Found | None = None
        found = []
        for number, (a, b) in run:
            columns = self.shared.columns[0][a], self.shared.columns[1][b]
            bases: tuple[Basis | None, Basis | None, Basis | None] = (None, None, None)
            if self.stores[0].width == self.stores[1].width:
                with self.watch.part("procrustes"):
                    bases = procrustes(self.stores, self.tokens, columns, (a, b))
            with self.watch.part("knn_overlap"):
                near_b = self.near.search(1, b) if near_b is None else near_b
                local = self.near.overlap(self.near.search(0, a), near_b)
            with self.watch.part("chance"):
                chances = self._both_chances(a, b)
            with self.watch.part("linear_probe"):
                probed = None if self.probe is None else self.probe.layer(self.intervals, number, a, b)
            found.append(self._entries(number, a, b, bases, local, chances, probed))
        return found

    def _both_chances(self, a: int, b: int) -> tuple[dict[str, float], dict[str, float]]:
        """Return what the measures say of tokens of different sentences, of all of them and without sinks."""
        kept, batches = self.shared.kept_columns, self.shared.batches
        columns = self.shared.columns[0][a], self.shared.columns[1][b]
        every = _chances(self.stores, (a, b), self.tokens, columns, batches, standardised=True)
        if kept is None or self.tokens.kept == len(self.tokens.order):
            return every, every
        tokens = self.tokens.without_sinks()
        return every, _chances(self.stores, (a, b), tokens, (kept[0][a], kept[1][b]), batches)

    def _entries(
        self,
        number: int,
        a: int,
        b: int,
        bases: tuple[Basis | None, Basis | None, Basis | None],
        local: Local,
        chances: tuple[dict[str, float], dict[str, float]],
        probed: Probed | None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        shared, tokens, names = self.shared, self.tokens, self.names
        entries = Entries(self.intervals, number)
        layer = {
            "layer": number,
            "matched_layer": b,
            "dimension_correlation": entries.correlation(shared, a, b, chances[0]["dimension_correlation"], names),
            "procrustes": entries.basis("procrustes", bases[0]),
            "linear_cka": entries.cka("linear_cka", shared.whole, a, b) | cka_chances(shared, a, b, tokens, chances[0]),
            "knn_overlap": entries.overlaps(local, len(tokens.order)),
            "linear_probe": None if probed is None else probed.pooled,
        }
        sensitivity = sensitivity_of(shared, tokens, entries, (a, b), names, local, bases[1:], chances)
        sensitivity |= {
            probing.WITHOUT_SINKS: None if probed is None else probed.without_sinks,
            f"{probing.ADDRESS}_standardised": None if probed is None else probed.standardised,
        }
        return layer, sensitivity


def matched_layers(count_a: int, count_b: int) -> list[tuple[int, int]]:
    """Return which hidden state of the second model each of the first is compared with: equal relative depth."""
    return [(i, round(i * (count_b - 1) / max(1, count_a - 1))) for i in range(count_a)]


def _chances(
    stores: Stores,
    pair: tuple[int, int],
    tokens: Tokens,
    columns: tuple[Columns, Columns],
    batches: Tensor | None,
    *,
    standardised: bool = False,
) -> dict[str, float]:
    """Return what the measures say of tokens and those of other sentences at the same place, NaN where unknown.

    Linear CKA of ``standardised`` columns too, if that is asked for.
    """
    found = dict.fromkeys(_CHANCES, math.nan)
    rows = (tokens.partners >= 0).nonzero().flatten()
    if len(rows) and stores[0].width == stores[1].width:
        some = rows[spread(len(rows), _CHANCE_ROWS)]
        x, y = stores[0].pick(pair[0], some), stores[1].pick(pair[1], tokens.partners[some])
        found["dimension_correlation"] = paired_correlation(x, y, columns)
    if batches is not None:
        some = batches[: max(1, _CHANCE_ROWS // batches.shape[1])]
        found["biased"], found["debiased"] = fast.chance_cka(stores, pair, columns, some, tokens)
        if standardised:
            found["standardised_biased"], found["standardised_debiased"] = fast.chance_cka(
                stores, pair, columns, some, tokens, standardised=True
            )
    return found


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
