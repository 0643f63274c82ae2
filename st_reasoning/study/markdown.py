"""``report.md``: what the page says, for a terminal or a merge request; figures are in the page only."""

from __future__ import annotations

import json
from typing import Any

from st_reasoning.study import tables
from st_reasoning.study.tables import Table


def markdown(study: dict[str, Any]) -> str:
    """Return the report of a study as Markdown: the answer first, then the tables of the page.

    Args:
        study: The content of ``study.json``.
    """
    parts = ["# Does the reasoning model make the better embedder?", *_answer(study["answer"])]
    if study["missing"]:
        parts.append(f"{len(study['missing'])} of {len(study['steps'])} steps did not end well: see what is missing.")
    parts += ["## Scores", _table(tables.paper_form(study))]
    if (known := tables.published(study)) is not None:
        parts += ["### Beside the published values", _table(known)]
    parts += ["## Mechanism: what the two models share", _table(tables.hierarchy(study))]
    parts += ["### All values at the last layer", _table(tables.values(study))]
    found = study["prediction"]
    parts += ["## Does drift predict score?", _text(found["sentence"]), *map(_text, found["notes"])]
    parts.append(_table(tables.prediction(study)))
    parts += ["## What could not be decided, and what would decide it", _table(tables.undecided(study))]
    if study["missing"]:
        parts += ["## What is missing, and why", _table(tables.missing(study))]
    parts.append("## Pair by pair")
    for pair in study["pairs"]:
        parts += [f"### {_text(pair['name'])}", _text(f"Base: {pair['base']}. Reasoning: {pair['reasoning']}.")]
        parts += _answer(pair["answer"])
        if pair["comparison"] is not None:
            parts += _points(pair["comparison"]["warnings"])
        parts += _points(tables.waived(pair))
        shown = (tables.comparison(pair), tables.seeds(pair), tables.words(pair))
        parts += [_table(each) for each in shown if each is not None]
        parts += [*_points(tables.warnings(pair)), *map(_text, tables.notes(pair)), *_points(tables.rules(pair))]
        parts += _points([f"Missing: {reason}" for reason in pair["mechanism"]["missing"]])
    parts += ["## How it was done", _table(tables.steps(study)), _text(study["assumed"])]
    parts += [f"```json\n{json.dumps(study[key], indent=2, ensure_ascii=False)}\n```" for key in ("recipe", "versions")]
    return "\n\n".join(part for part in parts if part) + "\n"


def _answer(answer: dict[str, Any]) -> list[str]:
    return [f"**{answer['advice']}**", *map(_text, answer["sentences"])]


def _points(sentences: list[str]) -> list[str]:
    """Return a list of sentences, or nothing."""
    return ["\n".join(f"- {_text(each)}" for each in sentences)] if sentences else []


def _table(found: Table) -> str:
    """Return a table with its caption; one without rows says so."""
    if not found.rows:
        return "Nothing."
    lines = [_line([name for name, _ in found.head])]
    lines.append("|" + "|".join("---" if left else "---:" for _, left in found.head) + "|")
    lines += [_line([cell["text"] for cell in row]) for row in found.rows]
    table = "\n".join(lines)
    return f"{_text(found.caption)}\n\n{table}" if found.caption else table


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(_text(cell) for cell in cells) + " |"


def _text(value: str) -> str:
    """Return a text that Markdown neither takes for markup of its own nor for HTML."""
    for mark in ("\\", "|", "*", "_", "`", "[", "]"):
        value = value.replace(mark, f"\\{mark}")
    return " ".join(value.replace("&", "&amp;").replace("<", "&lt;").split())
