"""Names: what they mean, which runs are seeds of one training, and what is said when they mean several."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from st_reasoning.errors import InputError
from st_reasoning.files import folder_hash
from st_reasoning.results import read_results
from st_reasoning.results.groups import describe, find_side, label, seed_and_group
from tests.results.folders import write_run, write_seeds


@pytest.fixture
def runs(tmp_path: Path):
    """Two groups of local seeds, an untrained model of each, and hub models with seeds in their names."""
    for group in ("base", "reasoning"):
        write_seeds(tmp_path, f"embedders/{group}", {seed: {"T": 0.5} for seed in (0, 1, 10)})
        write_run(tmp_path, "local/untrained", {"T": 0.5}, source=f"/models/embedders/{group}/untrained")
    for name in (
        "org/m-seed-1",
        "org/m-seed-2",
        "org/m",
        "org/other_SEED3",
        "org/seedling-2",
        "org/linseed-5",
        "org/reseed9",
    ):
        write_run(tmp_path, name, {"T": 0.5})
    write_run(tmp_path, "org/m", {"T": 0.5}, experiment="int8")
    return read_results(tmp_path).runs


@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        ("base", (0, 1, 10)),
        ("embedders/reasoning", (0, 1, 10)),
        ("base/seed-1", (1,)),
        ("base/untrained", (None,)),
        ("org/m-seed-2", (2,)),
        ("org/other", (3,)),
        ("org/m#int8", (None,)),
        ("org/seedling-2", (None,)),
        ("org/reseed9", (None,)),
        ("org/linseed-5", (None,)),
        ("base/seed-10,reasoning/seed-0", (10, 0)),
    ],
)
def test_names(runs, name, seeds):
    side = find_side(name, runs)
    assert side.seeds == seeds
    assert all((run.experiment is not None) == ("#" in name) for run in side.runs)


def test_the_right_runs_are_found(runs):
    assert {run.source.parent.name for run in find_side("reasoning", runs).runs} == {"reasoning"}
    one = find_side("base/seed-1", runs).runs[0]
    assert find_side(f"local/seed-1@{one.revision[:6]}", runs).runs == (one,)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", "no results of 'nobody'; there are: base .*, org/m \\(seeds 1, 2\\)"),
        ("local/seed-1", "ambiguous: it may mean local/seed-1@"),
        ("untrained", "ambiguous"),
        ("org/m", r"ambiguous: it may mean org/m, org/m@"),
        ("base,base/seed-0", "named twice"),
        ("base/seed-0,reasoning/seed-0", "seed 0 is there more than once"),
        ("base#int8", "no results of 'base#int8'"),
    ],
)
def test_what_is_not_one_thing_is_one_line(runs, name, said):
    with pytest.raises(InputError, match=said) as caught:
        find_side(name, runs)
    assert "\n" not in str(caught.value)


def test_a_label_is_found_again(runs):
    labels = [label(run, runs) for run in runs]
    assert len(set(labels)) == len(labels)
    for run, name in zip(runs, labels, strict=True):
        if name != "org/m":  # also a group
            assert find_side(name, runs).runs == (run,)
    assert "base (seeds 0, 1, 10)" in describe(runs)


def test_trained_again_into_the_same_folder_is_ambiguous(tmp_path: Path):
    for revision in ("a" * 64, "b" * 64):
        write_run(tmp_path, "local/seed-0", {"T": 0.5}, source="/m/base/seed-0", revision=revision)
    runs = read_results(tmp_path).runs
    with pytest.raises(InputError, match="seed 0 is there more than once"):
        find_side("base", runs)
    assert find_side("local/seed-0@aaaa", runs).seeds == (0,)


def test_a_record_tells_the_seed_where_no_name_does(tmp_path: Path):
    model = tmp_path / "models" / "second"
    model.mkdir(parents=True)
    (model / "st_reasoning.json").write_text(json.dumps({"training": {"seed": 7}}))
    write_run(tmp_path, "local/second", {"T": 0.5}, source=str(model), revision=folder_hash(model))
    runs = read_results(tmp_path).runs
    assert seed_and_group(runs[0])[0] is None
    assert find_side("second", runs).seeds == (7,)
    # Trained anew since: the record is of another model.
    (model / "st_reasoning.json").write_text(json.dumps({"training": {"seed": 8}}))
    assert find_side("second", runs).seeds == (None,)
