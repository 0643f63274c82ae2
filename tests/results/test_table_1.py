"""The worked example of STATISTICS.md is what our functions make of the paper's figures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

import st_reasoning.results
from st_reasoning.results.decide import Row, Settings, decide, over_units
from st_reasoning.study.published import BENCHMARKS, PAIRS

TABLE_1 = {pair.name: [(cell.difference, cell.std) for cell in pair.scores.values()] for pair in PAIRS if pair.scores}


def three_seeds(mean: float, std: float) -> np.ndarray:
    """Three differences with this mean and standard deviation; t knows nothing else of them."""
    return mean + std * np.array([-1.0, 0.0, 1.0])


def rows() -> list[Row]:
    found = []
    for pair, cells in TABLE_1.items():
        for benchmark, (mean, std) in zip(BENCHMARKS, cells, strict=True):
            measured = over_units(three_seeds(mean, std), "seeds", 0.95)
            found.append(Row("benchmark", f"{pair} | {benchmark}", 1, 0.0, mean, mean, measured))
    return decide(found, Settings())


def line(row: Row, std: float) -> str:
    estimate = row.measured.estimate
    p, q = ("<0.001" if p < 0.001 else f"{p:.3f}" for p in (row.p_difference, row.p_equivalence))
    interval = f"{estimate.low:+.2f} to {estimate.high:+.2f}"
    return f"| {row.name} | {row.difference:+.2f} ± {std:.2f} | {interval} | {p} | {q} | {row.word} |"


def test_the_documented_table_is_what_is_computed():
    stds = [std for cells in TABLE_1.values() for _, std in cells]
    expected = [line(row, std) for row, std in zip(rows(), stds, strict=True)]
    text = Path(st_reasoning.results.__file__).with_name("STATISTICS.md").read_text(encoding="utf-8")
    head = text.splitlines().index(next(each for each in text.splitlines() if each.startswith("| pair | benchmark")))
    assert text.splitlines()[head + 2 : head + 2 + len(expected)] == expected


@pytest.mark.parametrize("cell", [(0.67, 0.03), (-0.06, 0.05), (0.45, 0.02)])
def test_by_the_book(cell: tuple[float, float]):
    """d ± t s / sqrt(3), with the two one-sided tests written out."""
    mean, std = cell
    measured = over_units(three_seeds(mean, std), "seeds", 0.95)
    half = 4.302652729696142 * std / math.sqrt(3)
    assert (measured.estimate.low, measured.estimate.high) == pytest.approx((mean - half, mean + half))
    (row,) = decide([Row("task", "t", 1, 0, mean, mean, measured)], Settings())
    t = [(mean + 0.5) / (std / math.sqrt(3)), (mean - 0.5) / (std / math.sqrt(3))]
    expected = max(scipy.stats.t.sf(t[0], 2), scipy.stats.t.cdf(t[1], 2))
    assert row.p_equivalence == pytest.approx(expected)


def test_what_the_paper_calls_null_is_not_all_equivalent():
    words = {row.name: row.word for row in rows()}
    assert words["Qwen3-0.6B (SFT) | MTEB(Multilingual, v2)"] == "worse"
    rlvr = [word for name, word in words.items() if "RLVR" in name]
    assert {word: rlvr.count(word) for word in set(rlvr)} == {"equivalent": 5, "better": 2, "not decided": 5}
    assert sorted(row.needed["seeds"] for row in rows() if row.word == "not decided") == [4, 4, 4, 4, 5]
