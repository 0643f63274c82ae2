"""A comparison in words and as a table: terminal, Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import io
from typing import Any

from st_reasoning.results.compare import Comparison
from st_reasoning.results.decide import BETTER, EQUIVALENT, LARGEST, POWER, WORSE, Measured, Row

MINUS = "\N{MINUS SIGN}"
HEAD = ("", "A", "B", "B - A", "interval", "over", "p, Holm", "TOST p, Holm", "B is")
CSV_HEAD = (
    "a", "b", "level", "name", "tasks", "score_a", "score_b", "difference", "decides", "over", "low", "high",
    "standard_error", "df", "p_difference_holm", "p_equivalence_holm", "word", "needed",
)  # fmt: skip
ASSUMED = (
    "How many would decide is by power calculation: it assumes that the true difference is the one seen and that the "
    f"spread stays, and asks for {POWER:.0%} power."
)


def sentence(found: Comparison) -> str:
    """Say in one sentence what the headline shows, and if it decides nothing, what would."""
    row, margin = found.headline, f"{found.settings.margin:g} points"
    a, b = found.a.name, found.b.name
    where = row.name if row.level != "all" else f"all {row.tasks} tasks"
    if row.measured is None:
        return (
            f"Not decided on {where}: {b} scores {signed(row.difference)} points against {a}, and nothing tells how "
            "far chance would move that; several seeds on both sides, or predictions by example (mteb run "
            "--prediction-folder), would."
        )
    seen = f"{signed(row.difference)} points, {found.settings.level:.0%} interval {_interval(row.measured)} over "
    seen += row.measured.over
    if row.word in (BETTER, WORSE):
        return f"{b} is {row.word} than {a} on {where}: {seen}."
    if row.word == EQUIVALENT:
        certain = row.p_difference is not None and row.p_difference < found.settings.alpha
        small = "; the difference is certain, but smaller than what matters" if certain else ""
        return f"{b} is equivalent to {a} within {margin} on {where}: {seen}{small}."
    return f"Between {a} and {b} it is not decided on {where}: {b} scores {seen}; {more(row)}."


def more(row: Row) -> str:
    """Say how many more units would decide, as the end of a sentence."""
    assert row.measured is not None
    if not row.needed:
        return "every unit shows the same, from which nothing can be told about others"
    if not more_units(row):
        return f"more than {LARGEST:,} {' or '.join(row.needed)} would be needed to decide"
    return f"{more_units(row)} would decide, were that the true difference"


def more_units(row: Row) -> str:
    """Return how many more units would decide, e.g. "3 more seeds or 1,200 more examples"; empty if none are known."""
    have = {} if row.measured is None else row.measured.have
    known = [(unit, count) for unit, count in row.needed.items() if count is not None]
    counts = [(unit, count - have[unit]) for unit, count in known]
    return " or ".join(f"{n:,} more {unit if n != 1 else unit[:-1]}" for unit, n in counts)


def text(found: Comparison) -> str:
    """Return sentence, warnings and table for a terminal."""
    rows = [(*HEAD[:4], f"{found.settings.level:.0%} {HEAD[4]}", *HEAD[5:]), *_cells(found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    left = (0, 5, 8)
    lines = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    sides = [f"A: {found.a.name}", f"B: {found.b.name}", *_warned(found, "! ")]
    return "\n".join([sentence(found), "", *sides, "", *lines])


def markdown(found: Comparison) -> str:
    """Return sentence, warnings and table as Markdown."""
    head = (*HEAD[:4], f"{found.settings.level:.0%} {HEAD[4]}", *HEAD[5:])
    rows = [_md(head), "|" + "|".join("---" if c in (0, 5, 8) else "---:" for c in range(len(HEAD))) + "|"]
    rows += [_md(row) for row in _cells(found)]
    sides = f"A: {_escape(found.a.name)}, B: {_escape(found.b.name)}; points of 0 to 100. {ASSUMED}"
    return "\n\n".join([_escape(sentence(found)), *(_escape(w) for w in _warned(found, "- ")), sides, "\n".join(rows)])


def table(comparisons: list[Comparison]) -> str:
    """Return all rows of all comparisons as CSV, a line per interval; the one that decides is marked."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for found in comparisons:
        for row in found.rows:
            for number, each in enumerate([row.measured, *row.others]):
                first = number == 0
                writer.writerow([
                    _cell(found.a.name), _cell(found.b.name), row.level, _cell(row.name), row.tasks,
                    *(f"{value:.4f}" for value in (row.a, row.b, row.difference)), int(first),
                    *(_numbers(each) if each is not None else [""] * 5),
                    *(p_value(p) if first else "" for p in (row.p_difference, row.p_equivalence)),
                    row.word if first else "",
                    "; ".join(f"{unit}: {_count(n)}" for unit, n in row.needed.items()) if first else "",
                ])  # fmt: skip
    return stream.getvalue()


