"""Why the scores are what they are: what the arms of a pair share before and after training, and what it changed.

The panels of a pair were measured on the same texts in the same blocks of sentences, so that changes are paired by
sentence. An interval of a mean over seeds is over sentences, for these seeds; that over seeds stands beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from st_reasoning.errors import InputError
from st_reasoning.files import read_json
from st_reasoning.hrsa.addresses import Value, Values
from st_reasoning.hrsa.probing import least_half_width
from st_reasoning.hrsa.realignment import realignment
from st_reasoning.stats import interval, paired_t
from st_reasoning.study import published
from st_reasoning.study.plan import Outcome, ended_well
from st_reasoning.study.recipe import Pair, StudyRecipe

LEVELS = tuple(published.WORDS)
# The values of HRSAEvaluator that a curve over training has.
_CURVES = ("linear_cka", "knn_overlap", "dimension_correlation", "inverse_row_entropy")
NAMES = {
    "dimension_correlation.value": "Dimension-wise correlation",
    "procrustes.inverse_row_entropy": "Procrustes, inverse row entropy",
    "procrustes.residual": "Procrustes, residual (less is more alike)",
    "linear_cka.debiased": "Linear CKA, debiased",
    "linear_cka.biased": "Linear CKA, biased",
    "linear_probe.difference": "Probe, transferred minus own accuracy",
}


def measures(k: list[int]) -> dict[str, list[str]]:
    """Return the raw addresses of each level, the one that decides its word first."""
    middle = k[len(k) // 2]
    others = [each for each in k if each != middle]
    return {
        "coordinate basis": [
            "dimension_correlation.value",
            "procrustes.inverse_row_entropy",
            "procrustes.residual",
        ],
        "global geometry": ["linear_cka.debiased", "linear_cka.biased"],
        "local geometry": [f"knn_overlap.{each}.value" for each in (middle, *others)],
        "linear readout": ["linear_probe.difference"],
    }


def name_of(address: str) -> str:
    """Return what a reader calls a value, without its guard."""
    parts = address.removeprefix("sensitivity.").replace("_without_sinks", "")
    if parts.startswith("knn_overlap"):
        return f"Shared neighbours, k = {parts.split('.')[1]}"
    return NAMES.get(parts, parts)


def guarded(values: Values, raw: str) -> str | None:
    """Return the address of a value without sink tokens at the last layer; None where it was not measured.

    Where no token is a sink there is no such value, and the raw one is it.
    """
    measure, rest = raw.split(".", 1)
    address = f"sensitivity.{measure}_without_sinks.{rest}"
    if address in values and values.at(address, -1).value is not None:
        return address
    return None if values.sinks or raw not in values else raw


def mechanism(pair: Pair, recipe: StudyRecipe, output: Path, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Return what the panels of a pair say, as far as their steps ended well.

    Of a step that did not, a panel of earlier may still lie there, of other embedders.

    Returns:
        ``backbones``: file, words and values at the last layer, or None; ``embedders``: the same for each seed;
        ``realignment``: by level the words and the change over seeds, or None; ``values``: each value, raw and
        guarded, before, after and its change; ``curves``: by seed the values at each kept checkpoint;
        ``missing``: what is not there, in words.
    """
    missing: list[str] = []

    def kept(part: str) -> dict[str, Any] | None:
        step = f"hrsa/{pair.name}/{part}"
        if not ended_well(step, outcomes):
            missing.append(f"{step}: the step did not end well")
            return None
        return _panel(output, step, missing)

    before = kept("backbones")
    after = {seed: kept(f"seed-{seed}") for seed in recipe.seeds}
    there = {seed: panel for seed, panel in after.items() if panel is not None}
    changes: dict[int, dict[str, Any]] = {}
    if before is not None:
        for seed, panel in there.items():
            try:
                changes[seed] = realignment(before, panel)
            except InputError as error:
                missing.append(f"the realignment of seed {seed}: {error}")
    usable = {seed: there[seed] for seed in changes}
    return {
        "backbones": None if before is None else _read(before, f"hrsa/{pair.name}/backbones/hrsa.json"),
        "embedders": [
            {"seed": seed, **_read(panel, f"hrsa/{pair.name}/seed-{seed}/hrsa.json")} for seed, panel in there.items()
        ],
        "realignment": None if before is None or not usable else _realigned(before, usable, changes),
        "values": [] if before is None else _values(before, usable),
        "curves": _curves(pair, recipe, output, outcomes),
        "published_entropy": _published(pair),
        "missing": missing,
    }


