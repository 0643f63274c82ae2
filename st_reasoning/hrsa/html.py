"""``report.html``: one self-contained page about a panel, plain words first."""

from __future__ import annotations

import csv
import io
from importlib import resources
from typing import Any

from markupsafe import Markup

from st_reasoning.hrsa import svg
from st_reasoning.hrsa.addresses import Values
from st_reasoning.hrsa.charts import (
    Figure,
    Path,
    Record,
    at,
    changes,
    curve,
    curves_csv,
    data_uri,
    figures,
    guarded,
    maps_csv,
    sensitivity,
)
from st_reasoning.hrsa.svg import Curve, Point, number
from st_reasoning.html import script_hash, templates

# By level of the reading: what it asks, and its measures: name, path below a layer's entry, name of its chance level.
LEVELS: dict[str, tuple[str, list[tuple[str, Path, str | None]]]] = {
    "coordinate basis": (
        "Does each dimension mean the same in both models?",
        [
            ("Dimension-wise correlation", ("dimension_correlation", "value"), "chance"),
            ("Procrustes, inverse row entropy", ("procrustes", "inverse_row_entropy"), "chance"),
            ("Procrustes, residual (less is more alike)", ("procrustes", "residual"), None),
        ],
    ),
    "global geometry": (
        "Is the cloud of states the same shape?",
        [
            ("Linear CKA, debiased", ("linear_cka", "debiased"), "debiased_chance"),
            ("Linear CKA, biased", ("linear_cka", "biased"), "chance"),
        ],
    ),
    "local geometry": ("Do states keep their nearest neighbours?", []),  # by k, see _measures
    "linear readout": (
        "Does a classifier of one model work on the other?",
        [
            ("Probe, transferred minus own accuracy", ("linear_probe", "difference"), None),
            ("Probe, own accuracy", ("linear_probe", "own"), "chance"),
            ("Probe, transferred accuracy", ("linear_probe", "transferred"), "chance"),
        ],
    ),
}  # fmt: skip
# What the reader needs no further word for.
_PLAIN_STYLES = ("value", "ceiling")


def render(panel: dict[str, Any], *, realignment: dict[str, Any] | None = None) -> str:
    """Return the page for a panel.

    Args:
        panel: As :func:`~st_reasoning.hrsa.panel` returns it. What a record does not hold is not shown.
        realignment: How the embedders' panel differs from the backbones': ``levels``, each with ``level``, ``word``,
            ``rule`` and ``sentence``, and ``changes``, each with ``address``, ``layer``, ``before``, ``after``,
            ``change`` and ``interval``.

    Returns:
        HTML that asks nothing of the network. Names and texts from models and data are escaped.
    """
    environment = templates("st_reasoning.hrsa")
    environment.filters["number"] = number
    environment.globals |= {"swatch": svg.swatch, "percent": lambda share: f"{100 * share:g} %"}
    script = Markup(resources.files("st_reasoning.hrsa").joinpath("readout.js").read_text(encoding="utf-8"))  # noqa: S704
    names = [model["name"] for model in panel["models"]]
    marked = _marked(panel)
    parts = [_part({**panel, "unit": "token"}, marked, "")]
    if panel.get("pooled") is not None:
        pooled = {**panel["pooled"], "models": panel["models"], "ceiling": None, "unit": "text"}
        parts.append(_part(pooled, _marked(pooled), "pooled-"))
        marked = _marked(pooled) | marked
    return environment.get_template("report.html.j2").render(
        panel=panel,
        names=names,
        intervals=panel.get("intervals"),
        reading=panel.get("reading"),
        questions={level: question for level, (question, _) in LEVELS.items()},
        parts=parts,
        realignment=None if realignment is None else _realignment(realignment),
        sinks=_sinks(panel),
        facts=_facts(panel),
        marked=marked,
        script=script,
        script_hash=script_hash(script),
    )


def _marked(record: Record) -> dict[str, str]:
    """Return the addresses whose interval has a reservation, and which."""
    return (record.get("intervals") or {}).get("marked") or {}


