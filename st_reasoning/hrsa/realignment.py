"""What contrastive training changed between two models: their panel as embedders minus their panel as backbones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from st_reasoning.errors import InputError
from st_reasoning.hrsa.addresses import Value, Values
from st_reasoning.hrsa.probing import least_half_width
from st_reasoning.hrsa.reading import KEPT, SILENT, Verdict, judge, middle_k
from st_reasoning.stats import interval

# Of the panels this reads, and of the record it makes.
SCHEMA = 3
# A fall that is smaller is no drift of a level that is kept before and after.
SMALL = 0.05
# What must be alike for a difference of values to be one of models.
_ALIKE = ("k", "seed", "estimator", "sink_ratio", "test_share", "probe", "labels")
_RULES = {
    "preserved": "kept before and after, and not shown to have fallen by more than {small}",
    "drifted": "kept or undecided before, and the whole interval of the change is below 0 (below -{small} where it is "
    "kept after too)",
    "realigned": "not kept before, kept after, and the whole interval of the change is above 0",
    "irreversible": "not kept before, not kept after, and the interval of the change is not wholly above 0",
    "undecided": "none of the other rules holds: an interval spans its limit or 0, or is undefined, or the value rose "
    "and is still not kept",
    "not measured": "at least one of the panels has no such value",
}


@dataclass(frozen=True)
class Change:
    """A value before and after, and the difference with an interval that is paired by sentence."""

    before: Value
    after: Value
    change: float | None
    interval: tuple[float, float] | None

    def to_mapping(self) -> dict[str, Any]:
        """Return the change as JSON holds it."""
        ends = None if self.interval is None else list(self.interval)
        shown = None if ends is None else not ends[0] <= 0 <= ends[1]
        return {
            "before": self.before.value,
            "after": self.after.value,
            "change": self.change,
            "interval": ends,
            "shown": shown,
        }


def realignment(panel_backbones: dict[str, Any], panel_embedders: dict[str, Any]) -> dict[str, Any]:
    """Return the change of each value from one panel to the other, and what it means for each level.

    Both panels were measured on the same texts in the same blocks of sentences. Leaving out a block leaves it out of
    both values, so what the texts have in common cancels: the interval of the difference is narrower than those of the
    two values suggest.

    Args:
        panel_backbones: Of two backbones, schema 3.
        panel_embedders: Of the embedders made from them, in the same order.

    Returns:
        ``levels``: for each its ``word`` at the last layer (preserved, drifted or reorganised, realigned, irreversible,
        undecided, not measured), the ``rule`` that gave it, the words ``before`` and ``after``, a ``sentence``, and the
        ``change`` of the value that decides at ``address``.
        ``changes``: ``address``, ``layer``, ``before``, ``after``, ``change``, ``interval`` and whether it is ``shown``
        (0 is outside) of every value at every layer. ``notes`` say what else differs. ``answer``: the levels, one
        sentence each.

    Raises:
        InputError: for panels of other schemas, texts, settings, blocks, depths or widths.
    """
    _refuse_unlike(panel_backbones, panel_embedders)
    before, after = Values(panel_backbones), Values(panel_embedders)
    k = middle_k(panel_backbones)
    levels, answer = [], []
    pairs = zip(judge(before, before.layers - 1, k), judge(after, after.layers - 1, k), strict=True)
    for old, new in pairs:
        found = _level(old, new, before, after)
        levels.append(found)
        answer.append(f"{found['level'][0].upper()}{found['level'][1:]}: {found['word']}. {found['sentence']}")
    changes = [
        {"address": address, "layer": layer, **_change(before, after, (address, address), layer).to_mapping()}
        for address in before
        if address in after
        for layer in range(before.layers)
    ]
    return {
        "schema": SCHEMA,
        "backbones": [model["name"] for model in panel_backbones["models"]],
        "embedders": [model["name"] for model in panel_embedders["models"]],
        "corpus": panel_backbones["corpus"],
        "level": panel_backbones["intervals"]["level"],
        "layer": before.layers - 1,
        "levels": levels,
        "changes": changes,
        "notes": _notes(panel_backbones, panel_embedders),
        "answer": answer,
    }


def summary(found: dict[str, Any]) -> str:
    """Return a realignment as plain text for a terminal."""
    rows = [("level", "before", "after", "change", "word")]
    for level in found["levels"]:
        change = level["change"]
        said = "-" if change is None or change["change"] is None else f"{change['change']:+z.3f}"
        if change is not None and change["interval"] is not None:
            said += " [{:+z.3f}, {:+z.3f}]".format(*change["interval"])
        rows.append((level["level"], level["before"], level["after"], said, level["word"]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = f"{' and '.join(found['backbones'])} -> {' and '.join(found['embedders'])}, layer {found['layer']}"
    rules = [f"{word}: {rule}" for word, rule in {level["word"]: level["rule"] for level in found["levels"]}.items()]
    return "\n".join([head, "", *table, "", *found["answer"], "", *rules, *found["notes"]])


def _level(old: Verdict, new: Verdict, before: Values, after: Values) -> dict[str, Any]:
    if "not measured" in (old.word, new.word):
        change, word, said = None, "not measured", (old if old.word == "not measured" else new).sentence
    else:
        # The addresses differ where one panel has no sink tokens: there the guarded value is the raw one.
        change = _change(before, after, (old.address, new.address), before.layers - 1)
        word = _word(old.word, new.word, change)
        said = f"{old.word[0].upper()}{old.word[1:]} before ({change.before}), {new.word} after ({change.after}); "
        said += "the change has no interval." if change.interval is None else _said(change)
    rule = _RULES[word].format(small=SMALL)
    if word == "drifted" and old.level == "local geometry":
        word = "reorganised"
    return {
        "level": old.level,
        "word": word,
        "rule": rule,
        "sentence": said,
        "before": old.word,
        "after": new.word,
        "address": old.address,
        "change": None if change is None else change.to_mapping(),
    }


def _word(before: str, after: str, change: Change) -> str:
    """Return the word by the first rule that holds; ``drifted`` stands for reorganised too."""
    if change.interval is None:
        return "undecided"
    low, high = change.interval
    if before in KEPT and after in KEPT:
        return "drifted" if high < -SMALL else "preserved"
    if before in KEPT or (before in SILENT and after not in KEPT):
        return "drifted" if high < 0 else "undecided"
    if after in KEPT:
        return "realigned" if low > 0 else "undecided"
    return "irreversible" if after not in SILENT and low <= 0 else "undecided"


def _said(change: Change) -> str:
    assert change.interval is not None
    low, high = change.interval
    shown = "" if not low <= 0 <= high else ": not shown to differ from 0"
    return f"the change is {change.change:+z.3f} [{low:+z.3f}, {high:+z.3f}]{shown}."


def _change(before: Values, after: Values, addresses: tuple[str, str], layer: int) -> Change:
    """Return the difference at a layer; paired, since both panels leave out the same sentences."""
    old, new = before.at(addresses[0], layer), after.at(addresses[1], layer)
    if old.value is None or new.value is None:
        return Change(old, new, None, None)
    change, ends = new.value - old.value, None
    early, late = before.left_out(addresses[0], layer), after.left_out(addresses[1], layer)
    # Without an interval of its own a value is one that the tokens do not determine.
    if early is not None and late is not None and old.interval is not None and new.interval is not None:
        differences = [second - first for first, second in zip(early, late, strict=True)]
        sizes = (values.record["jackknife"]["weights"] for values in (before, after))
        weights = [sum(pair) / 2 for pair in zip(*sizes, strict=True)]
        places = [(values, address, layer) for values, address in zip((before, after), addresses, strict=True)]
        least = least_half_width(places, change=True)
        around = interval(change, differences, weights, before.record["intervals"]["level"], least=least)
        ends = (around.low, around.high)
    return Change(old, new, change, ends)


def _refuse_unlike(backbones: dict[str, Any], embedders: dict[str, Any]) -> None:
    """Refuse panels whose values cannot be subtracted."""
    for name, panel in (("backbones", backbones), ("embedders", embedders)):
        schema = panel.get("schema") if isinstance(panel, dict) else None
        if schema != SCHEMA:
            raise InputError(
                f"{name}: expected a panel of schema {SCHEMA}, which has intervals, got schema {schema}; "
                "run st-reasoning hrsa again"
            )
    seen = _facts(backbones), _facts(embedders)
    for name, old in seen[0].items():
        new = seen[1][name]
        if old != new:
            raise InputError(
                f"panels: expected the same {name} in both, got {old} for the backbones and {new} for the embedders"
            )


def _facts(panel: dict[str, Any]) -> dict[str, Any]:
    """Return what must be the same in both panels."""
    return {
        "texts (corpus hash)": panel["corpus"]["hash"][:12],
        **{name: panel["settings"].get(name) for name in _ALIKE},
        "number of blocks": len(panel["jackknife"]["weights"]),
        "level of the intervals": panel["intervals"]["level"],
        "layers compared": len(panel["layers"]),
        "layers of the models": [model["layers"] for model in panel["models"]],
        "width of the models": [model["width"] for model in panel["models"]],
    }


def _notes(backbones: dict[str, Any], embedders: dict[str, Any]) -> list[str]:
    """Return what else differs between the panels, and is part of the change."""
    notes = []
    for key, name in (("attention", "attention"), ("dtype", "precision")):
        old, new = ([model[key] for model in panel["models"]] for panel in (backbones, embedders))
        if old != new:
            notes.append(
                f"The backbones were run with {name} {' and '.join(dict.fromkeys(old))}, the embedders with "
                f"{' and '.join(dict.fromkeys(new))}: the change includes that."
            )
    if backbones["jackknife"]["weights"] != embedders["jackknife"]["weights"]:
        notes.append("The panels compare different numbers of tokens of the same texts: texts were cut, or drawn.")
    return notes
