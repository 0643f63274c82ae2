"""The figures of a study's report: which numbers are drawn, in which words, with their data to save."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from st_reasoning.errors import InputError
from st_reasoning.files import read_json
from st_reasoning.hrsa import svg
from st_reasoning.hrsa.addresses import Values
from st_reasoning.hrsa.svg import Curve, Point
from st_reasoning.results.html import number, text
from st_reasoning.study.drawings import Bar, Dot, Move, dumbbells, forest, scatter
from st_reasoning.study.mechanism import measures, name_of
from st_reasoning.study.prediction import scatter as drawn_values
from st_reasoning.study.tables import Table

# Colour and dash of the curves; more seeds than there are kinds share the last one.
_STYLES = ("sinks", "scaled", "types")


@dataclass(frozen=True)
class Plot:
    """One drawing with its title."""

    title: str
    drawing: Markup


@dataclass(frozen=True)
class Figure:
    """Drawings that belong together.

    Attributes:
        key: Names it in links and files.
        title: Above it.
        text: How to read it.
        plots: The drawings.
        legend: Style and label of each kind of line.
        data: The numbers that are drawn.
    """

    key: str
    title: str
    text: str
    plots: list[Plot]
    legend: list[tuple[str, str]]
    data: Table
    pairs: list[str] = field(default_factory=list)


def scores(study: dict[str, Any]) -> Figure | None:
    """Return the differences of all pairs with their intervals."""
    bars, rows = [], []
    for pair in study["pairs"]:
        if pair["comparison"] is None:
            continue
        row = pair["comparison"]["rows"][0]
        found = [each for each in (row["interval"], *row["other_intervals"]) if each is not None]
        narrow = next((each for each in found if each["over"] == "seeds"), None)
        ends = [None if each is None else (each["low"], each["high"]) for each in (row["interval"], narrow)]
        bars.append(Bar(pair["name"], row["difference"], ends[0], ends[1], row["word"]))
        rows.append([
            text(pair["name"]), text(pair["method"]), number(row["difference"]),
            *(number(end) for end in ends[0] or (None, None)),
            text("" if row["interval"] is None else row["interval"]["over"]),
            *(number(end) for end in ends[1] or (None, None)), text(row["word"]),
        ])  # fmt: skip
    if not bars:
        return None
    kinds = ", or ".join(dict.fromkeys(f"over {row[5]['text']}" for row in rows if row[5]["text"]))
    head = ("pair", "method", "difference", "low", "high", "over", "low_seeds", "high_seeds", "word")
    return Figure(
        "differences",
        "How much the reasoning model gives",
        f"To the right: the embedder from the reasoning model scores more. Grey: differences below {study['margin']:g} "
        f"points, taken for none. The thin line is the interval that decides ({kinds or 'none here'}); the thick one "
        "is over seeds alone, on these tasks. An arrow: it goes on.",
        [Plot("Mean over all tasks", forest(bars, study["margin"]))],
        [("whisker", "interval that decides"), ("thick", "over seeds alone"), ("shade", "no difference that matters")],
        _data("differences", head, rows),
    )


def moves(study: dict[str, Any]) -> Figure | None:
    """Return, for each level, where the value of every pair was before training and is after it."""
    rows: list[list[dict[str, Any]]] = []
    by_name: dict[str, list[Move]] = {}
    for pair in study["pairs"]:
        shown = _drawn(pair)
        for value in pair["mechanism"]["values"]:
            before = value["backbones"]
            if not value["guarded"] or before["value"] is None or value["name"] not in shown:
                continue
            after = [each["value"] for each in value["embedders"] if each["value"] is not None]
            ends = None if before["interval"] is None else (before["interval"][0], before["interval"][1])
            move = Move(pair["name"], before["value"], ends, after, before["chance"])
            if "difference" in value["address"]:  # its chance is that of the accuracy, far off
                move = Move(pair["name"], before["value"], ends, after, None)
            by_name.setdefault(value["name"], []).append(move)
            backbones = pair["mechanism"]["backbones"]["file"]
            rows.append([
                text(pair["name"]), text("backbones"), text(value["address"]), number(before["value"]),
                *(number(end) for end in before["interval"] or (None, None)), text(backbones),
            ])  # fmt: skip
            rows += [
                [
                    text(pair["name"]), text(f"embedders, seed {each['seed']}"), text(value["address"]),
                    number(each["value"]), *(number(end) for end in each["interval"] or (None, None)),
                    text(f"hrsa/{pair['name']}/seed-{each['seed']}/hrsa.json"),
                ]
                for each in value["embedders"]
            ]  # fmt: skip
    if not by_name:
        return None
    plots = [Plot(name, dumbbells(found, name)) for name, found in by_name.items()]
    return Figure(
        "realignment",
        "Before and after contrastive training",
        "One line for each pair: how alike its two backbones are (ring, with its interval) and its two embedders (a "
        "dot for each seed), at the last layer and, but for the readout, without sink tokens. A move to the right is "
        "realignment; of a residual, one to the left.",
        plots,
        [("ring", "backbones"), ("spot", "embedders, a dot for each seed"), ("tick", "chance, of the backbones")],
        _data("realignment", ("pair", "of", "address", "value", "low", "high", "file"), rows),
    )


def correlations(study: dict[str, Any]) -> Figure | None:
    """Return an HRSA value of the backbones for each level against the score difference."""
    found, scored = study["prediction"], study["prediction"]["pairs"]
    ends = {bar["name"]: _seed_ends(bar) for bar in study["pairs"]}
    places = {name: place for place, name in enumerate(scored, start=1)}
    files = {pair["name"]: (pair["hrsa"]["backbones"] or "") for pair in study["pairs"]}
    plots, rows = [], []
    for row in drawn_values(found):
        dots = [
            Dot(places[name], name, value, scored[name], ends[name])
            for name, value in row["by_pair"].items()
            if name in scored
        ]
        title = f"{row['level'][:1].upper()}{row['level'][1:]}: {row['name']}"
        plots.append(Plot(title, scatter(dots, row["name"], svg.shortened(row["name"], 44))))
        rows += [
            [text(dot.name), text(row["address"]), number(dot.x), text(files[dot.name]), number(dot.y)] for dot in dots
        ]
    if not plots:
        return None
    return Figure(
        "drift",
        "Drift of the backbones against the score difference",
        "Each dot is a pair, numbered below; its upright line is the interval over seeds alone, with an arrow where it "
        "goes on. Up: the reasoning model embeds better. To the right: its backbone is more like the base. One value "
        "for each level, chosen beforehand.",
        plots,
        [],
        _data("drift", ("pair", "address", "value", "file", "difference"), rows),
        pairs=list(scored),
    )


def layers(pair: dict[str, Any], folder: Path) -> Figure | None:
    """Return the values of a pair's backbones and embedders at every layer; None where a panel is missing."""
    found = pair["mechanism"]
    if found["backbones"] is None or not found["embedders"]:
        return None
    files = [("value", "backbones", found["backbones"]["file"])]
    for place, each in enumerate(found["embedders"]):
        style = _STYLES[min(place, len(_STYLES) - 1)]
        files.append((style, f"embedders, seed {each['seed']}", each["file"]))
    try:
        panels = [(style, label, file, read_json(folder / file)) for style, label, file in files]
    except InputError:
        return None  # moved away since; the table of missing files is that of the run
    records = [(style, label, file, Values(panel)) for style, label, file, panel in panels]
    plots, rows = [], []
    for addresses in measures(panels[0][3]["settings"]["k"]).values():
        raw = addresses[0]
        curves = [Curve(style, label, raw, _points(values, raw)) for style, label, _, values in records]
        curves = [each for each in curves if each.values]
        if not curves:
            continue
        numbers = [layer["layer"] for layer in panels[0][3]["layers"]]
        low, high = (None, 0.0) if raw.endswith("difference") else (0.0, 1.0)
        drawing = svg.chart(
            curves, numbers, span=svg.limits(curves, low, high), chance=None, beyond="below",
            description=f"{name_of(raw)} of {pair['name']}, by layer", x_label="layer (0 = token embedding)",
        )  # fmt: skip
        plots.append(Plot(name_of(raw), drawing))
        for _, label, file, values in records:
            rows += [
                [text(label), text(raw), number(layer, 0), *(number(end) for end in point), text(file)]
                for layer, point in zip(numbers, _points(values, raw), strict=False)
            ]
    key = f"{pair['name']}-layers"
    return Figure(
        key,
        f"{pair['name']}: layer by layer",
        "The same values at every layer, without sink tokens where there are any. Bands: intervals over sentences.",
        plots,
        [(style, label) for style, label, _ in files],
        _data(key, ("of", "address", "layer", "value", "low", "high", "file"), rows),
    )


