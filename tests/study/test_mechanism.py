"""What the panels of a pair say: changes are those of the realignment, means over seeds have their own intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from st_reasoning.files import write_json
from st_reasoning.hrsa import read, realignment
from st_reasoning.stats import interval, paired_t
from st_reasoning.study.figures import training
from st_reasoning.study.mechanism import guarded, hierarchy, mechanism, name_of
from st_reasoning.study.published import SAME, WORDS
from tests.study.made import failed, made, write_curve

Panels = list[dict[str, Any]]


def test_one_seed_is_the_realignment_itself(panels: Panels, tmp_path: Path) -> None:
    recipe, out, outcomes = made(tmp_path, {"a": [0.0]}, panels)
    found = mechanism(recipe.pairs[0], recipe, out, outcomes)
    wanted = realignment(panels[0], panels[1])
    assert [level["word"] for level in found["backbones"]["levels"]] == [
        level["word"] for level in read(panels[0])["levels"]
    ]
    for ours, theirs in zip(found["realignment"]["levels"], wanted["levels"], strict=True):
        assert ours["words"] == {theirs["word"]: 1}
        assert ours["change"]["value"] == pytest.approx(theirs["change"]["change"])
        assert ours["change"]["interval_seeds"] is None
        assert (ours["change"]["interval"] is None) == (theirs["change"]["interval"] is None)
        if theirs["change"]["interval"] is not None:
            assert ours["change"]["interval"] == pytest.approx(theirs["change"]["interval"])
            assert ours["change"]["shown"] == theirs["change"]["shown"]
    last = {each["address"]: each for each in wanted["changes"] if each["layer"] == wanted["layer"]}
    for value in found["values"]:
        assert value["change"]["value"] == pytest.approx(last[value["address"]]["change"])


def test_a_mean_over_seeds_is_over_sentences_and_over_seeds(panels: Panels, tmp_path: Path) -> None:
    recipe, out, outcomes = made(tmp_path, {"a": [0.0, 0.0]}, panels)
    found = mechanism(recipe.pairs[0], recipe, out, outcomes)
    address = "linear_cka.debiased"
    (value,) = (each for each in found["values"] if each["address"] == address)
    before, *after = (panel["layers"][-1]["linear_cka"]["debiased"] for panel in panels)
    left = [panel["jackknife"]["left_out"][address][-1] for panel in panels]
    weights = panels[0]["jackknife"]["weights"]
    without = [(x + y) / 2 - z for z, x, y in zip(*left, strict=True)]
    around = interval(np.mean(after) - before, without, weights)
    assert value["change"]["value"] == pytest.approx(np.mean(after) - before)
    assert value["change"]["interval"] == pytest.approx([around.low, around.high])
    over = paired_t([each - before for each in after])
    assert value["change"]["interval_seeds"] == pytest.approx([over.low, over.high])
    assert value["embedders_mean"] == pytest.approx(np.mean(after))


def test_from_seeds_that_all_show_the_same_nothing_follows(panels: Panels, tmp_path: Path) -> None:
    recipe, out, outcomes = made(tmp_path, {"a": [0.0, 0.0]}, panels)
    write_json(out / "hrsa/a/seed-1/hrsa.json", panels[1])
    found = mechanism(recipe.pairs[0], recipe, out, outcomes)
    assert all(value["change"]["interval_seeds"] is None for value in found["values"])


def test_panels_of_other_texts_are_not_subtracted(panels: Panels, tmp_path: Path) -> None:
    recipe, out, outcomes = made(tmp_path, {"a": [0.0, 0.0]}, panels)
    other = {**panels[1], "corpus": {**panels[1]["corpus"], "hash": "other"}}
    write_json(out / "hrsa/a/seed-0/hrsa.json", other)
    (out / "hrsa/a/seed-1/hrsa.json").write_text("{")
    found = mechanism(recipe.pairs[0], recipe, out, outcomes)
    assert found["realignment"] is None
    assert found["backbones"] is not None
    first, second = found["missing"]
    assert first == "hrsa/a/seed-1/hrsa.json is not there"
    assert second.startswith("the realignment of seed 0: panels: expected the same texts")


def test_panels_of_steps_that_failed_are_not_taken(panels: Panels, tmp_path: Path) -> None:
    """They lie there still, of the embedders before."""
    recipe, out, outcomes = made(tmp_path, {"a": [0.0, 0.0]}, panels)
    for seed in (0, 1):
        write_curve(out, outcomes, "a", seed, [{"step": 0, "linear_cka": 0.5}])
    found = mechanism(
        recipe.pairs[0], recipe, out, failed(outcomes, "hrsa/a/backbones", "hrsa/a/seed-1", "curve/a/seed-1")
    )
    assert found["backbones"] is found["realignment"] is None
    assert [each["seed"] for each in found["embedders"]] == [each["seed"] for each in found["curves"]] == [0]
    assert found["missing"] == [
        "hrsa/a/backbones: the step did not end well", "hrsa/a/seed-1: the step did not end well",
    ]  # fmt: skip


def test_the_hierarchy_counts_words_and_holds_them_against_the_paper(panels: Panels, tmp_path: Path) -> None:
    recipe, out, outcomes = made(
        tmp_path, {"a": [0.0], "b": [0.0], "c": [0.0]}, panels, methods=("SFT", "RLVR", "code")
    )
    pairs = [
        {"name": pair.name, "method": pair.method, "mechanism": mechanism(pair, recipe, out, outcomes)}
        for pair in recipe.pairs
    ]
    rows = hierarchy(recipe, pairs)
    assert [row["level"] for row in rows] == list(WORDS)
    columns = ["backbones, SFT", "backbones, RLVR", "backbones, code", "after contrastive training"]
    for row in rows:
        assert [cell["column"] for cell in row["cells"]] == columns
        sft, _, code, after = row["cells"]
        said = next(e for e in pairs[0]["mechanism"]["backbones"]["levels"] if e["level"] == row["level"])
        assert sft["words"] == {said["word"]: ["a"]}
        assert sft["lowest"] == sft["highest"] == said["value"]
        silent = said["word"] in ("undecided", "not measured")
        agrees = None if silent else "all" if said["word"] in SAME[sft["paper"]] else "none"
        assert sft["agrees"] == agrees
        assert (code["paper"], code["agrees"]) == (None, None)
        assert sum(len(names) for names in after["words"].values()) == 3


def test_without_sinks_the_raw_value_is_the_guarded_one(panels: Panels) -> None:
    from st_reasoning.hrsa.addresses import Values

    panel = {**panels[0], "sinks": {"tokens": 0, "positions": {}}}
    panel["sensitivity"] = [{**entry, "linear_cka_without_sinks": None} for entry in panels[0]["sensitivity"]]
    values = Values(panel)
    assert guarded(values, "linear_cka.debiased") == "linear_cka.debiased"
    assert guarded(Values(panels[0] | {"sinks": {"tokens": 4}, "sensitivity": panel["sensitivity"]}),
                   "linear_cka.debiased") is None  # fmt: skip
    assert name_of("sensitivity.knn_overlap_without_sinks.5.value") == "Shared neighbours, k = 5"


def test_the_curve_over_training_is_shown_where_it_was_kept(panels: Panels, tmp_path: Path) -> None:
    recipe, out, outcomes = made(tmp_path, {"a": [0.0, 0.0]}, panels)
    assert training({"mechanism": mechanism(recipe.pairs[0], recipe, out, outcomes)}) is None
    for seed in (0, 1):
        points = [{"step": s, "linear_cka": 0.5 + s / 100 + seed / 10, "knn_overlap": 0.3} for s in (0, 5, 10)]
        write_curve(out, outcomes, "a", seed, points)
    found = mechanism(recipe.pairs[0], recipe, out, outcomes)
    assert found["curves"][1] == {
        "seed": 1, "file": "curve/a/seed-1.json", "steps": [0, 5, 10],
        "values": {"linear_cka": [0.6, 0.65, 0.7], "knn_overlap": [0.3] * 3},
    }  # fmt: skip
    figure = training({"name": "a", "mechanism": found})
    assert figure is not None
    assert [plot.title for plot in figure.plots] == ["Linear CKA, debiased", "Shared neighbours"]
    assert figure.data.csv().splitlines()[1] == "seed 0,linear_cka,0,0.5,curve/a/seed-0.json"
