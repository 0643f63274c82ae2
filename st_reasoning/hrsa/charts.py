"""What the figures of ``report.html`` show: which numbers of a record, beside what guards them, in which words."""

from __future__ import annotations

import csv
import io
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from st_reasoning.hrsa.svg import Curve, Matrix, Point

Record = dict[str, Any]
Path = tuple[str, ...]

_NOTHING: Point = (None, None, None)


@dataclass(frozen=True)
class Chart:
    """Curves over the layers.

    Attributes:
        title: What is shown.
        curves: The value first, then what guards it.
        low: Where the axis begins, None: where the values do.
        high: Where it ends.
        chance: What unrelated states give, if that is known.
        beyond: The side of chance on which values are no better than it.
    """

    title: str
    curves: list[Curve]
    low: float | None = 0.0
    high: float | None = 1.0
    chance: Curve | None = None
    beyond: Literal["below", "above"] = "below"

    def every(self) -> list[Curve]:
        """Return all curves, chance last."""
        return self.curves if self.chance is None else [*self.curves, self.chance]


@dataclass(frozen=True)
class HeatMap:
    """Every layer of the first model (rows) with every layer of the second (columns)."""

    title: str
    key: str
    values: Matrix
    half_widths: Matrix | None


@dataclass(frozen=True)
class Figure:
    """One measure: heat maps, curves, or both; or why there is none."""

    key: str
    title: str
    text: str
    charts: list[Chart] = field(default_factory=list)
    maps: list[HeatMap] = field(default_factory=list)
    colours: str = "viridis"
    span: tuple[float, float] = (0.0, 1.0)
    omitted: str | None = None


def at(entry: Any, path: Path) -> Any:
    """Return what lies below an entry, None where a step of the path is missing or null."""
    for key in path:
        entry = entry.get(key) if isinstance(entry, dict) else None
    return entry


def point(entry: Record, path: Path) -> Point:
    """Return the value at a path with its interval, which hrsa.json keeps beside it."""
    value = at(entry, path)
    if not isinstance(value, int | float):
        return _NOTHING
    low, high = at(entry, (*path[:-1], f"{path[-1]}_interval")) or (None, None)
    return (value, low, high)


def curve(record: Record | None, section: str, path: Path, style: str, label: str) -> Curve | None:
    """Return a quantity of ``layers`` or ``sensitivity`` by layer; None where it is defined at no layer."""
    points = [point(entry, path) for entry in (record or {}).get(section, ())]
    if all(value is None for value, _, _ in points):
        return None
    address = ".".join(path if section == "layers" else (section, *path))
    return Curve(style, label, address, points)


def guarded(record: Record, path: Path) -> list[Curve]:
    """Return a value's curve, those of the same without what may dominate it, and its ceiling.

    Args:
        record: Of a panel, or of its pooled part.
        path: Below a layer's entry.
    """
    measure, *rest = path
    unit = record["unit"]
    found = [curve(record, "layers", path, "value", f"all {unit}s")]
    if measure == "knn_overlap" and unit == "token":  # each text is a type of its own
        other = (*path[:-1], "value_other_types")
        found.append(curve(record, "layers", other, "types", "neighbours of other token types only"))
    if record.get("sinks_left_out") != 0:  # or it is the same curve
        without = (f"{measure}_without_sinks", *rest)
        found.append(curve(record, "sensitivity", without, "sinks", f"without sink {unit}s"))
    scaled = (f"{measure}_standardised", *rest)
    found.append(curve(record, "sensitivity", scaled, "scaled", "standardised dimensions"))
    ceiling = record.get("ceiling") or {}
    label = f"ceiling: the first model against itself in {ceiling.get('precision')}"
    found.append(curve(ceiling, "layers", path, "ceiling", label))
    return [each for each in found if each is not None]


def figures(record: Record) -> list[Figure]:
    """Return one figure per measure, in the order of the levels.

    Args:
        record: ``layers``, ``sensitivity``, ``matrices``, ``ceiling``, ``omitted``, ``models``, ``sinks_left_out``,
            and ``unit``: what a row of the compared states is.
    """
    drawn = [_correlation(record), _procrustes(record), _linear_cka(record), _knn_overlap(record), _probe(record)]
    return [figure if figure.charts or figure.maps else _left_out(record, figure) for figure in drawn]


