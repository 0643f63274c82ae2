"""The tables of a study's report, once for HTML, Markdown and CSV: what a cell shows, and what it is worth in full."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from st_reasoning.hrsa import svg
from st_reasoning.results.decide import LARGEST, OPEN
from st_reasoning.results.html import Cell, text
from st_reasoning.results.html import number as plain
from st_reasoning.results.words import signed
from st_reasoning.study.prediction import SOURCES

DASH = "\N{EN DASH}"
Head = Sequence[tuple[str, bool]]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        key: Names it in links and files.
        title: Above it.
        caption: What its numbers are, and the files they come from.
        head: Columns, each with whether it stands left.
        rows: Cells as :func:`st_reasoning.results.html.text` and ``number`` make them.
    """

    key: str
    title: str
    caption: str
    head: Head
    rows: list[list[Cell]]

    def csv(self) -> str:
        """Return the table with numbers at full precision."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([name for name, _ in self.head])
        writer.writerows([[_worth(cell) for cell in row] for row in self.rows])
        return stream.getvalue()


def paper_form(study: dict[str, Any]) -> Table:
    """Return the scores in the form of the paper's Table 1, with the published ones where the pair is the same."""
    cells = [(pair, cell) for pair in study["pairs"] for cell in pair["columns"]]
    head = [
        ("Pair", True), ("Method", True), ("Scores", True), ("Base", False), ("Reasoning", False),
        ("Difference", False), ("Reasoning is", True), ("\N{PLUS-MINUS SIGN} over seeds", False), ("Low", False),
        ("High", False), ("p of a difference", False), ("p of the margin", False), ("Seeds that would decide", False),
    ]  # fmt: skip
    rows = []
    for pair, cell in cells:
        ends = cell["interval"] or {"low": None, "high": None}
        row = [
            text(pair["name"]), text(pair["method"]), text(cell["name"]), number(cell["a"]), number(cell["b"]),
            _signed(cell["difference"]), _word(cell["word"]), number(cell["std"]), _signed(ends["low"]),
            _signed(ends["high"]), number(cell["p_difference_holm"], 3), number(cell["p_equivalence_holm"], 3),
            _needed(cell["needed"], "seeds"),
        ]  # fmt: skip
        rows.append(row)
    caption = (
        f"Mean over seeds in points (0 to 100), as the paper's Table 1. Intervals of {study['level']:.0%} are over "
        f"seeds alone, for these tasks as a fixed list; p-values are adjusted by Holm over all rows; the margin is "
        f"{study['margin']:g} points. The file of each score is named in the pair's table of seeds."
    )
    return Table("scores", "All pairs", caption, head, rows)


def published(study: dict[str, Any]) -> Table | None:
    """Return our scores beside the paper's, of the pairs and benchmarks that are the same; None where none is."""
    head = [
        ("Pair", True), ("Scores", True), ("Ours", True), ("Reasoning is", True), ("Published", True),
        ("Published: reasoning is", True), ("Ours minus published", False), ("Low", False), ("High", False),
    ]  # fmt: skip
    rows, sources = [], []
    for pair in study["pairs"]:
        for cell in pair["columns"]:
            theirs = cell["published"]
            if theirs is None:
                continue
            sources.append(theirs["source"])
            against = theirs["ours_minus_published"] or {"difference": None, "low": None, "high": None}
            rows.append([
                text(pair["name"]), text(cell["name"]), _shift(cell["a"], cell["b"], cell["difference"], cell["std"]),
                _word(cell["word"]),
                _shift(theirs["base"], theirs["reasoning"], theirs["difference"], theirs["std"]),
                _word(theirs["word"]), *(_signed(against[key]) for key in ("difference", "low", "high")),
            ])  # fmt: skip
    caption = (
        f"Base to reasoning, difference \N{PLUS-MINUS SIGN} standard deviation over seeds. Published: "
        f"{', '.join(dict.fromkeys(sources))}, with words by our tests. The last columns: Welch's interval of the "
        "difference of the two differences."
    )
    return Table("published", "Beside the published values", caption, head, rows) if rows else None


