"""Which interval is taken, what it says, what is warned about, and that no file that differs is paired."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from st_reasoning.errors import InputError
from st_reasoning.results import read_results
from st_reasoning.results.compare import Comparison, compare
from st_reasoning.results.decide import Row, Settings, decide, over_both, over_units
from st_reasoning.results.groups import find_side
from st_reasoning.results.tasks import ANALYSIS, UNKNOWN, TaskInfo
from st_reasoning.results.words import sentence
from tests.results.folders import write_run, write_seeds

CELL = frozenset({("test", "default")})
TYPES = {"Q1": "Retrieval", "Q2": "Retrieval", "Q3": "Retrieval", "C1": "Classification"}
INFOS = {name: TaskInfo(name, kind, CELL) for name, kind in TYPES.items()}


def seeds_of(rng: np.random.Generator, mean: float, spread: float, seeds: range) -> dict[int, dict[str, float]]:
    """Scores of 0 to 1 around ``mean`` points for each seed and task, rounded as mteb rounds them."""
    return {seed: {task: round((mean + rng.normal(0, spread)) / 100, 5) for task in TYPES} for seed in seeds}


def run(root: Path, a: str = "base", b: str = "reasoning", **options) -> Comparison:
    results = read_results(root)
    sides = (find_side(name, results.runs) for name in (a, b))
    return compare(results, *sides, options.pop("infos", INFOS), **options)


def row(found: Comparison, name: str) -> Row:
    return next(each for each in found.rows if each.name == name)


def scores(root: Path, side: str, task: str) -> np.ndarray:
    results = read_results(root)
    return np.array([100 * results.scores[run][task].score for run in find_side(side, results.runs).runs])


def test_the_same_seeds_are_paired(tmp_path: Path):
    rng = np.random.default_rng(0)
    write_seeds(tmp_path, "base", seeds_of(rng, 50, 0.3, range(4)))
    write_seeds(tmp_path, "reasoning", seeds_of(rng, 53, 0.3, range(4)))
    found = run(tmp_path)
    theirs = scipy.stats.ttest_rel(scores(tmp_path, "reasoning", "Q2"), scores(tmp_path, "base", "Q2"))
    task = row(found, "Q2")
    assert (task.measured.kind, task.measured.over) == ("seeds", "4 seeds")
    assert task.measured.estimate.p_value == pytest.approx(theirs.pvalue)
    assert (task.measured.estimate.low, task.measured.estimate.high) == pytest.approx(
        tuple(theirs.confidence_interval(0.95))
    )
    assert task.p_difference >= theirs.pvalue  # Holm
    # Groups: the units are seeds and tasks; seeds alone, for these tasks only, stand beside it.
    assert [each.level for each in found.rows] == ["all", "type", "type", *["task"] * 4]
    assert found.headline.measured.kind == "seeds and tasks"
    matrix = np.array([scores(tmp_path, "reasoning", t) - scores(tmp_path, "base", t) for t in sorted(TYPES)]).T
    assert found.headline.measured == over_both(matrix, "tasks", 0.95) or (
        found.headline.measured.estimate == over_both(matrix, "tasks", 0.95).estimate
    )
    assert [each.kind for each in found.headline.others] == ["tasks", "seeds"]
    assert found.headline.others[1].estimate == over_units(matrix.mean(axis=1), "seeds", 0.95).estimate
    # A type of one task is that task.
    assert row(found, "Classification").measured.estimate == row(found, "C1").measured.estimate
    assert found.headline.word == "better"
    assert sentence(found).startswith("reasoning is better than base on all 4 tasks: +")
    assert "over 4 seeds and 4 tasks" in sentence(found)
    assert run(tmp_path, "reasoning", "base").headline.word == "worse"


def test_other_seeds_are_not_paired(tmp_path: Path):
    rng = np.random.default_rng(1)
    write_seeds(tmp_path, "base", seeds_of(rng, 50, 0.3, range(3)))
    write_seeds(tmp_path, "reasoning", seeds_of(rng, 53, 0.6, range(5, 9)))
    found = run(tmp_path)
    theirs = scipy.stats.ttest_ind(scores(tmp_path, "reasoning", "Q1"), scores(tmp_path, "base", "Q1"), equal_var=False)
    task = row(found, "Q1")
    assert task.measured.kind == "seeds, unpaired"
    assert task.measured.estimate.p_value == pytest.approx(theirs.pvalue)
    assert [found.headline.measured.kind, *(each.kind for each in found.headline.others)] == [
        "tasks",
        "seeds, unpaired",
    ]
    assert any("seeds are not paired: base has seed 0, seed 1, seed 2" in warning for warning in found.warnings)


def test_seeds_that_one_side_lacks_are_dropped_and_named(tmp_path: Path):
    rng = np.random.default_rng(2)
    write_seeds(tmp_path, "base", seeds_of(rng, 50, 0.3, range(3)))
    write_seeds(tmp_path, "reasoning", seeds_of(rng, 53, 0.3, range(1, 5)))
    found = run(tmp_path)
    assert row(found, "Q1").measured.over == "2 seeds"
    assert "seeds that one side lacks are not used: 0, 3, 4" in found.warnings


def test_one_run_a_side_decides_nothing_by_task_and_says_so(tmp_path: Path):
    for group, score in (("base", 0.5), ("reasoning", 0.6)):
        write_seeds(tmp_path, group, {0: {"Q1": score}})
    found = run(tmp_path)
    assert [(each.level, each.measured, each.word) for each in found.rows] == [
        ("task", None, "not decided"),
        ("type", None, "not decided"),
    ]
    assert "nothing tells how far chance would move that; several seeds" in sentence(found)
    assert sum("is one training" in warning for warning in found.warnings) == 2


def test_equivalent_and_undecided_say_what_would_decide(tmp_path: Path):
    rng = np.random.default_rng(3)
    write_seeds(tmp_path, "base", seeds_of(rng, 50, 0.02, range(3)))
    write_seeds(tmp_path, "same", seeds_of(rng, 50.05, 0.02, range(3)))
    write_seeds(tmp_path, "noisy", seeds_of(rng, 50.4, 3, range(3)))
    same, noisy = run(tmp_path, b="same"), run(tmp_path, b="noisy")
    assert same.headline.word == "equivalent"
    assert "same is equivalent to base within 0.5 points on all 4 tasks" in sentence(same)
    assert noisy.headline.word == "not decided"
    needed = noisy.headline.needed
    assert set(needed) == {"seeds", "tasks"}
    assert f"{needed['tasks'] - 4:,} more tasks" in sentence(noisy)
    # A wide margin makes anything equivalent, a narrow one nothing.
    assert run(tmp_path, b="noisy", settings=Settings(margin=50)).headline.word == "equivalent"
    assert run(tmp_path, b="same", settings=Settings(margin=0.001)).headline.word != "equivalent"


def test_a_certain_difference_below_the_margin_is_equivalent():
    measured = over_units(np.array([0.05, 0.06, 0.07, 0.06]), "seeds", 0.95)
    (found,) = decide([Row("task", "t", 1, 0, 0.06, 0.06, measured)], Settings())
    assert (found.word, found.p_difference < 0.01) == ("equivalent", True)


def test_no_spread_decides_nothing():
    rows = [
        Row("task", "moved", 1, 0, 0.1, 0.1, over_units(np.array([0.1, 0.1]), "seeds", 0.95)),
        Row("task", "still", 1, 0, 0.0, 0.0, over_units(np.array([0.0, 0.0]), "seeds", 0.95)),
    ]
    moved, still = decide(rows, Settings())
    assert (moved.word, moved.needed, moved.p_difference) == ("not decided", {}, None)
    # Two trainings with one score, as at 100 %, say nothing about a third.
    assert (still.word, still.needed, still.p_equivalence) == ("not decided", {}, None)


def test_a_handful_of_queries_that_all_tie_is_not_equivalent():
    """Both models answer all of them: one query in ten might still tell them apart."""
    few, many = (over_units(np.zeros(n), "examples", 0.95) for n in (5, 2000))
    rows = decide([Row("task", "t", 1, 90, 90, 0, each) for each in (few, many)], Settings())
    assert [each.word for each in rows] == ["not decided", "equivalent"]
    assert few.estimate.high > 50
    assert 300 < rows[0].needed["examples"] < 2000
    three_seeds = over_both(np.zeros((3, 5)), "examples", 0.95)
    assert decide([Row("task", "t", 1, 90, 90, 0, three_seeds)], Settings())[0].word == "not decided"


def test_an_analysis_is_no_measure_of_quality(tmp_path: Path):
    for name, score in (("a", 0.5), ("b", 0.6)):
        write_run(tmp_path, f"org/{name}", {"Q1": score, "H": 1.0 if name == "b" else 0.1})
    found = run(tmp_path, "org/a", "org/b", infos={**INFOS, "H": TaskInfo("H", ANALYSIS, CELL)})
    assert [each.name for each in found.rows] == ["Q1", "Retrieval"]
    assert found.warnings == ("H: likeness to a reference, no measure of quality, and not compared",)


def test_what_differs_beside_the_model_is_warned_about(tmp_path: Path):
    every = dict.fromkeys(TYPES, 0.5)
    write_run(tmp_path, "org/a", every, version="2.26.24", prompt="Query: ")
    write_run(tmp_path, "org/b", {**every, "Q1": 0.6}, version="2.30.0", prompt="Find: ", experiment="int8")
    said = " ".join(run(tmp_path, "org/a", "org/b#int8").warnings)
    assert "different versions of mteb: 2.26.24, 2.30.0" in said
    assert "prompts differ on 4 of 4 tasks, e.g. C1" in said
    assert "different experiments of mteb: none against int8" in said
    write_run(tmp_path, "org/c", every, prompt="Query: ")
    assert run(tmp_path, "org/a", "org/c").warnings == ()


def test_other_data_and_missing_cells_are_never_paired(tmp_path: Path):
    write_run(tmp_path, "org/a", {"Q1": 0.5, "Q2": 0.5, "C1": 0.5})
    write_run(tmp_path, "org/b", {"Q1": 0.5})
    write_run(tmp_path, "org/b", {"Q2": 0.6}, data="2")
    write_run(tmp_path, "org/b", {"C1": {("dev", "default"): 0.9}})
    found = run(tmp_path, "org/a", "org/b")
    assert [each.name for each in found.rows if each.level == "task"] == ["Q1"]
    (said,) = found.warnings
    assert said.startswith("2 of 3 tasks are left out: C1, for ")
    assert "lacks test/default" in said
    assert "is of data revision 1" in said
    with pytest.raises(InputError, match="no task can be compared"):
        run(tmp_path, "org/a", "org/b", infos={"C1": INFOS["C1"]})


def test_a_task_that_mteb_does_not_know_is_paired_on_equal_cells_only(tmp_path: Path):
    infos = {name: TaskInfo(name, UNKNOWN, None) for name in ("Own", "Mine")}
    write_run(tmp_path, "org/a", {"Own": 0.5, "Mine": 0.5})
    write_run(tmp_path, "org/b", {"Own": 0.6, "Mine": {("dev", "default"): 0.5}})
    found = run(tmp_path, "org/a", "org/b", infos=infos)
    assert [(each.level, each.name) for each in found.rows] == [("task", "Own"), ("type", UNKNOWN)]
    assert "have different splits or subsets" in found.warnings[0]


def test_benchmarks_take_their_own_subsets(tmp_path: Path):
    both = frozenset({("test", "en"), ("test", "fr")})
    infos = {name: TaskInfo(name, "STS", both) for name in ("S1", "S2")}
    english = {name: TaskInfo(name, "STS", frozenset({("test", "en")})) for name in infos}
    benchmarks = {"Small": english, "Large": {**english, "S3": TaskInfo("S3", "STS", CELL)}}
    for model, en in (("org/a", 0.5), ("org/b", 0.75)):
        write_run(tmp_path, model, {t: {("test", "en"): en, ("test", "fr"): 0.1} for t in infos})
    found = run(tmp_path, "org/a", "org/b", infos=infos, benchmarks=benchmarks)
    assert [each.name for each in found.rows if each.level == "benchmark"] == ["Small"]
    assert (row(found, "Small").a, row(found, "Small").b) == (50, 75)
    assert row(found, "S1").a == pytest.approx(30)
    only = run(tmp_path, "org/a", "org/b", benchmarks={"Large": benchmarks["Large"]}, benchmark="Large")
    assert (only.headline.name, only.headline.tasks) == ("2 of 3 tasks of Large", 2)
    assert any("1 of 3 tasks of Large are not there on both sides" in warning for warning in only.warnings)
    assert row(only, "S1").a == 50


def test_wrong_input(tmp_path: Path):
    write_run(tmp_path, "org/a", {"Q1": 0.5})
    with pytest.raises(InputError, match="are both org/a@"):
        run(tmp_path, "org/a", "org/a")
    with pytest.raises(InputError, match="margin: expected a positive number"):
        Settings(margin=0)
    with pytest.raises(InputError, match="level: expected a share"):
        Settings(level=95)