def sensitivity(record: Record) -> Figure:
    """Return the figure of what raw values may owe to a few dimensions, tokens or token types."""
    names, unit = [model["name"] for model in record["models"]], record["unit"]
    quantities: list[tuple[str, str, float | None, float | None]] = [
        ("top_dimension_share", "Share of the variance in one dimension", 0.0, 1.0),
        ("effective_rank", "Effective rank: how many directions carry the variance", 0.0, None),
        ("sink_tokens", f"Sink {unit}s: far longer than the median one", 0.0, None),
        ("hubness", f"Hubness: skewness of how often a {unit} is a neighbour", None, None),
    ]
    if unit == "token":  # each text is a type of its own
        quantities.append(("same_type_share", "Share of nearest neighbours of the token's own type", 0.0, 1.0))
    charts = []
    for key, title, low, high in quantities:
        pairs = zip(("value", "sinks"), names, strict=True)
        curves = [curve(record, "sensitivity", (key, name), style, name) for style, name in pairs]
        if any(curves):
            charts.append(Chart(title, [each for each in curves if each is not None], low, high))
    text = (
        "One dimension that holds most of the variance, or a few sinks, can make two models look alike whatever the "
        "rest does. Where these curves are high, read the guarded values, not the raw ones. A hubness from 0 to 1 is "
        "none, above 2 it is strong."
    )
    return Figure("sensitivity", "What the raw values may owe to a few dimensions and tokens", text, charts)


def changes(realignment: Record) -> Figure:
    """Return the figure of how far training moved each value, for values that have several layers."""
    addresses = list(dict.fromkeys(change["address"] for change in realignment["changes"]))
    layers = sorted({change["layer"] for change in realignment["changes"] if change["layer"] is not None})
    found = {(change["address"], change["layer"]): change for change in realignment["changes"]}
    charts = []
    for address in addresses:
        points = []
        for layer in layers:
            change = found.get((address, layer)) or {}
            low, high = change.get("interval") or (None, None)
            points.append((change.get("change"), low, high))
        zero = Curve("chance", "no change", "", [(0.0, None, None)] * len(layers))
        shown = Curve("value", "after minus before", address, points)
        if shown.values:
            charts.append(Chart(address, [shown, zero], None, None))
    text = (
        "Above zero: the embedders are more alike than the backbones were (of a residual: less alike). "
        "Where the band holds zero, no change is shown."
    )
    return Figure("realignment", "Change of each value, layer by layer", text, charts if len(layers) > 1 else [])


def _correlation(record: Record) -> Figure:
    path = ("dimension_correlation", "value")
    curves = guarded(record, path)
    text = (
        "Does dimension 17 of one model mean what dimension 17 of the other means? Mean Pearson correlation of each "
        "dimension with its namesake; a rotation destroys it. 1: the same basis; 0: unrelated."
    )
    charts = [Chart("Mean correlation", curves, 0.0, 1.0, _chance(record, path[0], "chance"))] if curves else []
    title = "Coordinate basis: dimension-wise correlation"
    maps = _maps(record, {"dimension_correlation": "Correlation"})
    return Figure(path[0], title, text, charts, maps, "PuOr", (-1.0, 1.0))


def _procrustes(record: Record) -> Figure:
    text = (
        "The best rotation from one model to the other, fitted on some texts and scored on others. Inverse row "
        "entropy: 1 if it only renames dimensions, near chance if it mixes them all. Residual: what it leaves "
        "unexplained; 0 is a perfect map, 1 no better than predicting the mean. A ring: the texts are too few to "
        "determine the rotation."
    )
    loose = [place for place, layer in enumerate(record["layers"]) if at(layer, ("procrustes", "determined")) is False]
    charts = []
    for key, title in (
        ("inverse_row_entropy", "Inverse row entropy: is the rotation a permutation?"),
        ("residual", "Residual on held-out texts: less is more alike"),
    ):
        curves = guarded(record, ("procrustes", key))
        if not curves:
            continue
        if curves[0].style == "value":
            first = curves[0]
            curves[0] = Curve(first.style, first.label, first.address, first.points, frozenset(loose))
        if key == "residual":
            mean = [(1.0, None, None)] * len(record["layers"])
            charts.append(Chart(title, curves, 0.0, 1.1, Curve("chance", "predicting the mean", "", mean), "above"))
        else:
            charts.append(Chart(title, curves, 0.0, 1.0, _chance(record, "procrustes", "chance")))
    return Figure("procrustes", "Coordinate basis: the best rotation between the models", text, charts)


def _linear_cka(record: Record) -> Figure:
    text = (
        "Are tokens that are far apart in one model far apart in the other? 1: the same shape up to rotation, shift "
        "and scale. The debiased estimate stays near 0 for unrelated states; the biased one is what is usually "
        "published and grows when tokens are few."
    )
    charts = []
    for key, title, chance in (
        ("debiased", "Linear CKA, debiased", "debiased_chance"),
        ("biased", "Linear CKA, biased (as published)", "chance"),
    ):
        curves = guarded(record, ("linear_cka", key))
        if curves:
            charts.append(Chart(title, curves, 0.0, 1.0, _chance(record, "linear_cka", chance)))
    maps = _maps(record, {"linear_cka_debiased": "Debiased", "linear_cka": "Biased (as published)"})
    return Figure("linear_cka", "Global geometry: linear CKA", text, charts, maps)