def _part(record: Record, marked: dict[str, str], prefix: str) -> dict[str, Any]:
    """Return what the page shows of one layer-by-layer comparison: table of levels, figures, sensitivity.

    Args:
        record: As :func:`~st_reasoning.hrsa.charts.figures` takes it.
        marked: Addresses whose interval has a reservation.
        prefix: Of the ids in the page.
    """
    layers = [layer["layer"] for layer in record["layers"]]
    matched = [layer["matched_layer"] for layer in record["layers"]]
    shown = [_figure(figure, record, layers, matched, marked, prefix) for figure in figures(record)]
    return {
        "unit": record["unit"],
        "reading": record.get("reading"),
        "prefix": prefix,
        "ceiling": record.get("ceiling"),
        "levels": _levels(record, marked),
        "figures": shown,
        "sensitivity": _figure(sensitivity(record), record, layers, matched, marked, prefix),
        "last": layers[-1],
        "matched": None if layers == matched else list(zip(layers, matched, strict=True)),
    }


def _measures(record: Record) -> dict[str, list[tuple[str, Path, str | None]]]:
    neighbours: list[tuple[str, Path, str | None]] = [
        (f"Shared neighbours, k\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{k}", ("knn_overlap", k, "value"), "chance")
        for k in record["layers"][0]["knn_overlap"] or ()
    ]
    return {level: neighbours if level == "local geometry" else rows for level, (_, rows) in LEVELS.items()}


def _levels(record: Record, marked: dict[str, str]) -> list[dict[str, Any]]:
    """Return the rows of the table of levels: each measure at the last layer, over all layers, and what guards it."""
    found, values = [], Values(record)
    for level, measures in _measures(record).items():
        rows, reasons = [], []
        for label, path, chance in measures:
            curves = guarded(record, path)
            if not curves or curves[0].style != "value":
                reasons.append(record["omitted"].get(path[0], "undefined at every layer"))
                continue
            at_chance = None if chance is None else curve(record, "layers", (*path[:-1], chance), "chance", "chance")
            ceilings = [each for each in curves if each.style == "ceiling"]
            rows.append({
                "label": label,
                "value": _last(curves[0]),
                "mark": curves[0].address in marked,
                "lowest": min(curves[0].values),
                "highest": max(curves[0].values),
                "chance": None if at_chance is None else _last(at_chance)[0],
                "ceiling": _last(ceilings[0])[0] if ceilings else None,
                "guards": [
                    {
                        "label": each.label,
                        "value": _last(each),
                        "chance": values.at(each.address, -1).chance,
                        "mark": each.address in marked,
                    }
                    for each in curves
                    if each.style not in _PLAIN_STYLES
                ],
            })  # fmt: skip
        if measures:
            found.append({"level": level, "rows": rows, "omitted": list(dict.fromkeys(reasons))})
    return found


def _last(shown: Curve) -> Point:
    return shown.points[-1]


def _figure(
    figure: Figure, record: Record, layers: list[int], matched: list[int], marked: dict[str, str], prefix: str
) -> dict[str, Any]:
    """Return a figure as the template takes it: drawings, legend, tables and links to its data."""
    first, second = (model["name"] for model in record["models"])
    x_label = "layer (0 = token embedding)"
    if layers != matched:
        x_label = svg.axis_label(first)
    charts = []
    for shown in figure.charts:
        span = svg.limits(shown.every(), shown.low, shown.high)
        charts.append({
            "title": shown.title,
            "curves": shown.every(),
            "drawing": svg.chart(
                shown.curves,
                layers,
                span=span,
                chance=shown.chance,
                beyond=shown.beyond,
                description=_described(shown.title, shown.every(), layers),
                x_label=x_label,
            ),
            "rows": [
                (layer, [each.points[place] for each in shown.every()]) for place, layer in enumerate(layers)
            ],
        })  # fmt: skip
    pairs = [(layer, other) for layer, other in zip(layers, matched, strict=True)]
    maps = [
        {
            "title": shown.title,
            "key": f"{prefix}{shown.key}",
            "values": shown.values,
            "half_widths": shown.half_widths,
            "drawing": svg.heat_map(
                shown.values,
                colours=figure.colours,
                span=figure.span,
                matched=pairs,
                description=_described_map(shown.title, shown.values, first, second),
                names=(first, second),
            ),
        }
        for shown in figure.maps
    ]
    links = []
    if charts:
        links.append(("curves", f"{prefix}{figure.key}.csv", data_uri(curves_csv(figure, layers, matched))))
    if maps:
        links.append(("heat maps", f"{prefix}{figure.key}-matrix.csv", data_uri(maps_csv(figure))))
    return {
        "id": f"{prefix}{figure.key}".replace("_", "-"),
        "title": figure.title,
        "text": "" if prefix else figure.text,  # said once
        "omitted": figure.omitted,
        "charts": charts,
        "bands": any(low is not None for shown in figure.charts for each in shown.curves for _, low, _ in each.points),
        "maps": maps,
        "colour_bar": svg.colour_bar(figure.colours, figure.span) if maps else None,
        "widths": _half_widths(figure),
        "legend": _legend(figure, marked),
        "links": links,
    }


