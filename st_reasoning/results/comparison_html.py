"""Comparisons as one self-contained page."""

from __future__ import annotations

from st_reasoning.results.compare import Comparison
from st_reasoning.results.decide import OPEN, Row
from st_reasoning.results.html import Cell, number, page, text
from st_reasoning.results.reading import LeftOut
from st_reasoning.results.words import ASSUMED, more_units, name_of, p_value, sentence, signed, table


def comparison_page(comparisons: list[Comparison], left_out: tuple[LeftOut, ...] = ()) -> str:
    """Return the page for comparisons; it asks nothing of the network, and names from files are escaped."""
    names = " and ".join([comparisons[0].a.name, *(found.b.name for found in comparisons)])
    sections = [
        {
            "title": f"{found.b.name} against {found.a.name}",
            "answer": sentence(found),
            "warnings": found.warnings,
            "notes": [
                f"A is {found.a.name}, B is {found.b.name}. {found.settings.level:.0%} intervals for the units named, "
                f"not adjusted; p-values adjusted by Holm over the rows of a level; margin {found.settings.margin:g} "
                f"points. {ASSUMED}"
            ],
            "caption": "Main scores in points (0 to 100). A negative difference: A is higher.",
            "head": [
                ("Of", True), ("A", False), ("B", False), ("B \N{MINUS SIGN} A", False), ("Low", False),
                ("High", False), ("Interval over", True), ("p of a difference", False), ("p of the margin", False),
                ("B is", True), ("What would decide", True),
            ],
            "rows": [_row(row) for row in found.rows],
        }
        for found in comparisons
    ]  # fmt: skip
    return page(f"Results: {names}", sections, table(comparisons), "comparison.csv", left_out)


def _row(row: Row) -> list[Cell]:
    measured = row.measured
    ends = (None, None) if measured is None else (measured.estimate.low, measured.estimate.high)
    return [
        text(name_of(row)),
        *(number(value) for value in (row.a, row.b)),
        *({**number(value), "text": signed(value)} for value in (row.difference, *ends)),
        text(measured.over if measured else "one run each"),
        *({**number(p, 3), "text": p_value(p)} for p in (row.p_difference, row.p_equivalence)),
        {**text(row.word), "word": True, "open": row.word == OPEN},
        text(more_units(row)),
    ]