def training(pair: dict[str, Any]) -> Figure | None:
    """Return how alike the arms were at each checkpoint of their training, where the recipe asked for that."""
    found = pair["mechanism"]["curves"]
    if not found:
        return None
    names = {
        "linear_cka": "Linear CKA, debiased",
        "knn_overlap": "Shared neighbours",
        "dimension_correlation": "Dimension-wise correlation",
    }
    styles = [("value", *_STYLES)[min(place, len(_STYLES))] for place in range(len(found))]
    labels = [f"seed {each['seed']}" for each in found]
    steps = found[0]["steps"]
    plots, rows = [], []
    for key, title in names.items():
        curves = []
        for style, label, each in zip(styles, labels, found, strict=True):
            values = each["values"].get(key)
            if values is None:
                continue
            rows += [
                [text(label), text(key), number(step, 0), number(value), text(each["file"])]
                for step, value in zip(each["steps"], values, strict=True)
            ]
            if each["steps"] == steps:  # another one has no place on this axis; its numbers are in the data
                curves.append(Curve(style, label, key, [(value, None, None) for value in values]))
        if any(each.values for each in curves):
            drawing = svg.chart(
                curves, steps, span=svg.limits(curves, 0.0, 1.0), chance=None, beyond="below",
                description=f"{title} of the two arms of {pair['name']}, by training step", x_label="training step",
            )  # fmt: skip
            plots.append(Plot(title, drawing))
    key = f"{pair['name']}-training"
    return Figure(
        key,
        f"{pair['name']}: over training",
        "How alike the two arms are at the last layer of each kept checkpoint; step 0: converted and not trained.",
        plots,
        list(zip(styles, labels, strict=True)),
        _data(key, ("of", "value", "step", "number", "file"), rows),
    )


