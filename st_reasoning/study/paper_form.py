"""The paper's Table 1 in our words, and its numbers beside ours where the pair is the same."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from st_reasoning.results.decide import Row, Settings, decide, over_units
from st_reasoning.results.words import row_mapping
from st_reasoning.stats import welch
from st_reasoning.study import published
from st_reasoning.study.published import PublishedPair
from st_reasoning.study.recipe import Pair


@functools.cache
def published_rows() -> dict[tuple[str, str], Row]:
    """Return the paper's cells by pair and benchmark, decided as ours are: by t over 3 seeds, Holm over all cells."""
    settings, rows = Settings(), {}
    for pair in published.PAIRS:
        for benchmark, cell in pair.scores.items():
            measured = over_units(_units(cell.difference, cell.std), "seeds", settings.level)
            rows[pair.name, benchmark] = Row(
                "benchmark", benchmark, 1, cell.base, cell.reasoning, cell.difference, measured
            )
    return dict(zip(rows, decide(list(rows.values()), settings), strict=True))


def cells(pair: Pair, rows: dict[str, Row]) -> list[dict[str, Any]]:
    """Return the cells of one pair: column, our row, its standard deviation over seeds, and what the paper has.

    Args:
        pair: Of the study.
        rows: By column, each with an interval over seeds alone.
    """
    known = published.published_pair(pair.base, pair.reasoning.backbone)
    found = []
    for column, row in rows.items():
        spread = None if row.measured is None else _spread(row)
        beside = None if known is None or column not in known.scores else _beside(known, column, row, spread)
        found.append({"column": column, **row_mapping(row), "std": spread, "published": beside})
    return found


def _spread(row: Row) -> float:
    assert row.measured is not None
    return float(row.measured.estimate.standard_error * np.sqrt(row.measured.have["seeds"]))


def _beside(known: PublishedPair, column: str, row: Row, spread: float | None) -> dict[str, Any]:
    """Return the paper's cell with ours minus its difference, by Welch's t over both sets of seeds."""
    cell, theirs = known.scores[column], published_rows()[known.name, column]
    against = None
    if row.measured is not None and spread is not None:
        ours = _units(row.difference, spread, row.measured.have["seeds"])
        estimate = welch(_units(cell.difference, cell.std), ours)
        against = {"difference": estimate.difference, "low": estimate.low, "high": estimate.high}
    return {
        "source": f"{published.SOURCE}, Table 1",
        "base": cell.base,
        "reasoning": cell.reasoning,
        "difference": cell.difference,
        "std": cell.std,
        "word": theirs.word,
        "ours_minus_published": against,
    }


def _units(mean: float, std: float, count: int = published.SEEDS) -> np.ndarray:
    """Return so many differences with this mean and standard deviation; t knows nothing else of them."""
    shape = np.arange(count) - (count - 1) / 2
    found: np.ndarray = mean + std * shape / shape.std(ddof=1)
    return found