def _legend(figure: Figure, marked: dict[str, str]) -> list[dict[str, Any]]:
    """Return style, label and whether an interval has a reservation, once for each kind of line of a figure."""
    found: dict[tuple[str, str], bool] = {}
    for each in (each for shown in figure.charts for each in shown.every()):
        key = each.style, each.label
        found[key] = found.get(key, False) or each.address in marked
    lines = [{"style": style, "label": label, "mark": mark} for (style, label), mark in found.items()]
    if any(shown.chance is not None for shown in figure.charts):
        lines.append({"style": "shade", "label": "no better than that", "mark": False})
    if any(each.hollow for shown in figure.charts for each in shown.curves):
        lines.append({"style": "ring", "label": "rotation not determined by the texts", "mark": False})
    return lines


def _described(title: str, curves: list[Curve], layers: list[int]) -> str:
    """Return in words what a drawing of curves shows."""
    said = [f"{title}, layers {layers[0]} to {layers[-1]}"]
    for each in curves:
        if each.values:
            last = number(each.points[-1][0]) if each.points[-1][0] is not None else "undefined"
            lowest, highest = number(min(each.values)), number(max(each.values))
            said.append(f"{each.label}: from {lowest} to {highest}, {last} at the last layer")
    return ". ".join(said) + "."


def _described_map(title: str, values: svg.Matrix, first: str, second: str) -> str:
    known = [value for row in values for value in row if value is not None]
    span = f"values from {number(min(known))} to {number(max(known))}" if known else "no value is defined"
    return f"{title}: {len(values)} layers of {first} by {len(values[0])} layers of {second}, {span}."


def _half_widths(figure: Figure) -> dict[str, float] | None:
    """Return the median and the largest half width of the intervals of all cells of a figure's heat maps."""
    known = sorted(
        value for shown in figure.maps for row in shown.half_widths or () for value in row if value is not None
    )
    return {"median": known[len(known) // 2], "largest": known[-1]} if known else None


def _realignment(realignment: dict[str, Any]) -> dict[str, Any]:
    """Return the words, the changes, their figure and a link to their data."""
    figure = changes(realignment)
    layers = sorted({change["layer"] for change in realignment["changes"] if change["layer"] is not None})
    charts = [
        {
            "title": shown.title,
            "drawing": svg.chart(
                shown.curves,
                layers,
                span=svg.limits(shown.curves, shown.low, shown.high),
                chance=None,
                beyond="below",
                description=_described(shown.title, shown.curves, layers),
                x_label="layer",
            ),
        }
        for shown in figure.charts
    ]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["address", "layer", "before", "after", "change", "low", "high"])
    for change in realignment["changes"]:
        numbers = [change[key] for key in ("before", "after", "change")] + list(change["interval"] or (None, None))
        shown = ["" if value is None else f"{value:.7g}" for value in numbers]
        writer.writerow([change["address"], "" if change["layer"] is None else change["layer"], *shown])
    return {
        **realignment,
        "text": figure.text,
        "charts": charts,
        "legend": _legend(figure, {}),
        "link": data_uri(stream.getvalue()),
    }


def _sinks(panel: Record) -> dict[str, Any] | None:
    """Return how many tokens are sinks and the places in their texts where most of them stand."""
    sinks = panel.get("sinks")
    if sinks is None:
        return None
    places = sorted(sinks["positions"].items(), key=lambda item: (-item[1], int(item[0])))
    return {"tokens": sinks["tokens"], "places": places[:8], "others": sum(count for _, count in places[8:])}


def _facts(panel: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what the page says at the end of texts, settings, software and time, as names and values."""
    found = []
    for title, key in (
        ("Texts", "corpus"),
        ("Tokens looked at", "sample"),
        ("Settings", "settings"),
        ("Seconds", "runtime"),
        ("Versions", "versions"),
    ):
        rows = list(_flat(at(panel, (key,)) or {}))
        if rows:
            found.append((title, rows))
    return found


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [row for key, item in value.items() for row in _flat(item, f"{name}.{key}" if name else str(key))]
    text = ", ".join(map(str, value)) if isinstance(value, list) else value
    if isinstance(text, bool):
        text = "yes" if text else "no"
    return [(name.replace("_", " "), "\N{EN DASH}" if text is None else str(text))]
