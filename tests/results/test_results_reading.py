"""What cannot be used is named with its kind and left out; the rest is read as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from st_reasoning.errors import InputError
from st_reasoning.results import read_results
from st_reasoning.results.tasks import TaskInfo, leave_out_partial
from tests.results.folders import write_result, write_run


def kinds(root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in read_results(root).left_out:
        found.setdefault(each.kind, []).append(each.path.name)
        assert str(each.path) in each.reason
    return {kind: sorted(names) for kind, names in found.items()}


def test_the_rest_is_read(tmp_path: Path):
    write_run(tmp_path, "org/a", {"One": 0.25, "Two": {("test", "x"): 0.5, ("test", "y"): 1.0}})
    write_run(tmp_path, "local/b", {"One": 0.75}, source="/models/b", experiment="int8")
    found = read_results(tmp_path)
    assert [(run.model, run.experiment) for run in found.runs] == [("local/b", "int8"), ("org/a", None)]
    assert found.tasks == ["One", "Two"]
    assert found.scores[found.runs[1]]["Two"].score == 0.75
    assert found.runs[0].source == Path("/models/b")
    assert found.left_out == ()
    assert read_results(tmp_path / "results").tasks == ["One", "Two"]


def test_corrupt_files(tmp_path: Path):
    folder = write_run(tmp_path, "org/a", {"Good": 0.5})
    whole = (folder / "Good.json").read_text()
    (folder / "Empty.json").write_text("")
    (folder / "Half.json").write_text(whole[: len(whole) // 2])
    (folder / "Binary.json").write_bytes(b"\xff\xfe\x00")
    write_result(folder / "Nan.json", "Nan", {("test", "default"): float("nan")})
    (folder / "List.json").write_text(json.dumps({"task_name": "List", "scores": {"test": {}}}))
    assert kinds(tmp_path) == {"corrupt": ["Binary.json", "Empty.json", "Half.json", "List.json", "Nan.json"]}


def test_foreign_files(tmp_path: Path):
    folder = write_run(tmp_path, "org/a", {"Good": 0.5})
    (folder / "notes.json").write_text('{"by": "hand"}')
    write_result(folder / "Renamed.json", "Good", {("test", "default"): 0.9})
    write_result(folder.parent / "High.json", "High", {("test", "default"): 0.9})
    (folder / "deep" / "down").mkdir(parents=True)
    write_result(folder / "deep" / "down" / "Low.json", "Low", {("test", "default"): 0.9})
    (folder / "old").write_text("no JSON file by name")
    other = write_run(tmp_path, "org/b", {"Good": 0.1})
    (other / "model_meta.json").write_text(json.dumps({"name": "org/b", "revision": "another"}))
    assert kinds(tmp_path) == {"foreign": ["Good.json", "High.json", "Low.json", "Renamed.json", "notes.json"]}
    assert [run.model for run in read_results(tmp_path).runs] == ["org/a"]


def test_of_duplicates_equal_ones_count_once_and_others_not_at_all(tmp_path: Path):
    first = write_run(tmp_path, "org/a", {"Same": 0.5, "Other": 0.5, "Alone": 0.1}, revision="1" * 40)
    second = tmp_path / "results" / "a copy" / first.name
    second.mkdir(parents=True)
    (second / "model_meta.json").write_text((first / "model_meta.json").read_text())
    write_result(second / "Same.json", "Same", {("test", "default"): 0.5})
    write_result(second / "Other.json", "Other", {("test", "default"): 0.75})
    twice = {"main_score": 0.3, "hf_subset": "x"}
    result = {"task_name": "Twice", "scores": {"test": [twice, twice]}}
    (first / "Twice.json").write_text(json.dumps(result))
    assert kinds(tmp_path) == {"duplicate": ["Other.json", "Other.json", "Same.json", "Twice.json"]}
    (scores,) = read_results(tmp_path).scores.values()
    assert sorted(scores) == ["Alone", "Same"]


def test_partial_files_are_left_out_and_named(tmp_path: Path):
    write_run(tmp_path, "org/a", {"T": {("test", "en"): 0.5, ("test", "fr"): 0.25}})
    write_run(tmp_path, "org/b", {"T": {("test", "en"): 0.9}})
    info = TaskInfo("T", "Retrieval", frozenset({("test", "en"), ("test", "fr")}))
    found = leave_out_partial(read_results(tmp_path), {"T": info})
    assert [run.model for run in found.runs] == ["org/a"]
    ((each),) = found.left_out
    assert (each.kind, "lacks test/fr of 2" in each.reason) == ("partial", True)


def test_predictions_are_found_below_and_beside(tmp_path: Path):
    folder = write_run(tmp_path, "org/a", {"T": 0.5})
    (tmp_path / "predictions" / "a").mkdir(parents=True)
    for place in (folder, tmp_path / "predictions" / "a"):
        (place / "T_predictions.json").write_text("{}")
    found = read_results(tmp_path)
    assert [path.parent.name for path in found.predictions] == ["a", folder.name]
    assert found.left_out == ()


def test_nothing_usable_is_an_error_that_says_why(tmp_path: Path):
    with pytest.raises(InputError, match="no such folder"):
        read_results(tmp_path / "missing")
    folder = write_run(tmp_path, "org/a", {"T": 0.5})
    (folder / "T.json").write_text("{")
    with pytest.raises(InputError, match=r"no mteb results below .*T\.json is not JSON"):
        read_results(tmp_path)