def comparison(pair: dict[str, Any]) -> Table | None:
    """Return all rows of a pair's comparison: all tasks, benchmarks, types, tasks."""
    found = pair["comparison"]
    if found is None:
        return None
    head = [
        ("Of", True), ("Base", False), ("Reasoning", False), ("Difference", False), ("Low", False), ("High", False),
        ("Interval over", True), ("p of a difference", False), ("p of the margin", False), ("Reasoning is", True),
        ("In all would decide", True),
    ]  # fmt: skip
    rows = []
    for row in found["rows"]:
        ends = row["interval"] or {"low": None, "high": None, "units": {}}
        rows.append([
            text(row["name"] if row["level"] == "task" else _grouped(row)),
            number(row["a"]), number(row["b"]), _signed(row["difference"]), _signed(ends["low"]), _signed(ends["high"]),
            text(" and ".join(f"{count:,} {unit}" for unit, count in ends["units"].items()) or "one run each"),
            number(row["p_difference_holm"], 3), number(row["p_equivalence_holm"], 3), _word(row["word"]),
            text(" or ".join(f"{_count(n)} {unit}" for unit, n in row["needed"].items())),
        ])  # fmt: skip
    caption = (
        f"Means of the scores below, in points, {found['level']:.0%} intervals for the units named; p-values are "
        "adjusted by Holm over the rows of this kind in all pairs."
    )
    return Table(f"{pair['name']}-comparison", f"{pair['name']}: comparison", caption, head, rows)


def seeds(pair: dict[str, Any]) -> Table:
    """Return the score of every embedder of a pair with the file that holds it."""
    head = [
        ("Task", True), ("Embedders", True), ("Base", False), ("Reasoning", False), ("Difference", False),
        ("File of the base score", True), ("File of the reasoning score", True),
    ]  # fmt: skip
    rows = []
    for task in pair["tasks"]:
        parts = [("converted, not trained", task["untrained"])]
        parts += [(f"trained, seed {each['seed']}", each) for each in task["seeds"]]
        for name, part in parts:
            files = (text(part["files"][arm] or DASH) for arm in ("base", "reasoning"))
            rows.append([
                text(task["task"]), text(name), number(part["base"]), number(part["reasoning"]),
                _signed(part["difference"]), *files,
            ])  # fmt: skip
    caption = "Main score of each task in points, from mteb. Paths are within the study's folder."
    return Table(f"{pair['name']}-seeds", f"{pair['name']}: every score", caption, head, rows)


def hierarchy(study: dict[str, Any]) -> Table:
    """Return the paper's Table 2 with our words and numbers."""
    columns = [cell["column"] for cell in study["hierarchy"][0]["cells"]]
    head: list[tuple[str, bool]] = [("Level", True)]
    for column in columns:
        head += [(column[:1].upper() + column[1:], True), ("Paper", True)]
    rows = []
    for row in study["hierarchy"]:
        cells = [text(row["level"])]
        for cell in row["cells"]:
            said = "; ".join(f"{word} ({', '.join(names)})" for word, names in cell["words"].items())
            if cell["lowest"] is not None:
                low, high = (svg.number(cell[key], 2) for key in ("lowest", "highest"))
                said += f": {low}" if low == high else f": {low} to {high}"
            agrees = {"all": "agrees", "some": "agrees in part", "none": "differs", None: "nothing to compare"}
            paper = DASH if cell["paper"] is None else f"{cell['paper']}: {agrees[cell['agrees']]}"
            cells += [text(said or DASH), text(paper)]
        rows.append(cells)
    caption = (
        "The word for each level, with the pairs that have it and the range of the value it was read from, at the last "
        "layer and, but for the readout, without sink tokens; after training a pair has the words of all its seeds. "
        "From hrsa/PAIR/backbones/hrsa.json and hrsa/PAIR/seed-N/hrsa.json. Paper: arXiv 2601.21192 v1, Table 2."
    )
    return Table("hierarchy", "What changes where", caption, head, rows)


