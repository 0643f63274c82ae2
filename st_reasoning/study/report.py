"""The report of a study: one self-contained page, the answer first, and the same as Markdown and JSON."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from st_reasoning.files import write_json, write_text
from st_reasoning.html import csv_uri, script_hash, templates
from st_reasoning.study import figures, tables
from st_reasoning.study.figures import Figure
from st_reasoning.study.markdown import markdown
from st_reasoning.study.tables import Table


def render(study: dict[str, Any], folder: Path) -> str:
    """Return the page for a study, however much of it is there.

    Args:
        study: The content of ``study.json``.
        folder: The study's folder; the curves over layers are read from its panels.

    Returns:
        HTML that asks nothing of the network. Names and texts from models and data are escaped.
    """
    environment = templates("st_reasoning.study")
    environment.globals |= {"csv_uri": csv_uri}
    script = Markup(resources.files("st_reasoning.results").joinpath("sort.js").read_text(encoding="utf-8"))  # noqa: S704
    return environment.get_template("report.html.j2").render(
        study=study,
        pairs=[_pair(pair, folder) for pair in study["pairs"]],
        scores=tables.paper_form(study),
        published=tables.published(study),
        hierarchy=tables.hierarchy(study),
        values=tables.values(study),
        prediction=tables.prediction(study),
        undecided=tables.undecided(study),
        missing=tables.missing(study),
        steps=tables.steps(study),
        differences=figures.scores(study),
        moves=figures.moves(study),
        drift=figures.correlations(study),
        settings=_pretty(study["recipe"]),
        versions=_pretty(study["versions"]),
        script=script,
        script_hash=script_hash(script),
    )


def write_report(study: dict[str, Any], folder: Path) -> None:
    """Write ``study.json``, ``report.html`` and ``report.md``, each complete or not at all."""
    write_json(folder / "study.json", study)
    write_text(folder / "report.md", markdown(study))
    write_text(folder / "report.html", render(study, folder))


def answer(pair: dict[str, Any]) -> list[str]:
    """Return in plain words what the scores of one pair show, and what they cannot."""
    found = pair["answer"]
    return [f"{found['advice']}. {found['sentences'][0]}", *found["sentences"][1:]]


def _pair(pair: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what the page shows of one pair beside what study.json has."""
    drawn: list[Figure | None] = [figures.layers(pair, folder), figures.training(pair)]
    shown: list[Table | None] = [tables.comparison(pair), tables.seeds(pair), tables.words(pair)]
    return {
        **pair,
        "figures": [each for each in drawn if each is not None],
        "comparison_table": shown[0],
        "seeds_table": shown[1],
        "words_table": shown[2],
        "waived": tables.waived(pair),
        "warnings": tables.warnings(pair),
        "notes": tables.notes(pair),
    }


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