def _knn_overlap(record: Record) -> Figure:
    text = (
        "Do tokens keep their nearest neighbours? Jaccard index of the two sets of k neighbours, averaged: 1 if all "
        "are shared, 0 if none is. Two tokens of the same type are often neighbours in any model, so the overlap is "
        "given without them as well."
    )
    charts = []
    for k in record["layers"][0]["knn_overlap"] or ():
        curves = guarded(record, ("knn_overlap", k, "value"))
        if curves:
            charts.append(Chart(f"k = {k}", curves, 0.0, 1.0, _chance(record, "knn_overlap", k, "chance")))
    return Figure("knn_overlap", "Local geometry: shared nearest neighbours", text, charts)


def _probe(record: Record) -> Figure:
    first, second = (model["name"] for model in record["models"])
    text = (
        "A linear classifier is fitted on the first model's sentence vectors and applied, unchanged, to the second's. "
        "If the difference is near 0, what can be read from one can be read from the other in the same way."
    )
    own = curve(record, "layers", ("linear_probe", "own"), "value", f"fitted and tested on {first}")
    moved = curve(record, "layers", ("linear_probe", "transferred"), "sinks", f"the same classifier on {second}")
    both = [each for each in (own, moved) if each is not None]
    charts = []
    if both:
        chance = _chance(record, "linear_probe", "chance", label="the commonest class")
        charts.append(Chart("Accuracy", both, 0.0, 1.0, chance))
    differences = guarded(record, ("linear_probe", "difference"))
    if differences:
        zero = Curve("chance", "no loss", "", [(0.0, None, None)] * len(record["layers"]))
        charts.append(Chart("Transferred minus own accuracy", [*differences, zero], None, 0.0))
    return Figure("linear_probe", "Linear readout: a classifier carried over", text, charts)


def _chance(record: Record, *path: str, label: str = "chance") -> Curve | None:
    return curve(record, "layers", path, "chance", label)


def _maps(record: Record, titles: dict[str, str]) -> list[HeatMap]:
    """Return the matrices of these names, each with the one that is without sinks beside it."""
    found, matrices, unit = [], record["matrices"], record["unit"]
    for key, title in titles.items():
        tokens = {"": f"all {unit}s"}
        if record.get("sinks_left_out") != 0:
            tokens["_without_sinks"] = f"without sink {unit}s"
        for suffix, words in tokens.items():
            values = matrices.get(key + suffix)
            if values is not None:
                half_widths = matrices.get(f"{key}{suffix}_half_width")
                found.append(HeatMap(f"{title}, {words}", key + suffix, values, half_widths))
    return found


def _left_out(record: Record, figure: Figure) -> Figure:
    reason = record["omitted"].get(figure.key, "undefined at every layer")
    return Figure(figure.key, figure.title, figure.text, omitted=reason)


def curves_csv(figure: Figure, layers: Sequence[int], matched: Sequence[int]) -> str:
    """Return a line per layer and quantity: its address in hrsa.json, its value and the ends of its interval."""
    rows: list[list[str]] = [["layer", "matched_layer", "address", "value", "low", "high"]]
    seen = set()
    for each in (each for shown in figure.charts for each in shown.every()):
        name = f"ceiling.{each.address}" if each.style == "ceiling" else each.address
        if not name or name in seen:
            continue
        seen.add(name)
        for layer, other, numbers in zip(layers, matched, each.points, strict=True):
            rows.append([str(layer), str(other), name, *map(_cell, numbers)])
    return _csv(rows)


def maps_csv(figure: Figure) -> str:
    """Return a line per pair of layers, a column per matrix and per half width of its interval."""
    columns: dict[str, Matrix] = {}
    for shown in figure.maps:
        columns[shown.key] = shown.values
        if shown.half_widths is not None:
            columns[f"{shown.key}_half_width"] = shown.half_widths
    shape = figure.maps[0].values
    rows = [["layer", "other_layer", *columns]]
    for a, line in enumerate(shape):
        rows += [[str(a), str(b), *(_cell(matrix[a][b]) for matrix in columns.values())] for b in range(len(line))]
    return _csv(rows)


def data_uri(text: str) -> str:
    """Return CSV as an address that a link can save."""
    return "data:text/csv;charset=utf-8," + urllib.parse.quote(text, safe=",.-_~:/()*!")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.7g}"


def _csv(rows: list[list[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