def words(pair: dict[str, Any]) -> Table | None:
    """Return for each level the words before and after training with the change that was measured."""
    found, changed = pair["mechanism"]["backbones"], pair["mechanism"]["realignment"]
    if found is None:
        return None
    head = [
        ("Level", True), ("Backbones", True), ("Value", True), ("Chance", False), ("Embedders", True),
        ("Change, over sentences", True), ("Over seeds", True), ("Training", True), ("Value read", True),
    ]  # fmt: skip
    rows = []
    for place, level in enumerate(found["levels"]):
        said = None if changed is None else changed["levels"][place]
        change = {"value": None, "interval": None, "interval_seeds": None} if said is None else said["change"]
        between = change["interval_seeds"]
        rows.append([
            text(level["level"]), _word(level["word"]), _ends(level["value"], level["interval"], svg.number),
            number(level["chance"], 3), text(DASH if said is None else _counted(said["after_words"])),
            _ends(change["value"], change["interval"], signed),
            text(DASH if between is None else f"[{signed(between[0], 3)}, {signed(between[1], 3)}]"),
            text(DASH if said is None else _counted(said["words"])), text(level["address"] or DASH),
        ])  # fmt: skip
    files = [found["file"], *(each["file"] for each in pair["mechanism"]["embedders"])]
    caption = (
        f"Layer {found['layer']}, {found['tokens']:,} tokens of {found['texts']:,} texts. The change is that of "
        f"embedders, mean over seeds, minus backbones, paired by sentence. From {', '.join(files)}."
    )
    return Table(f"{pair['name']}-words", f"{pair['name']}: representations", caption, head, rows)


def waived(pair: dict[str, Any]) -> list[str]:
    """Return the differences between the arms that the recipe waived, each in a sentence."""
    audit = pair["audit"] or {"findings": [], "waived": []}
    found = [each for each in audit["findings"] if each["name"] in audit["waived"]]
    return [f"Waived: {each['name']}, {each['base']} against {each['reasoning']}: {each['why']}." for each in found]


def warnings(pair: dict[str, Any]) -> list[str]:
    """Return what is to be kept in mind about the panels of a pair, each with the panels that say it."""
    found, said = pair["mechanism"], dict[str, list[str]]()
    panels = [("backbones", found["backbones"])]
    panels += [(f"embedders, seed {each['seed']}", each) for each in found["embedders"]]
    for of, panel in panels:
        for warning in [] if panel is None else panel["warnings"]:
            said.setdefault(warning, []).append(of)
    return [f"{', '.join(dict.fromkeys(of))}: {warning}" for warning, of in said.items()]


def notes(pair: dict[str, Any]) -> list[str]:
    """Return what the words of a pair are to be read with."""
    found = pair["mechanism"]
    said = [] if found["realignment"] is None else list(found["realignment"]["notes"])
    if found["published_entropy"] is not None:
        before, after = found["published_entropy"]
        said.append(
            f"Published inverse row entropy of this pair, on other texts: {before} between the backbones, {after} "
            "between the embedders."
        )
    return said


def rules(pair: dict[str, Any]) -> list[str]:
    """Return the word for each level of the backbones with the rule that gave it."""
    found = pair["mechanism"]["backbones"]
    levels = [] if found is None else found["levels"]
    return [f"{each['level']}, {each['word']}: {each['sentence']} Rule: {each['rule']}." for each in levels]


def values(study: dict[str, Any]) -> Table:
    """Return every HRSA value at the last layer of every pair, raw and guarded."""
    head = [
        ("Pair", True), ("Value", True), ("Guard", True), ("Backbones", False), ("Low", False), ("High", False),
        ("Chance", False), ("Embedders", False), ("Change", False), ("Low", False), ("High", False), ("Address", True),
    ]  # fmt: skip
    rows = []
    for pair in study["pairs"]:
        for value in pair["mechanism"]["values"]:
            before, change = value["backbones"], value["change"]
            rows.append([
                text(pair["name"]), text(value["name"]), text("without sink tokens" if value["guarded"] else "raw"),
                number(before["value"], 3), *(number(end, 3) for end in before["interval"] or (None, None)),
                number(before["chance"], 3), number(value["embedders_mean"], 3), _signed(change["value"], 3),
                *(_signed(end, 3) for end in change["interval"] or (None, None)), text(value["address"]),
            ])  # fmt: skip
    caption = (
        "Values at the last layer with intervals over sentences; embedders: mean over seeds. From hrsa/PAIR/backbones/"
        "hrsa.json and hrsa/PAIR/seed-N/hrsa.json, at the address named."
    )
    return Table("values", "All values", caption, head, rows)


