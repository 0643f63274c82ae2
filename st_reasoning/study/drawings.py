"""What a study's report draws of its own: differences with intervals, values before and after, values against scores.

As in the HRSA report a line has only a class, and the page gives it colours for light, dark and print.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from st_reasoning.hrsa.svg import number, shortened, ticks
from st_reasoning.results.words import signed

Ends = tuple[float, float] | None
# As wide as a phone shows without shrinking its text below 10 pixels.
WIDTH = 380.0
_SIDE, _ROW, _TOP, _FOOT = 10.0, 38.0, 6.0, 36.0
# Letters of 11.5 pixels are about this wide.
_LETTER = 6.2


@dataclass(frozen=True)
class Bar:
    """A difference: its value, the interval that decides, the one over seeds alone, and the word for it."""

    name: str
    value: float
    interval: Ends
    narrow: Ends
    word: str


@dataclass(frozen=True)
class Move:
    """A value of one pair: of its backbones, and of its embedders for each seed."""

    name: str
    before: float
    interval: Ends
    after: Sequence[float]
    chance: float | None


@dataclass(frozen=True)
class Dot:
    """A pair in the plane: its number, its name, an HRSA value, and its score difference with an interval."""

    place: int
    name: str
    x: float
    y: float
    interval: Ends


def forest(bars: Sequence[Bar], margin: float) -> Markup:
    """Draw differences, one below the other, about zero and the margin; what is cut off ends in an arrow."""
    reach = max(2 * margin, *(1.6 * abs(bar.value) for bar in bars))
    inner = [abs(end) for bar in bars for end in (bar.narrow or bar.interval or ())]
    reach = min(1.1 * max([reach, *inner]), 4 * reach)
    bottom, x = _TOP + _ROW * len(bars), _scale(-reach, reach)
    parts = [
        Markup('<rect class="shade" x="{:.1f}" y="{:.0f}" width="{:.1f}" height="{:.1f}"/>').format(
            x(-margin), _TOP, x(margin) - x(-margin), bottom - _TOP
        ),
        *_axis(-reach, reach, bottom, "reasoning minus base, points"),
        Markup('<path class="zero" d="M{:.1f} {:.0f}V{:.1f}"/>').format(x(0), _TOP, bottom),
    ]
    for place, bar in enumerate(bars):
        top = _TOP + place * _ROW
        y, kind = top + 26, _KINDS.get(bar.word, "open")
        said = f"{signed(bar.value)} {bar.word}"
        room = int((WIDTH - 2 * _SIDE) / _LETTER) - len(said) - 3
        parts.append(
            Markup('<text class="name" x="{:.0f}" y="{:.0f}">{}</text><text class="y" x="{:.0f}" y="{:.0f}">{}</text>')
            .format(_SIDE, top + 13, shortened(bar.name, room), WIDTH - _SIDE, top + 13, said)
        )  # fmt: skip
        for ends, style in ((bar.interval, "whisker"), (bar.narrow, "thick")):
            if ends is not None:
                parts += _between(ends, (-reach, reach), x, y, f"{style} {kind}")
        parts.append(Markup('<circle class="spot {}" cx="{:.1f}" cy="{:.0f}" r="4.5"/>').format(kind, x(bar.value), y))
    said = "; ".join(
        f"{bar.name}: {number(bar.value, 2)}"
        + (f" [{number(bar.interval[0], 2)}, {number(bar.interval[1], 2)}]" if bar.interval else "")
        + f", {bar.word}"
        for bar in bars
    )
    return _picture(bottom + _FOOT, f"Score differences of the pairs. {said}.", parts)


def dumbbells(moves: Sequence[Move], title: str) -> Markup:
    """Draw for each pair where a value was before training (ring) and where it is after (a dot for each seed)."""
    numbers = [
        n for move in moves for n in (move.before, *move.after, *(() if move.chance is None else (move.chance,)))
    ]
    low, high = min(0.0, *numbers), max(1.0 if max(numbers) > 0 and min(numbers) > -0.2 else 0.1, *numbers)
    if max(numbers) <= 0.1 and min(numbers) < 0:
        low, high = min(numbers) * 1.08, max(0.05, max(numbers))
    bottom, x = _TOP + _ROW * len(moves), _scale(low, high)
    parts = _axis(low, high, bottom, "at the last layer")
    for place, move in enumerate(moves):
        top = _TOP + place * _ROW
        y = top + 26
        said = number(move.before, 2)
        if move.after:
            said += f" \N{RIGHTWARDS ARROW} {number(sum(move.after) / len(move.after), 2)}"
        room = int((WIDTH - 2 * _SIDE) / _LETTER) - len(said) - 3
        parts.append(
            Markup('<text class="name" x="{:.0f}" y="{:.0f}">{}</text><text class="y" x="{:.0f}" y="{:.0f}">{}</text>')
            .format(_SIDE, top + 13, shortened(move.name, room), WIDTH - _SIDE, top + 13, said)
        )  # fmt: skip
        if move.chance is not None:
            parts.append(Markup('<path class="tick" d="M{:.1f} {:.0f}V{:.0f}"/>').format(x(move.chance), y - 7, y + 7))
        if move.after:
            mean = sum(move.after) / len(move.after)
            parts.append(Markup('<path class="rod" d="M{:.1f} {:.0f}H{:.1f}"/>').format(x(move.before), y, x(mean)))
        if move.interval is not None:
            parts += _between(move.interval, (low, high), x, y, "whisker before")
        parts += [
            Markup('<circle class="spot after" cx="{:.1f}" cy="{:.0f}" r="3.5"/>').format(x(value), y)
            for value in move.after
        ]
        parts.append(Markup('<circle class="ring before" cx="{:.1f}" cy="{:.0f}" r="4.5"/>').format(x(move.before), y))
    said = "; ".join(
        f"{move.name}: {number(move.before)} before, "
        + (", ".join(number(value) for value in move.after) or "nothing")
        + " after"
        for move in moves
    )
    return _picture(bottom + _FOOT, f"{title}. {said}.", parts)


def scatter(dots: Sequence[Dot], title: str, x_label: str) -> Markup:
    """Draw the pairs by an HRSA value (across) and the score difference (up), each by its number."""
    left, bottom, height = 44.0, 200.0, 238.0
    x = _scale(*_room([dot.x for dot in dots]), start=left + 8)
    low, high = _room([dot.y for dot in dots] + [0.0])

    def y(value: float) -> float:
        return bottom - (min(max(value, low), high) - low) / (high - low) * (bottom - 8)

    grid = Markup('<path class="grid" d="M{:.0f} {:.1f}H{:.0f}"/><text x="{:.0f}" y="{:.1f}" class="y">{}</text>')
    parts = [
        grid.format(left, y(tick), WIDTH - _SIDE, left - 6, y(tick) + 4, number(tick, _digits(high - low)))
        for tick in ticks(low, high, 5)
    ]
    parts.append(Markup('<path class="zero" d="M{:.0f} {:.1f}H{:.0f}"/>').format(left, y(0), WIDTH - _SIDE))
    parts += _axis(*_room([dot.x for dot in dots]), bottom, x_label, start=left + 8)
    upright = Markup('<path class="whisker faint" d="M{:.1f} {:.1f}V{:.1f}"/>')
    for dot in dots:
        if dot.interval is not None:
            parts.append(upright.format(x(dot.x), y(dot.interval[0]), y(dot.interval[1])))
            parts += [
                Markup('<path class="whisker faint" d="M{:.1f} {:.1f}l4 {:.0f}l4 {:.0f}"/>').format(
                    x(dot.x) - 4, y(edge) + 5 * side, -5 * side, 5 * side
                )
                for end, edge, side in zip(dot.interval, (low, high), (-1, 1), strict=True)
                if (end - edge) * side > 0
            ]
    spot = Markup(
        '<g><title>{}</title><circle class="spot after" cx="{:.1f}" cy="{:.1f}" r="8"/>'
        '<text class="in" x="{:.1f}" y="{:.1f}">{}</text></g>'
    )
    for dot in dots:
        label = f"{dot.name}: {number(dot.x)}, {number(dot.y, 2)} points"
        parts.append(spot.format(label, x(dot.x), y(dot.y), x(dot.x), y(dot.y) + 4, dot.place))
    said = "; ".join(f"{dot.name}: {number(dot.x)}, {number(dot.y, 2)} points" for dot in dots)
    return _picture(height, f"{title} against the score difference. {said}.", parts)


_KINDS = {"better": "better", "worse": "worse", "equivalent": "equivalent"}


def _between(
    ends: tuple[float, float], frame: tuple[float, float], x: Callable[[float], float], y: float, style: str
) -> list[Markup]:
    """Draw an interval, with an arrow where it goes on beyond the frame."""
    low, high = (min(max(end, frame[0]), frame[1]) for end in ends)
    parts = [Markup('<path class="{}" d="M{:.1f} {:.1f}H{:.1f}"/>').format(style, x(low), y, x(high))]
    for end, edge, side in zip(ends, frame, (-1, 1), strict=True):
        if (end - edge) * side > 0:
            tip = x(edge)
            head = f"M{tip - 5 * side:.1f} {y - 4:.1f}L{tip:.1f} {y:.1f}L{tip - 5 * side:.1f} {y + 4:.1f}"
            parts.append(Markup('<path class="{}" d="{}"/>').format(style, head))
    return parts


def _scale(low: float, high: float, start: float = _SIDE) -> Callable[[float], float]:
    width = WIDTH - _SIDE - start
    return lambda value: start + (value - low) / (high - low) * width


def _axis(low: float, high: float, bottom: float, label: str, start: float = _SIDE) -> list[Markup]:
    x = _scale(low, high, start)
    places = ticks(low, high, 6)
    # Labels must stay inside the drawing.
    places = [tick for tick in places if x(tick) > 8 and x(tick) < WIDTH - 8]
    digits = _digits(max((b - a for a, b in pairwise(places)), default=high - low) * 5)
    parts = [Markup('<path class="axis" d="M{:.1f} {:.1f}H{:.1f}"/>').format(x(low), bottom, x(high))]
    mark = Markup('<path class="axis" d="M{:.1f} {:.1f}v4"/><text x="{:.1f}" y="{:.1f}" class="x">{}</text>')
    parts += [mark.format(x(tick), bottom, x(tick), bottom + 16, number(tick, digits)) for tick in places]
    middle = (start + WIDTH - _SIDE) / 2
    parts.append(Markup('<text x="{:.0f}" y="{:.1f}" class="x name">{}</text>').format(middle, bottom + 31, label))
    return parts


def _room(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.12 * (high - low) or 0.1 * abs(low) or 1.0
    return low - room, high + room


def _digits(reach: float) -> int:
    return 0 if reach >= 5 else 1 if reach >= 0.5 else 2 if reach >= 0.05 else 3


def _picture(height: float, description: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg class="plot" viewBox="0 0 {:.0f} {:.1f}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, description, Markup("").join(parts)
    )
