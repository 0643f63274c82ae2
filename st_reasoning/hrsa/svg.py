"""Curves and heat maps as SVG: plain functions, no chart library, nothing fetched.

A line has only a class; the page gives it colour and dash, so that one drawing serves light, dark and print.
Symbols: L layers.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from markupsafe import Markup

# A value with the two ends of its interval; None where it is undefined.
Point = tuple[float | None, float | None, float | None]
Matrix = Sequence[Sequence[float | None]]

# Units of the drawings. As wide as a phone shows without shrinking its text below 10 pixels.
_WIDTH, _HEIGHT = 380.0, 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 8.0, 8.0, 38.0
_ROUNDING = 1e-4  # a similarity of 1 may come out as a little more
_PIXELS = 6  # of a cell's edge in the picture of a heat map: viewers that smooth pictures keep its cells apart


@dataclass(frozen=True)
class Curve:
    """One quantity by layer.

    Attributes:
        style: The class that the page gives a colour and a dash.
        label: What the legend calls it.
        address: What hrsa.json calls it; empty for a line that is drawn for comparison and not in the record.
        points: L of them.
        hollow: Places, below L, that are drawn as a ring: there is a reservation about them.
    """

    style: str
    label: str
    address: str
    points: Sequence[Point]
    hollow: frozenset[int] = frozenset()

    @property
    def values(self) -> list[float]:
        """The values that are defined."""
        return [value for value, _, _ in self.points if value is not None]


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as a reader expects it: a dash for what is undefined, a true minus sign, no minus zero."""
    if value is None:
        return "\N{EN DASH}"
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "\N{MINUS SIGN}")


def shortened(name: str, length: int) -> str:
    """Return a name that fits beside an axis: its middle gives way, since names of a family differ at both ends."""
    if len(name) <= length:
        return name
    head = (length - 1) // 2
    return f"{name[:head]}\N{HORIZONTAL ELLIPSIS}{name[head + 1 - length :]}"


