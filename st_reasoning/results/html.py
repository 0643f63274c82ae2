"""One self-contained page of tables, sortable, printable, with the numbers to save; and that of an overview."""

from __future__ import annotations

import csv
import io
from importlib import resources
from typing import Any

from markupsafe import Markup

from st_reasoning.html import csv_uri, script_hash, templates
from st_reasoning.results.reading import LeftOut
from st_reasoning.results.show import Overview

Cell = dict[str, Any]


def overview_page(found: Overview) -> str:
    """Return the page for a table of models; it asks nothing of the network, and names from files are escaped."""
    head = ["Model", "Rank (Borda)", "Mean of tasks", "Mean of types", *found.types, *found.tasks]
    section = {
        "title": found.name,
        "answer": "",
        "warnings": (),
        "notes": found.notes,
        "caption": "Main scores in points (0 to 100).",
        "head": [(name, number == 0) for number, name in enumerate(head)],
        "rows": [
            [
                text(model["label"]),
                number(model["rank_borda"], 0),
                *(number(model[key]) for key in ("mean_task", "mean_type")),
                *(number(model["types"].get(kind)) for kind in found.types),
                *(number(model["tasks"][task]) for task in found.tasks),
            ]
            for model in found.models
        ],
    }
    return page(f"Results: {found.name}", [section], overview_table(found), "results.csv", found.left_out)


def overview_table(found: Overview) -> str:
    """Return the table of models as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = ("label", "model", "revision", "experiment", "seed", "rank_borda", "mean_task", "mean_type")
    writer.writerow([*columns, *(f"type: {kind}" for kind in found.types), *found.tasks])
    for model in found.models:
        values = [model[column] for column in columns]
        values += [*(model["types"].get(kind) for kind in found.types), *(model["tasks"][task] for task in found.tasks)]
        writer.writerow(["" if v is None else f"{v:.4f}" if isinstance(v, float) else v for v in values])
    return stream.getvalue()


def page(title: str, sections: list[dict[str, Any]], data: str, file: str, left_out: tuple[LeftOut, ...]) -> str:
    """Return a page of sections, each with a table.

    Args:
        title: Of the page.
        sections: Each with ``title``, ``answer``, ``warnings``, ``notes``, ``caption``, ``head`` (name and whether the
            column stands left) and ``rows`` of cells.
        data: CSV of all numbers, to be saved from the page.
        file: What it is called then.
        left_out: Files that are not used, named at the end.
    """
    script = Markup(resources.files("st_reasoning.results").joinpath("sort.js").read_text(encoding="utf-8"))  # noqa: S704
    return (
        templates("st_reasoning.results")
        .get_template("tables.html.j2")
        .render(
            title=title,
            sections=sections,
            link=csv_uri(data),
            file=file,
            left_out=left_out,
            script=script,
            script_hash=script_hash(script),
        )
    )


def text(shown: str) -> Cell:
    """Return a cell that is sorted by its letters."""
    return {"text": shown, "worth": None, "word": False, "open": False}


def number(value: float | None, digits: int = 2) -> Cell:
    """Return a cell that is sorted by its exact value; a missing one has the worth of an empty text."""
    shown = "\N{EN DASH}" if value is None else f"{value:.{digits}f}"
    return {**text(shown), "worth": "" if value is None else repr(value)}
