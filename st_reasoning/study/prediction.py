"""Does drift predict score? Rank correlations, over pairs, of every HRSA value with the difference of the scores.

The pair is the unit: seeds of a pair share its backbones, so more seeds make its difference surer and are no further
units. Values of backbones can be had before any training; the change by contrastive training can not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from st_reasoning.results.words import signed
from st_reasoning.stats import holm, least_units, rank_correlation, units_needed

SOURCES = {"backbones": "of the backbones", "change": "change by contrastive training"}
LARGEST = 100_000


@dataclass(frozen=True)
class Drift:
    """A value of all pairs that have it.

    Attributes:
        source: ``backbones`` or ``change``.
        level: Of the hierarchy.
        address: What hrsa.json calls it.
        name: What a reader calls it.
        guarded: Whether it is the one without sink tokens, which words are read from but for the readout.
        by_pair: Value by pair.
    """

    source: str
    level: str
    address: str
    name: str
    guarded: bool
    by_pair: dict[str, float]


def predict(pairs: list[dict[str, Any]], *, alpha: float = 0.05) -> dict[str, Any]:
    """Return whether any HRSA value puts the pairs in the order of their score differences.

    Args:
        pairs: Each with ``name``, ``base``, ``mechanism`` and ``difference``, of the scores in points, or None.
        alpha: Of all tests together.

    Returns:
        ``pairs``: by name and difference those that count; ``values``: for each value its correlations, intervals and
        p-values, these adjusted by Holm over all values; ``least_pairs``: with how many a perfect correlation could be
        found at all; ``sentence``; ``notes``.
    """
    scored = {pair["name"]: pair["difference"] for pair in pairs if pair["difference"] is not None}
    rows = [_row(drift, scored, 1 - alpha) for drift in drifts(pairs) if len(drift.by_pair.keys() & scored.keys()) > 1]
    tested = [row for row in rows if row["spearman_p"] is not None]
    for row, p in zip(tested, holm([row["spearman_p"] for row in tested]), strict=True):
        row["spearman_p_holm"] = float(p)
        row["pairs_needed"] = units_needed(row["spearman"], alpha=alpha, tests=len(tested), largest=LARGEST)
    least = least_units(alpha, max(1, len(tested)))
    return {
        "pairs": scored,
        "values": rows,
        "tests": len(tested),
        "alpha": alpha,
        "least_pairs": least,
        "sentence": _sentence(rows, tested, len(scored), least, alpha),
        "notes": _notes(pairs, scored),
    }


def drifts(pairs: list[dict[str, Any]]) -> list[Drift]:
    """Return the values that are to predict: guarded, and raw where that is not the same for all pairs."""
    found: dict[tuple[str, str, bool], Drift] = {}
    for pair in pairs:
        for value in pair["mechanism"]["values"]:
            numbers = {"backbones": value["backbones"]["value"], "change": value["change"]["value"]}
            for source, number in numbers.items():
                if number is None:
                    continue
                # A pair without sinks has no value without them: its raw one takes the place, and counts as both.
                for guarded in _kinds(pair, value):
                    key = source, value["name"], guarded
                    drift = Drift(source, value["level"], value["address"], value["name"], guarded, {})
                    found.setdefault(key, drift).by_pair[pair["name"]] = number
    kept = []
    for (source, name, guarded), drift in found.items():
        other = found.get((source, name, True))
        if guarded or other is None or other.by_pair != drift.by_pair:
            kept.append(drift)
    return sorted(kept, key=lambda each: list(SOURCES).index(each.source))


def _kinds(pair: dict[str, Any], value: dict[str, Any]) -> list[bool]:
    alone = sum(each["name"] == value["name"] for each in pair["mechanism"]["values"]) == 1
    return [True, False] if value["guarded"] and alone else [value["guarded"]]


def _row(drift: Drift, scored: dict[str, float], level: float) -> dict[str, Any]:
    names = [name for name in scored if name in drift.by_pair]
    found = rank_correlation([drift.by_pair[name] for name in names], [scored[name] for name in names], level=level)
    row: dict[str, Any] = {
        "source": drift.source,
        "level": drift.level,
        "address": drift.address,
        "name": drift.name,
        "guarded": drift.guarded,
        "by_pair": drift.by_pair,
        "pairs": len(names),
    }
    for key in ("spearman", "spearman_interval", "spearman_p", "kendall", "kendall_interval", "kendall_p"):
        value = None if found is None else getattr(found, key)
        row[key] = list(value) if isinstance(value, tuple) else value
    return row | {"spearman_p_holm": None, "pairs_needed": None}


def _sentence(rows: list[dict[str, Any]], tested: list[dict[str, Any]], pairs: int, least: int, alpha: float) -> str:
    count = f"{pairs} pair{'s' if pairs != 1 else ''}"
    if not rows:
        return f"Nothing can be said: {count} with both scores and HRSA values, and a correlation needs 3."
    if not tested:
        said = "too few for a correlation, which needs 3" if pairs < 3 else "alike in their values or in their scores"
        return f"Nothing can be said: {count}, {said}."
    found = [row for row in tested if row["spearman_p_holm"] < alpha]
    best = max(tested, key=lambda row: abs(row["spearman"]))
    seen = f"The strongest of {len(tested)} is {_described(best)}: {signed(best['spearman'])}"
    if found:
        names = "; ".join(f"{_described(row)} ({signed(row['spearman'])})" for row in found)
        return f"Over {count}, {len(found)} of {len(tested)} values go with the score difference: {names}."
    if pairs < least:
        return (
            f"Not decided, and with {count} it cannot be: of {len(tested)} values, even a perfect correlation could be "
            f"told from chance with {least} pairs at least. {seen}{_plan(best)}."
        )
    return f"Over {count} no value is shown to go with the score difference. {seen}{_plan(best)}."


def _plan(row: dict[str, Any]) -> str:
    if row["pairs_needed"] is None:
        return f"; more than {LARGEST:,} pairs would be needed to find it, were that the true correlation"
    return f"; about {row['pairs_needed']:,} pairs would be needed to find it, were that the true correlation"


def _described(row: dict[str, Any]) -> str:
    guard = "without sink tokens" if row["guarded"] else "raw"
    return f"{row['name']}, {guard}, {SOURCES[row['source']]}"


def _notes(pairs: list[dict[str, Any]], scored: dict[str, float]) -> list[str]:
    notes = ["A pair is one unit, however many seeds it has: they share its backbones."]
    bases = [pair["base"] for pair in pairs if pair["name"] in scored]
    if shared := len(bases) - len(set(bases)):
        notes.append(
            f"{shared + len({base for base in bases if bases.count(base) > 1})} pairs share their base with another "
            "one. They are not independent, and what is found says less about other bases than the numbers claim."
        )
    return notes


def scatter(prediction: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one value of the backbones for each level, without sink tokens, to be drawn.

    They are chosen by what they are, not by how well they correlate.
    """
    chosen: dict[str, dict[str, Any]] = {}
    for row in prediction["values"]:
        if row["source"] == "backbones" and row["guarded"] and row["level"] not in chosen:
            chosen[row["level"]] = row
    return list(chosen.values())