def to_mapping(found: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values."""
    return {
        "schema": 1,
        "sentence": sentence(found),
        "sides": [
            {
                "name": side.name,
                "runs": [
                    {"model": run.model, "revision": run.revision, "experiment": run.experiment, "seed": seed}
                    for run, seed in zip(side.runs, side.seeds, strict=True)
                ],
            }
            for side in (found.a, found.b)
        ],
        "margin": found.settings.margin,
        "level": found.settings.level,
        "assumed": ASSUMED,
        "warnings": list(found.warnings),
        "rows": [row_mapping(row) for row in found.rows],
    }


def signed(value: float | None, digits: int = 2) -> str:
    """Return a difference with its sign, a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:+.{digits}f}".replace("-", MINUS)


def row_mapping(row: Row) -> dict[str, Any]:
    """Return one row of a comparison as JSON values."""
    return {
        "level": row.level,
        "name": row.name,
        "tasks": row.tasks,
        "a": row.a,
        "b": row.b,
        "difference": row.difference,
        "word": row.word,
        "p_difference_holm": row.p_difference,
        "p_equivalence_holm": row.p_equivalence,
        "needed": row.needed,
        "interval": None if row.measured is None else _measured(row.measured),
        "other_intervals": [_measured(each) for each in row.others],
    }


def _measured(found: Measured) -> dict[str, Any]:
    estimate = found.estimate
    return {
        "over": found.kind,
        "units": found.have,
        "low": estimate.low,
        "high": estimate.high,
        "standard_error": estimate.standard_error,
        "df": estimate.df,
    }


def _cells(found: Comparison) -> list[tuple[str, ...]]:
    return [
        (
            name_of(row), f"{row.a:.2f}", f"{row.b:.2f}", signed(row.difference),
            _interval(row.measured) if row.measured else "none", row.measured.over if row.measured else "one run each",
            p_value(row.p_difference), p_value(row.p_equivalence), row.word,
        )
        for row in found.rows
    ]  # fmt: skip


def name_of(row: Row) -> str:
    """Return a row's name with its level, if it is no task."""
    if row.level == "task":
        return row.name
    if row.level == "all":
        return f"{row.name} (mean of {row.tasks})"
    return f"{row.name} ({row.level}, {row.tasks} task{'s' if row.tasks != 1 else ''})"


def _interval(found: Measured) -> str:
    return f"{signed(found.estimate.low)} to {signed(found.estimate.high)}"


def _numbers(found: Measured) -> list[str]:
    estimate = found.estimate
    ends = [f"{value:.4f}" for value in (estimate.low, estimate.high, estimate.standard_error)]
    return [f"{found.kind} ({', '.join(f'{n} {unit}' for unit, n in found.have.items())})", *ends, f"{estimate.df:.2f}"]


def p_value(value: float | None) -> str:
    """Return a p-value with three decimals, a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _count(number: int | None) -> str:
    return f"more than {LARGEST}" if number is None else str(number)


def _warned(found: Comparison, mark: str) -> list[str]:
    return [f"{mark}{warning}" for warning in found.warnings]


def _cell(value: str) -> str:
    """Return a text that a spreadsheet does not take for a formula."""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@") else value


def _md(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_escape(cell) for cell in cells) + " |"


def _escape(value: str) -> str:
    found = value.replace("|", "\\|").replace("<", "&lt;")
    return " ".join(found.split())