def prediction(study: dict[str, Any]) -> Table:
    """Return the rank correlations of HRSA values with the score difference."""
    found = study["prediction"]
    head = [
        ("Value", True), ("Of", True), ("Guard", True), ("Pairs", False), ("Spearman", False), ("Low", False),
        ("High", False), ("p", False), ("p, Holm", False), ("Kendall", False), ("Low", False), ("High", False),
        ("p, Kendall", False), ("Pairs needed", False),
    ]  # fmt: skip
    rows = [
        [
            text(row["name"]), text(SOURCES[row["source"]]), text("without sink tokens" if row["guarded"] else "raw"),
            number(row["pairs"], 0), _signed(row["spearman"]),
            *(_signed(end) for end in row["spearman_interval"] or (None, None)), number(row["spearman_p"], 3),
            number(row["spearman_p_holm"], 3), _signed(row["kendall"]),
            *(_signed(end) for end in row["kendall_interval"] or (None, None)), number(row["kendall_p"], 3),
            number(row["pairs_needed"], 0),
        ]
        for row in found["values"]
    ]  # fmt: skip
    caption = (
        "Rank correlation over pairs of a value at the last layer with the difference of the scores. p by permutation, "
        f"adjusted by Holm over {found['tests']} values. Pairs needed: to find this correlation at 80 % power, were it "
        "the true one. Values from the files named above, differences from the pairs' comparisons."
    )
    return Table("prediction", "Rank correlations", caption, head, rows)


def undecided(study: dict[str, Any]) -> Table:
    """Return what could not be decided and what would decide it."""
    head = [("Of", True), ("What is not decided", True), ("What would decide, or why not", True)]
    rows = [[text(each["of"]), text(each["what"]), text(each["decides"])] for each in study["undecided"]]
    return Table("undecided", "Not decided", "", head, rows)


def missing(study: dict[str, Any]) -> Table:
    """Return the steps that did not end well, and what is missing for it."""
    head = [("Step", True), ("State", True), ("The study lacks", True), ("Why", True)]
    rows = [
        [text(each["step"]), _word(each["state"]), text(each["lacks"]), text(each["reason"])]
        for each in study["missing"]
    ]
    return Table("missing", "Steps that did not end well", "Logs are in steps/.", head, rows)


def steps(study: dict[str, Any]) -> Table:
    """Return all steps with the seconds they took."""
    head = [("Step", True), ("State", True), ("Seconds", False)]
    taken = study["runtime"]["seconds"]
    rows = [[text(step["name"]), text(step["state"]), number(taken.get(step["name"]), 1)] for step in study["steps"]]
    return Table("steps", "Steps", "From steps/STEP.json: how long each took when it ran.", head, rows)


def _count(needed: int | None) -> str:
    return f"more than {LARGEST:,}" if needed is None else f"{needed:,}"


def _needed(needed: dict[str, int | None], unit: str) -> Cell:
    """Return a cell of how many units in all would decide; empty where that is not asked or cannot be told."""
    if unit not in needed:
        return text(DASH)
    return {**plain(needed[unit], 0), "text": _count(needed[unit])}


def _grouped(row: dict[str, Any]) -> str:
    return f"{row['name']} ({row['level']}, {row['tasks']} task{'s' if row['tasks'] != 1 else ''})"


def _shift(base: float, reasoning: float, difference: float, std: float | None) -> Cell:
    spread = "" if std is None else f" \N{PLUS-MINUS SIGN} {std:.2f}"
    return text(f"{base:.2f} to {reasoning:.2f}, {signed(difference)}{spread}")


def _counted(found: dict[str, int]) -> str:
    """Return words with the seeds that have them, where they are not all the same."""
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{word} ({count} seed{'s' if count != 1 else ''})" for word, count in found.items())


def number(value: float | None, digits: int = 2) -> Cell:
    """Return a cell of a number with a true minus sign, sorted by its exact value."""
    return {**plain(value, digits), "text": svg.number(value, digits)}


def _ends(value: float | None, interval: list[float] | None, shown: Callable[[float, int], str]) -> Cell:
    """Return a cell of a value with its interval."""
    if value is None:
        return text(DASH)
    said = shown(value, 3)
    return text(said if interval is None else f"{said} [{shown(interval[0], 3)}, {shown(interval[1], 3)}]")


def _signed(value: float | None, digits: int = 2) -> Cell:
    return {**plain(value, digits), "text": signed(value, digits)}


def _word(word: str) -> Cell:
    return {**text(word), "word": True, "open": word in (OPEN, "undecided", "not measured", "skipped")}


def _worth(cell: Cell) -> str:
    """Return a cell for CSV: a number in full, or a text that a spreadsheet does not take for a formula."""
    if cell["worth"] is not None:
        return str(cell["worth"])
    shown = str(cell["text"])
    return f"'{shown}" if shown[:1] in ("=", "+", "-", "@") else shown
