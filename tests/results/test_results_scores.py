"""Scores are read as mteb writes them; what cannot be used is named, never skipped."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from st_reasoning.errors import InputError
from st_reasoning.results import read_scores


def write(folder, task="T", *, meta=None, **result):
    folder.mkdir(parents=True, exist_ok=True)
    if meta is not None:
        (folder / "model_meta.json").write_text(json.dumps(meta))
    value = {"dataset_revision": "1", "task_name": task, "mteb_version": "2", **result}
    (folder / f"{task}.json").write_text(json.dumps(value))
    return folder / f"{task}.json"


def entry(main_score, subset="default", **scores):
    return {"main_score": main_score, "hf_subset": subset, "languages": ["eng-Latn"], **scores}


@pytest.fixture
def revision(tmp_path):
    return tmp_path / "out" / "results" / "local__my__model" / "abc"


def test_every_split_and_subset_is_a_score(revision, tmp_path):
    file = write(
        revision,
        meta={"name": "local/my__model", "revision": "abc"},
        scores={"test": [entry(0.5, "b"), entry(0.25, "a", map=[1, 2])], "dev": [entry(1, "a")]},
    )
    (revision / "run_settings.jsonl").write_text("{}\n")
    for folder in (tmp_path / "out", tmp_path / "out" / "results", str(tmp_path / "out")):
        scores = read_scores(folder)
        assert [(s.split, s.subset, s.main_score) for s in scores] == [
            ("dev", "a", 1),
            ("test", "a", 0.25),
            ("test", "b", 0.5),
        ]
    assert {(s.model, s.revision, s.task, s.path, s.experiment) for s in scores} == {
        ("local/my__model", "abc", "T", file, None)
    }
    assert scores[1].scores["map"] == [1, 2]
    with pytest.raises(TypeError):
        scores[1].scores["map"] = []


def test_experiments_are_kept_apart(revision):
    write(revision, scores={"test": [entry(0.5)]})
    write(revision / "experiments" / "output_dtypes_int8", scores={"test": [entry(0.4)]})
    scores = read_scores(revision.parents[1])
    assert [(s.experiment, s.main_score) for s in scores] == [(None, 0.5), ("output_dtypes_int8", 0.4)]


def test_names_come_from_the_folders_where_mteb_wrote_no_description(revision):
    write(revision, scores={"test": [entry(0.5)]})
    (score,) = read_scores(revision.parents[1])
    assert (score.model, score.revision) == ("local/my__model", "abc")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "Bad.json is not JSON"),
        ("[]", "Bad.json has no scores"),
        ('{"task_name": "Bad", "scores": {}}', "Bad.json has no scores"),
        ('{"task_name": "Bad", "scores": {"test": []}}', "Bad.json, test: expected a list of scores"),
        (
            '{"task_name": "Bad", "scores": {"test": [{"hf_subset": "default"}]}}',
            "default: main_score is None",
        ),
        ('{"task_name": "Bad", "scores": {"test": [{"main_score": 1}]}}', "does not name its hf_subset"),
        (
            '{"task_name": "Bad", "scores": {"test": [{"main_score": NaN, "hf_subset": "d"}]}}',
            "main_score is nan",
        ),
        (
            '{"task_name": "Bad", "scores": {"test": [{"main_score": true, "hf_subset": "d"}]}}',
            "main_score is True",
        ),
        (
            '{"task_name": "Good", "scores": {"test": [{"main_score": 1, "hf_subset": "d"}]}}',
            "expected 'Bad'",
        ),
    ],
)
def test_what_cannot_be_used_is_named(revision, content, complaint):
    write(revision, "Good", scores={"test": [entry(0.5)]})
    (revision / "Bad.json").write_text(content)
    with pytest.raises(InputError) as caught:
        read_scores(revision.parents[1])
    assert str(caught.value).startswith("1 results cannot be used: ")
    assert complaint in str(caught.value)


def test_all_bad_files_are_named_at_once(revision):
    for name in ("One", "Two"):
        write(revision, name, scores={})
    with pytest.raises(InputError, match=r"2 results cannot be used: .*One\.json.*Two\.json"):
        read_scores(revision.parents[1])


def test_a_description_of_another_revision_is_refused(revision):
    write(revision, meta={"name": "local/my__model", "revision": "moved"}, scores={"test": [entry(0.5)]})
    with pytest.raises(InputError, match="at 'moved'; expected revision 'abc'"):
        read_scores(revision.parents[1])


def test_nothing_found_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no mteb results below"):
        read_scores(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_scores(tmp_path / "missing")


def test_reading_needs_neither_torch_nor_mteb():
    code = "import sys, st_reasoning.results; sys.exit(bool({'torch', 'mteb'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, cwd=Path(__file__).parents[2]).returncode == 0