def hierarchy(recipe: StudyRecipe, pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the paper's Table 2 with our words and numbers: a row for each level, a cell for each method and training.

    Args:
        recipe: The study.
        pairs: Each with ``method`` and ``mechanism``.

    Returns:
        Rows with ``level`` and ``cells``: column, words with the pairs that have them, the least and the greatest
        guarded value, the paper's word, and whether ours agree with it: all, some, none, or None where nothing is said.
    """
    methods = list(dict.fromkeys(pair["method"] for pair in pairs))
    rows = []
    for level in LEVELS:
        cells = []
        for method in methods:
            found = [
                (pair["name"], said["word"], said["value"])
                for pair in pairs
                if pair["method"] == method and pair["mechanism"]["backbones"] is not None
                for said in pair["mechanism"]["backbones"]["levels"]
                if said["level"] == level
            ]
            cells.append(_cell(f"backbones, {method}", found, published.WORDS[level].get(method)))
        changed = [
            (pair["name"], word, said["after"])
            for pair in pairs
            if pair["mechanism"]["realignment"] is not None
            for said in pair["mechanism"]["realignment"]["levels"]
            if said["level"] == level
            for word in said["words"]
        ]
        cells.append(_cell("after contrastive training", changed, published.WORDS[level][published.TRAINED]))
        rows.append({"level": level, "cells": cells})
    return rows


def _cell(column: str, found: list[tuple[str, str, float | None]], paper: str | None) -> dict[str, Any]:
    words: dict[str, list[str]] = {}
    for pair, word, _ in found:
        if pair not in words.setdefault(word, []):
            words[word].append(pair)
    known = [value for _, _, value in found if value is not None]
    said = [word for _, word, _ in found if word not in ("undecided", "not measured")]
    agrees = None
    if paper is not None and said:
        same = sum(word in published.SAME[paper] for word in said)
        agrees = "all" if same == len(said) else "none" if same == 0 else "some"
    return {
        "column": column,
        "words": words,
        "lowest": min(known, default=None),
        "highest": max(known, default=None),
        "paper": paper,
        "agrees": agrees,
    }


def _panel(output: Path, place: str, missing: list[str]) -> dict[str, Any] | None:
    """Return a panel, or None and why it is of no use here."""
    try:
        panel = read_json(output / place / "hrsa.json")
    except InputError:
        missing.append(f"{place}/hrsa.json is not there")
        return None
    if not isinstance(panel, dict) or "reading" not in panel:
        missing.append(f"{place}/hrsa.json has no reading; run the study again")
        return None
    return panel


def _read(panel: dict[str, Any], file: str) -> dict[str, Any]:
    """Return the words of a panel with the values that decided them."""
    values, reading = Values(panel), panel["reading"]
    levels = []
    for said in reading["levels"]:
        decided = next(iter(said["values"].items()), (None, {"value": None, "interval": None}))
        levels.append(
            {
                "level": said["level"],
                "word": said["word"],
                "sentence": said["sentence"],
                "rule": said["rule"],
                "address": decided[0],
                "value": decided[1]["value"],
                "interval": decided[1]["interval"],
                "chance": decided[1].get("chance"),
            }
        )
    return {
        "file": file,
        "layer": values.layers - 1,
        "attention": [model["attention"] for model in panel["models"]],
        "tokens": panel["corpus"]["tokens"],
        "texts": panel["corpus"]["texts"],
        "levels": levels,
        "warnings": reading["warnings"],
    }


def _realigned(
    before: dict[str, Any], after: dict[int, dict[str, Any]], changes: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    """Return by level the words of all seeds and the mean change of the value that decides."""
    levels = []
    for number, level in enumerate(LEVELS):
        said = {seed: found["levels"][number] for seed, found in changes.items()}
        words = Counter(each["word"] for each in said.values())
        ends = [each["change"]["after"] for each in said.values() if each["change"] is not None]
        address = next((each["address"] for each in said.values()), None)
        levels.append(
            {
                "level": level,
                "words": dict(sorted(words.items())),
                "before": next(each["before"] for each in said.values()),
                "after_words": dict(sorted(Counter(each["after"] for each in said.values()).items())),
                "after": float(np.mean(ends)) if ends and None not in ends else None,
                "address": address,
                "change": _mean_change(before, after, address),
                "seeds": [
                    {"seed": seed, "word": each["word"], "sentence": each["sentence"], "rule": each["rule"]}
                    for seed, each in said.items()
                ],
            }
        )
    notes = list(dict.fromkeys(note for found in changes.values() for note in found["notes"]))
    return {"levels": levels, "notes": notes}


def _values(before: dict[str, Any], after: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return every value at the last layer, raw and guarded, before and after training, with its change."""
    early, late = Values(before), {seed: Values(panel) for seed, panel in after.items()}
    found = []
    for level, addresses in measures(before["settings"]["k"]).items():
        for raw in addresses:
            for address in dict.fromkeys((guarded(early, raw), raw)):
                if address is None or address not in early:
                    continue
                value = early.at(address, -1)
                others = [_at(values, address) for values in late.values()]
                known = [each.value for each in others if each.value is not None]
                found.append(
                    {
                        "level": level,
                        "address": address,
                        "name": name_of(address),
                        "guarded": address == guarded(early, raw),
                        "backbones": value.to_mapping(),
                        "embedders": [
                            {"seed": seed, **each.to_mapping()} for seed, each in zip(late, others, strict=True)
                        ],
                        "embedders_mean": float(np.mean(known)) if known and len(known) == len(others) else None,
                        "change": _mean_change(before, after, address),
                    }
                )
    return found


def _at(values: Values, address: str) -> Value:
    return values.at(address, -1) if address in values else Value(None)


def _mean_change(before: dict[str, Any], after: dict[int, dict[str, Any]], address: str | None) -> dict[str, Any]:
    """Return the mean over seeds of embedders minus backbones at the last layer.

    ``interval`` is over sentences, for these seeds: leaving out a block leaves it out of both. ``interval_seeds`` is
    over seeds, for these sentences. Either is None where it cannot be had, the latter also where all seeds show the
    same change: nothing follows from that for others.
    """
    nothing: dict[str, Any] = {"value": None, "interval": None, "interval_seeds": None, "shown": None}
    if address is None or not after:
        return nothing
    early, late = Values(before), [Values(panel) for panel in after.values()]
    old, new = _at(early, address), [_at(values, address) for values in late]
    if old.value is None or any(each.value is None for each in new):
        return nothing
    changes = [each.value - old.value for each in new if each.value is not None]
    change = float(np.mean(changes))
    blocks = [values.left_out(address, -1) for values in (early, *late)]
    ends = seeds = None
    if None not in blocks and None not in [each.interval for each in (old, *new)]:
        parts = np.array(blocks)
        sizes = np.array([panel["jackknife"]["weights"] for panel in (before, *after.values())])
        level = before["intervals"]["level"]
        weights = (sizes[0] + sizes[1:].mean(axis=0)) / 2
        least = least_half_width([(values, address, -1) for values in (early, *late)], change=True)
        around = interval(change, parts[1:].mean(axis=0) - parts[0], weights, level, least=least)
        ends = [around.low, around.high]
    if len(set(changes)) > 1:
        estimate = paired_t(changes)
        seeds = [estimate.low, estimate.high]
    shown = None if ends is None else not ends[0] <= 0 <= ends[1]
    return {"value": change, "interval": ends, "interval_seeds": seeds, "shown": shown}


def _curves(pair: Pair, recipe: StudyRecipe, output: Path, outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """Return how alike the arms were at each kept checkpoint, where the recipe asked for that curve."""
    found = []
    for seed in recipe.seeds:
        step = f"curve/{pair.name}/seed-{seed}"
        file = f"{step}.json"
        if ended_well(step, outcomes) and (output / file).is_file():
            points = read_json(output / file)["points"]
            values = {key: [point[key] for point in points] for key in _CURVES if all(key in each for each in points)}
            steps = [int(point["step"]) for point in points]
            found.append({"seed": seed, "file": file, "steps": steps, "values": values})
    return found


def _published(pair: Pair) -> list[float] | None:
    found = published.published_pair(pair.base, pair.reasoning.backbone)
    return None if found is None or found.entropy is None else list(found.entropy)