def axis_label(name: str, extent: float = _WIDTH - _LEFT - _RIGHT) -> str:
    """Return what an axis of this length says of a model's layers; a letter is given 7 units."""
    return f"layer of {shortened(name, int(extent / 7) - len('layer of '))}"


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Return round numbers from ``low`` to ``high``, at most ``most`` of them, and only whole ones if so wished."""
    rough = max((high - low) / max(1, most - 1), 1e-12)
    power = 10.0 ** math.floor(math.log10(rough))
    # The smallest of the steps 1, 2, 5, 10 that is not smaller than the rough one.
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, round(step))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def limits(curves: Iterable[Curve], low: float | None, high: float | None) -> tuple[float, float]:
    """Return where an axis begins and ends: at the wished numbers, or further out where a value is.

    An interval stretches an axis whose end is free, by twice the reach of the values at most: a very wide one would
    flatten all curves.
    """
    values = [value for curve in curves for value in curve.values]
    if not values:
        return (0.0 if low is None else low, 1.0 if high is None else high)
    lowest, highest = min(values), max(values)
    reach = 2 * (highest - lowest) or float("inf")
    ends = [end for curve in curves for shown in curve.points for end in shown[1:] if end is not None]
    if low is None:
        lowest = max(min([lowest, *ends]), lowest - reach)
    if high is None:
        highest = min(max([highest, *ends]), highest + reach)
    first, last = min(lowest, lowest if low is None else low), max(highest, highest if high is None else high)
    room = 0.04 * (last - first) or 0.05 * abs(last) or 1.0
    return (
        low if low is not None and lowest >= low - _ROUNDING else lowest - room,
        high if high is not None and highest <= high + _ROUNDING else highest + room,
    )


def chart(
    curves: Sequence[Curve],
    layers: Sequence[int],
    *,
    span: tuple[float, float],
    chance: Curve | None,
    beyond: Literal["below", "above"],
    description: str,
    x_label: str,
) -> Markup:
    """Draw curves over layers, each with its band, on top of the region that is no better than chance.

    Args:
        curves: Later ones are drawn over earlier ones: the first is solid and shows between their dashes.
        layers: L layer numbers, rising.
        span: Where the vertical axis begins and ends; what is outside is drawn at its edge.
        chance: A line; the side of it that ``beyond`` names is shaded.
        beyond: On which side values are no better than chance.
        description: For those who do not see the drawing.
        x_label: Below the horizontal axis.
    """
    low, high = span
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    reach = max(1, layers[-1] - layers[0])

    def x(place: int) -> float:
        return _LEFT + (layers[place] - layers[0]) / reach * (right - _LEFT)

    def y(value: float) -> float:
        return bottom - (min(max(value, low), high) - low) / (high - low) * (bottom - _TOP)

    parts = []
    if chance is not None:
        edge = bottom if beyond == "below" else _TOP
        for run in _runs(chance.points):
            outline = [(x(place), y(_value(chance.points[place]))) for place in run]
            if len(run) == 1:  # as wide as a layer
                half = (right - _LEFT) / max(1, len(layers) - 1) / 2
                outline = [
                    (max(_LEFT, outline[0][0] - half), outline[0][1]),
                    (min(right, outline[0][0] + half), outline[0][1]),
                ]
            corners = [(outline[-1][0], edge), (outline[0][0], edge)]
            parts.append(Markup('<path class="shade" d="{}Z"/>').format(_line([*outline, *corners])))
    level = Markup('<path class="grid" d="M{:.0f} {:.1f}H{:.0f}"/><text x="{:.0f}" y="{:.1f}" class="y">{}</text>')
    parts += [
        level.format(_LEFT, y(tick), right, _LEFT - 6, y(tick) + 4, _tick(tick, high - low))
        for tick in ticks(low, high, 6)
    ]
    for tick in ticks(layers[0], layers[-1], 8, whole=True):
        place = _LEFT + (tick - layers[0]) / reach * (right - _LEFT)
        parts.append(Markup('<text x="{:.1f}" y="{:.0f}" class="x">{:.0f}</text>').format(place, bottom + 15, tick))
    parts.append(Markup('<path class="axis" d="M{:.0f} {:.0f}H{:.0f}"/>').format(_LEFT, bottom, right))
    middle = (_LEFT + right) / 2
    parts.append(Markup('<text x="{:.0f}" y="{:.0f}" class="x name">{}</text>').format(middle, _HEIGHT - 6, x_label))
    for curve in curves:
        ends = [(low_end is not None and high_end is not None) for _, low_end, high_end in curve.points]
        for run in _runs(curve.points, ends):
            lower = [(x(place), y(_end(curve.points[place], 1))) for place in run]
            upper = [(x(place), y(_end(curve.points[place], 2))) for place in run]
            drawn = "bar" if len(run) == 1 else "band"
            parts.append(
                Markup('<path class="{} {}" d="{}Z"/>').format(drawn, curve.style, _line([*upper, *lower[::-1]]))
            )
    dot = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="2.2"/>')
    ring = Markup('<circle class="ring {}" cx="{:.1f}" cy="{:.1f}" r="3"/>')
    for curve in [*([] if chance is None else [chance]), *curves]:
        for run in _runs(curve.points):
            dots = [(x(place), y(_value(curve.points[place]))) for place in run]
            if len(run) == 1:
                parts.append(dot.format(curve.style, *dots[0]))
            else:
                parts.append(Markup('<path class="line {}" d="{}"/>').format(curve.style, _line(dots)))
            rings = (spot for spot, place in zip(dots, run, strict=True) if place in curve.hollow)
            parts += [ring.format(curve.style, *spot) for spot in rings]
    return _picture(_WIDTH, _HEIGHT, description, parts)


def heat_map(
    values: Matrix,
    *,
    colours: str,
    span: tuple[float, float],
    matched: Sequence[tuple[int, int]],
    description: str,
    names: tuple[str, str],
) -> Markup:
    """Draw a matrix as cells, its first row at the bottom; undefined cells show the ground.

    Args:
        values: [L_a, L_b].
        colours: A colour map of matplotlib.
        span: The values of its two ends.
        matched: Cells, row and column, that a line is drawn through.
        description: For those who do not see the drawing.
        names: What the rows and the columns are layers of.
    """
    rows, columns = len(values), len(values[0])
    width = _WIDTH - _LEFT - _RIGHT
    height = width * min(1.0, max(0.5, rows / columns))
    bottom = _TOP + height
    across, up = width / columns, height / rows
    cells = np.array([[np.nan if value is None else value for value in row] for row in values], dtype=float)
    ground = Markup('<rect class="ground" x="{:.0f}" y="{:.0f}" width="{:.1f}" height="{:.1f}"/>')
    picture = Markup(
        '<image x="{:.0f}" y="{:.0f}" width="{:.1f}" height="{:.1f}" preserveAspectRatio="none" href="{}"/>'
    )
    parts = [
        ground.format(_LEFT, _TOP, width, height),
        picture.format(_LEFT, _TOP, width, height, _cells(cells[::-1], colours, span, _PIXELS)),
    ]
    path = _line([(_LEFT + (column + 0.5) * across, bottom - (row + 0.5) * up) for row, column in matched])
    parts.append(Markup('<path class="halo" d="{}"/><path class="matched" d="{}"/>').format(path, path))
    for tick in ticks(0, columns - 1, 8, whole=True):
        place = _LEFT + (tick + 0.5) * across
        parts.append(Markup('<text x="{:.1f}" y="{:.1f}" class="x">{:.0f}</text>').format(place, bottom + 15, tick))
    for tick in ticks(0, rows - 1, 8, whole=True):
        place = bottom - (tick + 0.5) * up + 4
        parts.append(Markup('<text x="{:.0f}" y="{:.1f}" class="y">{:.0f}</text>').format(_LEFT - 6, place, tick))
    labels = [axis_label(name, extent) for name, extent in zip(names, (height, width), strict=True)]
    total = bottom + _BOTTOM
    parts.append(
        Markup('<text x="{:.0f}" y="{:.1f}" class="x name">{}</text>').format(_LEFT + width / 2, total - 6, labels[1])
    )
    parts.append(
        Markup('<text transform="translate(14 {:.1f}) rotate(-90)" class="x name">{}</text>').format(
            _TOP + height / 2, labels[0]
        )
    )
    parts.append(Markup('<rect class="mark" width="{:.2f}" height="{:.2f}"/>').format(across, up))
    return _picture(_WIDTH, total, description, parts)


def colour_bar(colours: str, span: tuple[float, float]) -> Markup:
    """Draw the colours of a heat map beside their values."""
    low, high = span
    strip = np.linspace(low, high, 256)[None]
    picture = Markup('<image x="20" y="2" width="220" height="12" preserveAspectRatio="none" href="{}"/>')
    parts = [picture.format(_cells(strip, colours, span, 1))]
    for tick in ticks(low, high, 5):
        place = 20 + (tick - low) / (high - low) * 220
        parts.append(Markup('<text x="{:.1f}" y="30" class="x">{}</text>').format(place, _tick(tick, high - low)))
    return _picture(260, 34, f"colours from {number(low, 1)} to {number(high, 1)}", parts, "colours")


def swatch(style: str) -> Markup:
    """Draw a bit of a line for a legend."""
    if style == "shade":
        inner = Markup('<rect class="shade" width="30" height="10"/>')
    elif style == "ring":
        inner = Markup('<circle class="ring value" cx="15" cy="5" r="3"/>')
    else:
        inner = Markup('<path class="line {}" d="M1 5H29"/>').format(style)
    return Markup('<svg class="swatch" viewBox="0 0 30 10" aria-hidden="true">{}</svg>').format(inner)


def _picture(width: float, height: float, description: str, parts: Iterable[Markup], kind: str = "plot") -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {:.0f} {:.1f}" role="img" aria-label="{}">{}</svg>').format(
        kind, width, height, description, Markup("").join(parts)
    )


def _runs(points: Sequence[Point], wanted: Sequence[bool] | None = None) -> Iterator[list[int]]:
    """Yield the places of neighbouring points that are defined, and wanted, piece by piece."""
    run: list[int] = []
    for place, (value, _, _) in enumerate(points):
        if value is not None and (wanted is None or wanted[place]):
            run.append(place)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _value(point: Point) -> float:
    return _end(point, 0)


def _end(point: Point, which: int) -> float:
    end = point[which]
    assert end is not None
    return end


def _line(dots: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in dots)


def _tick(value: float, reach: float) -> str:
    """Return a tick's number with as many digits as neighbours need to differ."""
    if abs(value) >= 10_000:
        return number(value / 1000, 0) + "k"
    digits = 0 if reach > 8 else 1 if reach > 0.5 else 2 if reach > 0.05 else 3
    return number(value, digits)


def _cells(values: np.ndarray, colours: str, span: tuple[float, float], pixels: int) -> str:
    """Return a PNG as data URI, each of the values [r, c] ``pixels`` wide and high, NaN being clear."""
    from matplotlib import colormaps
    from matplotlib.image import imsave

    low, high = span
    rgba = colormaps[colours](np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1), bytes=True)
    rgba[np.isnan(values)] = 0
    buffer = io.BytesIO()
    picture = np.ascontiguousarray(rgba.repeat(pixels, axis=0).repeat(pixels, axis=1))
    imsave(buffer, picture, format="png", metadata={"Software": ""}, pil_kwargs={"optimize": True})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
