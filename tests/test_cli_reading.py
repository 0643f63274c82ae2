"""The command line on what panels mean: the gate of ``hrsa``, and ``realignment``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from st_reasoning.cli import main
from tests.hrsa.constructed import layer, record


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    rows = [{"text": f"{i} apples and {i + 2} pears are {2 * i + 2} fruits."} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_conditions_that_hold_end_in_1_and_leave_the_record(tiny_llm: Path, texts: Path, tmp_path: Path):
    arguments = ["hrsa", tiny_llm, tiny_llm, "--texts", texts]
    passed = call(*arguments, "--output", tmp_path / "good", "--fail-if", "linear_cka.final<0.95")
    assert passed.exit_code == 0, passed.output
    assert "Global geometry: stable" in passed.stdout  # what it means comes before the table
    assert passed.stdout.index("Global geometry: stable") < passed.stdout.index("H_inv")
    failed = call(
        *arguments, "--output", tmp_path / "bad", "--json",
        "--fail-if", "linear_cka.min>=0.95", "--fail-if", "knn_overlap.final<0.5", "--fail-if", "linear_probe.final<0",
    )  # fmt: skip
    assert failed.exit_code == 1, failed.output
    first, second = [line for line in failed.stderr.splitlines() if line.startswith("Failed: ")]
    assert first.startswith("Failed: linear_cka.min>=0.95: linear_cka.debiased is 1.000 [")
    assert second.endswith("linear_probe.transferred was not measured (no labels were given)")
    written = json.loads((tmp_path / "bad" / "hrsa.json").read_text())
    assert written == json.loads(failed.stdout)
    assert [level["word"] for level in written["reading"]["levels"]] == ["preserved", "stable", "kept", "not measured"]
    page = tmp_path / "change.html"
    changed = call("realignment", tmp_path / "good", tmp_path / "bad", "--report", page)
    assert changed.exit_code == 0, changed.output
    assert "Global geometry: preserved" in changed.stdout
    assert len(page.read_text()) > len((tmp_path / "bad" / "report.html").read_text())
    assert call("realignment", tmp_path / "good", tmp_path / "bad", "--report", page).exit_code == 2


def test_a_wrong_condition_is_refused_before_anything_is_run(tmp_path: Path):
    # There is neither a model nor a text: the condition is what is refused.
    found = call(
        "hrsa", "./no", "./no", "--texts", "./no", "--output", tmp_path / "out", "--fail-if", "linear_cak.final<1"
    )
    assert (found.exit_code, found.stdout) == (2, "")
    assert "did you mean 'linear_cka'" in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def write(folder: Path, name: str, content: object) -> Path:
    (folder / name).mkdir()
    (folder / name / "hrsa.json").write_text(json.dumps(content))
    return folder / name


def test_realignment_of_two_files(tmp_path: Path):
    before = write(tmp_path, "before", record(layer(cka=0.5, overlap=0.1)))
    after = write(tmp_path, "after", record(layer(overlap=0.1)))
    out = tmp_path / "change.json"
    found = call("realignment", before, after / "hrsa.json", "--output", out)
    assert found.exit_code == 0, found.output
    assert "global geometry   distorted    stable" in found.stdout
    assert "Local geometry: irreversible." in found.stdout
    as_json = call("realignment", before, after, "--json")
    assert json.loads(as_json.stdout) == json.loads(out.read_text())
    again = call("realignment", before, after, "--output", out)
    assert (again.exit_code, "is there already" in again.stderr) == (2, True)
    assert call("realignment", before, after, "--output", out, "--overwrite").exit_code == 0


def test_other_files_are_refused_in_one_line(tmp_path: Path):
    good = write(tmp_path, "good", record(layer()))
    for content, said in (
        (record(layer(), layer()), "same layers compared in both"),
        ({"schema": 2}, "expected a panel of schema 3, which has intervals, got schema 2"),
        (["no", "record"], "expected a panel of schema 3"),
    ):
        other = write(tmp_path, f"other{len(list(tmp_path.iterdir()))}", content)
        found = call("realignment", good, other)
        assert found.exit_code == 2, found.output
        (line,) = found.stderr.strip().splitlines()
        assert said in line
    missing = call("realignment", good, tmp_path / "nowhere")
    assert (missing.exit_code, "no such file" in missing.stderr) == (2, True)