def _drawn(pair: dict[str, Any]) -> set[str]:
    """Return the values that are drawn: all of the basis, of the other levels the one that decides the word."""
    found: dict[str, list[str]] = {}
    for value in pair["mechanism"]["values"]:
        found.setdefault(value["level"], []).append(value["name"])
    return {name for level, names in found.items() for name in (names if level == "coordinate basis" else names[:1])}


def _points(values: Values, raw: str) -> list[Point]:
    """Return a value by layer, without sinks where that is defined."""
    measure, rest = raw.split(".", 1)
    address = f"sensitivity.{measure}_without_sinks.{rest}"
    found: list[Point] = []
    for layer in range(values.layers):
        at = [values.at(each, layer) for each in (address, raw) if each in values]
        value = next((each for each in at if each.value is not None), None)
        ends = (None, None) if value is None or value.interval is None else value.interval
        found.append((None if value is None else value.value, *ends))
    return found


def _seed_ends(pair: dict[str, Any]) -> tuple[float, float] | None:
    if pair["comparison"] is None:
        return None
    row = pair["comparison"]["rows"][0]
    found = (each for each in (row["interval"], *row["other_intervals"]) if each is not None)
    each = next((each for each in found if each["over"] == "seeds"), None)
    return None if each is None or not np.isfinite(each["low"]) else (each["low"], each["high"])


def _data(key: str, head: tuple[str, ...], rows: list[list[dict[str, Any]]]) -> Table:
    return Table(key, key, "", [(name, True) for name in head], rows)
