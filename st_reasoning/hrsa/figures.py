"""One picture per measure, drawn from a panel record."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette: told apart under every common colour vision deficiency.
_BLUE, _ORANGE, _GREEN, _PURPLE, _GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"

Panel = dict[str, Any]


def draw(panel: Panel, folder: Path) -> list[Path]:
    """Draw every measure the panel holds into PNG files in a folder that exists.

    Args:
        panel: As :func:`~st_reasoning.hrsa.panel` returns it.
        folder: Where to put the files.

    Returns:
        The files, one per measure; measures that were omitted have none.
    """
    drawings: dict[str, Callable[[Panel], Figure]] = {
        "linear_cka": _linear_cka,
        "dimension_correlation": _dimension_correlation,
        "procrustes": _procrustes,
        "knn_overlap": _knn_overlap,
        "linear_probe": _linear_probe,
    }
    paths = []
    for name, drawing in drawings.items():
        if name in panel["omitted"]:
            continue
        path = folder / f"{name}.png"
        figure = drawing(panel)
        FigureCanvasAgg(figure).print_figure(path, dpi=150)
        paths.append(path)
    return paths


def _linear_cka(panel: Panel) -> Figure:
    figure, curves = _with_heat_maps(panel, "Global geometry: linear CKA", "linear_cka", "viridis", 0.0)
    _curve(curves, panel, ("layers", "linear_cka", "biased"), "all tokens", _BLUE)
    _curve(curves, panel, ("layers", "linear_cka", "debiased"), "all tokens, debiased", _PURPLE, style="--")
    guarded = ("sensitivity", "linear_cka_without_sinks", "biased")
    _curve(curves, panel, guarded, "without sink tokens", _ORANGE)
    guarded = ("sensitivity", "linear_cka_standardised", "biased")
    _curve(curves, panel, guarded, "standardised dimensions", _GREEN, style="-.")
    _curve(curves, panel, ("layers", "linear_cka", "chance"), "chance (rows re-paired)", _GREY, style=":")
    _finish(curves, "Same layer in both models", "linear CKA", (0, 1))
    return figure


def _dimension_correlation(panel: Panel) -> Figure:
    title = "Coordinate basis: dimension-wise correlation"
    figure, curves = _with_heat_maps(panel, title, "dimension_correlation", "PuOr", -1.0)
    _curve(curves, panel, ("layers", "dimension_correlation", "value"), "all tokens", _BLUE)
    guarded = ("sensitivity", "dimension_correlation_without_sinks", "value")
    _curve(curves, panel, guarded, "without sink tokens", _ORANGE)
    _curve(curves, panel, ("layers", "dimension_correlation", "chance"), "chance", _GREY, style=":")
    _finish(curves, "Same layer in both models", "mean Pearson correlation", (None, 1))
    return figure


def _procrustes(panel: Panel) -> Figure:
    figure, (left, right) = _figure(panel, "Coordinate basis: best rotation between the models", columns=2)
    for axes, key in ((left, "inverse_row_entropy"), (right, "residual")):
        _curve(axes, panel, ("layers", "procrustes", key), "all tokens", _BLUE)
        _curve(axes, panel, ("sensitivity", "procrustes_without_sinks", key), "without sink tokens", _ORANGE)
        loose = [entry for entry in panel["layers"] if entry["procrustes"] and not entry["procrustes"]["determined"]]
        if loose:
            numbers, values = [e["layer"] for e in loose], [e["procrustes"][key] for e in loose]
            label = "rotation not determined by the tokens"
            axes.plot(numbers, values, "o", color=_PURPLE, markerfacecolor="white", zorder=3, label=label)
    _curve(left, panel, ("layers", "procrustes", "chance"), "chance (random rotation)", _GREY, style=":")
    right.axhline(1.0, color=_GREY, linestyle=":", label="predicting the mean")
    _finish(left, "Is the rotation a permutation? (1 = yes)", "inverse row entropy", (0, 1))
    _finish(right, "What it leaves unexplained on held-out sentences", "relative residual", (0, None))
    return figure


def _knn_overlap(panel: Panel) -> Figure:
    figure, (axes,) = _figure(panel, "Local geometry: shared nearest neighbours", columns=1)
    for k, colour in zip(panel["layers"][0]["knn_overlap"], _repeat(_BLUE, _ORANGE, _GREEN), strict=False):
        _curve(axes, panel, ("layers", "knn_overlap", k, "value"), f"k = {k}", colour)
        _curve(axes, panel, ("layers", "knn_overlap", k, "chance"), f"chance, k = {k}", colour, style=":")
    _finish(axes, "Same layer in both models", "mean Jaccard index of neighbour sets", (0, 1))
    return figure


def _linear_probe(panel: Panel) -> Figure:
    figure, (axes,) = _figure(panel, "Function: a linear probe carried over", columns=1)
    name_a, name_b = (model["name"] for model in panel["models"])
    _curve(axes, panel, ("layers", "linear_probe", "own"), f"fitted and tested on {name_a}", _BLUE)
    _curve(axes, panel, ("layers", "linear_probe", "transferred"), f"same probe on {name_b}", _ORANGE, style="--")
    _curve(axes, panel, ("layers", "linear_probe", "chance"), "commonest class", _GREY, style=":")
    tested = panel["layers"][0]["linear_probe"]["test_rows"]
    _finish(axes, f"Mean-pooled sentences, {tested} held out", "accuracy", (0, 1))
    return figure


def _figure(panel: Panel, title: str, *, columns: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(6.2 * columns, 4.8), layout="constrained")
    name_a, name_b = (model["name"] for model in panel["models"])
    size = f"{panel['corpus']['tokens']:,} tokens of {panel['corpus']['texts']:,} texts"
    figure.suptitle(f"{title}\n{name_a} and {name_b}, {size}")
    return figure, [figure.add_subplot(1, columns, number + 1) for number in range(columns)]


def _with_heat_maps(panel: Panel, title: str, name: str, colours: str, lowest: float) -> tuple[Figure, Axes]:
    """Draw the layer-by-layer matrix, and beside it the one without sinks if any were left out."""
    matrices = {"all tokens": panel["matrices"][name]}
    if panel["sinks_left_out"]:
        left_out = f"without {panel['sinks_left_out']:,} sink tokens"
        matrices[left_out] = panel["matrices"][f"{name}_without_sinks"]
    figure, (*maps, curves) = _figure(panel, title, columns=len(matrices) + 1)
    name_a, name_b = (model["name"] for model in panel["models"])
    for axes, (tokens, matrix) in zip(maps, matrices.items(), strict=True):
        values = [[float("nan") if value is None else value for value in row] for row in matrix]
        image = axes.imshow(values, cmap=colours, vmin=lowest, vmax=1.0, origin="lower", aspect="equal")
        axes.set(title=f"Every layer with every layer, {tokens}")
        axes.set(xlabel=f"layer of {name_b}", ylabel=f"layer of {name_a}")
        figure.colorbar(image, ax=axes, shrink=0.8)
    return figure, curves


def _curve(axes: Axes, panel: Panel, path: tuple[str, ...], label: str, colour: str, *, style: str = "-") -> None:
    """Plot the number at ``path`` below each layer's entry; layers without it leave a gap."""
    section, *keys = path
    numbers, values = [], []
    for entry in panel[section]:
        value: Any = entry
        for key in keys:
            value = None if value is None else value[key]
        numbers.append(entry["layer"])
        values.append(float("nan") if value is None else value)
    axes.plot(numbers, values, style, color=colour, label=label, linewidth=1.8)


def _finish(axes: Axes, title: str, quantity: str, limits: tuple[float | None, float | None]) -> None:
    """Label the axes; a limit that is a number gets room, so that curves on it stay visible."""
    low, high = limits
    axes.set(title=title, xlabel="layer (0 = token embedding)", ylabel=quantity)
    axes.set_ylim(None if low is None else low - 0.03, None if high is None else high + 0.03)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, framealpha=0.9)


def _repeat(*colours: str) -> Iterable[str]:
    while True:
        yield from colours
