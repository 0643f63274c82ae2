"""What a study says: statistics over pairs, the paper's form, what is missing; the same from the same files."""

from __future__ import annotations

import json
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from st_reasoning.files import folder_hash, read_json
from st_reasoning.results.reading import read_results
from st_reasoning.stats import holm, paired_t
from st_reasoning.study.published import BENCHMARKS, PAIRS, published_pair
from st_reasoning.study.summary import lacks, summarise
from tests.results.folders import write_run
from tests.study.made import failed, made

DIFFERENCES = {"up": [2.0, 2.2, 2.1], "down": [-1.0, -1.4, -1.2], "same": [0.01, -0.02, 0.0], "open": [3.0, -2.0, 0.4]}
Panels = list[dict[str, Any]]


@pytest.fixture(scope="module")
def study(panels: Panels, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    parts = made(tmp_path_factory.mktemp("summary"), DIFFERENCES, panels)
    return summarise(*parts), parts


def test_every_pair_gets_its_answer(study: tuple[dict[str, Any], Any]) -> None:
    found, _ = study
    assert {pair["name"]: pair["answer"]["word"] for pair in found["pairs"]} == {
        "up": "better", "down": "worse", "same": "equivalent", "open": "not decided",
    }  # fmt: skip
    advice = [pair["answer"]["advice"] for pair in found["pairs"]]
    assert advice == [
        "Start from the reasoning model", "Start from the base model", "Start from either",
        "Not decided which to start from",
    ]  # fmt: skip
    assert found["pairs"][0]["difference"] == pytest.approx(2.1)
    said = found["answer"]["sentences"][0]
    counts = "better in 1, worse in 1, equivalent in 1; 1 not decided."
    assert said == f"Of 4 pairs, the embedder from the reasoning model is {counts}"
    for sentence in found["pairs"][0]["answer"]["sentences"][-2:]:
        assert sentence.startswith("Contrastive training gained the")
    assert "(40.50 to 50.75)" in found["pairs"][0]["answer"]["sentences"][-2]


def test_pairs_are_the_units_overall(study: tuple[dict[str, Any], Any]) -> None:
    found, _ = study
    estimate = paired_t([pair["difference"] for pair in found["pairs"]])
    overall = found["overall"]
    assert overall["interval"]["units"] == {"pairs": 4}
    assert (overall["interval"]["low"], overall["interval"]["high"]) == pytest.approx((estimate.low, estimate.high))
    assert found["answer"]["word"] == overall["word"] == "not decided"
    by_method = {row["name"]: row for row in found["methods"]}
    assert by_method["SFT"]["difference"] == pytest.approx((2.1 - 0.01 / 3) / 2, abs=1e-6)
    assert by_method["RLVR"]["tasks"] == 2  # pairs


def test_p_values_are_adjusted_over_all_pairs(study: tuple[dict[str, Any], Any]) -> None:
    found, _ = study
    rows = [pair["comparison"]["rows"][0] for pair in found["pairs"]]
    raw = [paired_t(DIFFERENCES[name]).p_value for name in DIFFERENCES]
    # Differences are alike on both tasks: the interval over seeds is the wider one, and decides.
    assert [row["p_difference_holm"] for row in rows] == pytest.approx(list(holm(raw)), abs=1e-6)
    columns = [pair["columns"][0] for pair in found["pairs"]]
    assert [cell["p_difference_holm"] for cell in columns] == pytest.approx(list(holm(raw)), abs=1e-6)
    assert [cell["std"] for cell in columns] == pytest.approx(
        [statistics.stdev(values) for values in DIFFERENCES.values()], abs=1e-4
    )


def test_each_number_names_a_file_that_holds_it(study: tuple[dict[str, Any], Any]) -> None:
    found, (_, out, _) = study
    for pair in found["pairs"]:
        for task in pair["tasks"]:
            for part in (task["untrained"], *task["seeds"]):
                for arm in ("base", "reasoning"):
                    (entry,) = read_json(out / part["files"][arm])["scores"]["test"]
                    assert 100 * entry["main_score"] == pytest.approx(part[arm], abs=1e-4)
        for value in pair["mechanism"]["values"]:
            panel = read_json(out / pair["mechanism"]["backbones"]["file"])
            section, path = "layers", value["address"].split(".")
            if path[0] == "sensitivity":
                section, path = "sensitivity", path[1:]
            entry = panel[section][-1]
            for key in path:
                entry = entry[key]
            assert entry == value["backbones"]["value"]


def test_the_same_files_give_the_same_content_wherever_they_lie(
    study: tuple[dict[str, Any], Any], tmp_path: Path
) -> None:
    found, (recipe, out, outcomes) = study
    moved = tmp_path / "elsewhere"
    shutil.copytree(out, moved)
    later = {name: replace(each, seconds=99.0, state="ran") for name, each in outcomes.items()}
    again = summarise(recipe, moved, later)
    assert again.pop("runtime") != found["runtime"]
    assert json.dumps(again) == json.dumps({key: value for key, value in found.items() if key != "runtime"})
    assert str(out) not in json.dumps(found)
    json.dumps(found, allow_nan=False)


def test_a_failed_seed_is_left_out_on_both_sides(panels: Panels, tmp_path: Path) -> None:
    recipe, out, outcomes = made(tmp_path, DIFFERENCES, panels)
    broken = failed(outcomes, "evaluate/up-reasoning/seed-1", "hrsa/up/seed-1")
    found = summarise(recipe, out, broken)
    up, down = found["pairs"][:2]
    for task in up["tasks"]:
        assert [seed["difference"] is None for seed in task["seeds"]] == [False, True, False]
        assert task["seeds"][1]["reasoning"] is None
        assert task["seeds"][1]["files"]["reasoning"] is None
        assert task["trained"]["difference"] == pytest.approx(2.05)
    assert up["comparison"]["rows"][0]["interval"]["units"]["seeds"] == 2
    assert up["mechanism"]["missing"] == ["hrsa/up/seed-1: the step did not end well"]
    assert [each["seed"] for each in up["mechanism"]["embedders"]] == [0, 2]
    assert down["comparison"]["rows"][0]["interval"]["units"]["seeds"] == 3
    assert found["missing"] == [
        {"step": "evaluate/up-reasoning/seed-1", "state": "failed", "reason": "RuntimeError: out of memory",
         "lacks": "the scores of up-reasoning, seed 1"},
        {"step": "hrsa/up/seed-1", "state": "failed", "reason": "RuntimeError: out of memory",
         "lacks": "the comparison of the embedders of up, seed 1"},
    ]  # fmt: skip


def test_an_arm_without_scores_is_named_and_the_others_are_compared(panels: Panels, tmp_path: Path) -> None:
    recipe, out, outcomes = made(tmp_path, DIFFERENCES, panels)
    names = [f"evaluate/up-reasoning/{part}" for part in ("untrained", "seed-0", "seed-1", "seed-2")]
    shutil.rmtree(out / "hrsa" / "up")
    found = summarise(recipe, out, failed(outcomes, *names, "audit/up"))
    up = found["pairs"][0]
    assert (up["comparison"], up["difference"], up["audit"], up["columns"]) == (None, None, None, [])
    reason = "no seed was trained and evaluated in both arms: there is no score of up-reasoning"
    assert up["answer"]["sentences"][0] == f"There is nothing to decide on: {reason}."
    assert up["mechanism"]["backbones"] is up["mechanism"]["realignment"] is None
    assert found["overall"]["interval"]["units"] == {"pairs": 3}
    assert found["prediction"]["pairs"].keys() == {"down", "same", "open"}
    assert {"of": "up", "what": "everything about its scores", "decides": f"what is missing: {reason}"} in found[
        "undecided"
    ]


def test_a_study_of_which_nothing_worked_still_says_so(panels: Panels, tmp_path: Path) -> None:
    recipe, out, outcomes = made(tmp_path, {"a": [0.0, 1.0]}, panels)
    shutil.rmtree(out)
    found = summarise(recipe, out, failed(outcomes, *outcomes))
    assert found["answer"]["sentences"][0].startswith("No pair could be compared. a: no such folder")
    assert len(found["missing"]) == len(outcomes)
    assert found["overall"] is None
    assert found["pairs"][0]["tasks"][0]["trained"]["base"] is None


def test_a_result_of_an_embedder_that_is_gone_is_not_taken(panels: Panels, tmp_path: Path) -> None:
    """Trained again by another recipe, a folder has results of both; the revision tells them apart."""
    recipe, out, outcomes = made(tmp_path, {"a": [1.0, 1.5]}, panels)
    embedder = out / "embedders" / "a-reasoning" / "seed-0"
    embedder.mkdir(parents=True)
    (embedder / "weights").write_text("new")
    write_run(
        out / "mteb", "local/seed-0", {"Alpha": 0.9, "Beta": 0.9}, source=str(embedder), revision=folder_hash(embedder)
    )
    found = summarise(recipe, out, outcomes)
    file = found["pairs"][0]["tasks"][0]["seeds"][0]["files"]["reasoning"]
    assert folder_hash(embedder) in file
    assert len(read_results(out / "mteb").runs) == 7


def test_an_embedder_that_was_written_anew_since_its_evaluation_is_missing(panels: Panels, tmp_path: Path) -> None:
    """Its results are those of earlier ones; without a word its seed would drop out of the statistics."""
    recipe, out, outcomes = made(tmp_path, DIFFERENCES, panels)
    assert summarise(recipe, out, outcomes)["missing"] == []
    embedder = out / "embedders" / "up-reasoning" / "seed-1"
    write_run(out / "mteb", "local/seed-1", {"Alpha": 0.9, "Beta": 0.9}, source=str(embedder), revision="f" * 64)
    embedder.mkdir(parents=True)
    (embedder / "weights").write_text("new")
    found = summarise(recipe, out, outcomes)
    (missing,) = found["missing"]
    assert missing["step"] == "evaluate/up-reasoning/seed-1"
    assert missing["lacks"] == "the scores of up-reasoning, seed 1"
    assert "remove steps/evaluate/up-reasoning/seed-1.json" in missing["reason"]
    assert found["pairs"][0]["comparison"]["rows"][0]["interval"]["units"]["seeds"] == 2


def test_published_values_stand_beside_ours_where_the_pair_is_the_same(panels: Panels, tmp_path: Path) -> None:
    known = PAIRS[1]
    cell = known.scores["BRIGHT"]
    ours = [cell.difference - cell.std, cell.difference, cell.difference + cell.std]
    recipe, out, outcomes = made(
        tmp_path, {"zoo": ours, "other": [1.0, 1.1, 0.9]}, panels, tasks=(), benchmarks=("BRIGHT(v1.1)",),
        methods=("RLVR",), names={"zoo": (known.base, known.reasoning)},
    )  # fmt: skip
    found = summarise(recipe, out, outcomes)
    zoo, other = (pair["columns"] for pair in found["pairs"])
    # mteb's benchmark has long tasks that the paper has not: its own column stands beside.
    assert [(each["column"], each["tasks"]) for each in zoo] == [("BRIGHT(v1.1)", 20), ("BRIGHT", 12)]
    assert zoo[0]["published"] is None
    published = zoo[1]["published"]
    assert published["difference"] == cell.difference
    assert published["word"] == "equivalent"  # as in STATISTICS.md
    against = published["ours_minus_published"]
    assert against["difference"] == pytest.approx(0, abs=1e-4)
    # Welch by the book: both have the same spread over three seeds, so 4 degrees of freedom.
    assert against["high"] == pytest.approx(2.7764451 * cell.std * (2 / 3) ** 0.5, abs=1e-3)
    assert other[1]["published"] is None
    assert found["pairs"][0]["mechanism"]["published_entropy"] == [0.948, 0.883]


def test_a_published_pair_is_known_by_its_hub_names_only() -> None:
    assert BENCHMARKS[0] in PAIRS[0].scores
    assert published_pair("Qwen/Qwen3-0.6B-Base", "Qwen/Qwen3-0.6B") is PAIRS[0]
    assert published_pair("Qwen/Qwen3-0.6B-Base", "someone/Qwen3-0.6B") is None
    assert published_pair("Qwen/Qwen3-4B", "someone/Qwen3-4B-PSR") is PAIRS[4]
    assert published_pair("Qwen/Qwen3-4B", None) is None


def test_a_benchmark_that_lacks_tasks_is_called_a_part(panels: Panels, tmp_path: Path) -> None:
    recipe, out, outcomes = made(
        tmp_path, {"a": [1.0, 1.5], "b": [0.5, 0.6]}, panels, tasks=(), benchmarks=("BRIGHT(v1.1)",)
    )
    for path in (out / "mteb").rglob("BrightPonyRetrieval.json"):
        path.unlink()
    found = summarise(recipe, out, outcomes)
    names = [cell["name"] for cell in found["pairs"][0]["columns"]]
    assert names == ["19 of 20 tasks of BRIGHT(v1.1)", "11 of 12 tasks of BRIGHT"]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("texts", "the texts that models are compared on"),
        ("import/x", "the backbone x as a folder"),
        ("train/x/seed-2", "the embedder of x, seed 2"),
        ("hrsa/p/backbones", "the comparison of the backbones of p"),
        ("something/else", "something/else"),
    ],
)
def test_what_a_step_is_for(step: str, said: str) -> None:
    assert lacks(step) == said
