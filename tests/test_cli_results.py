"""``st-reasoning results``: show, compare, export as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from st_reasoning.cli import main
from tests.results.folders import write_run, write_seeds

TASKS = ("NFCorpus", "SciFact", "ArguAna")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("mteb"), np.random.default_rng(0)
    for group, mean in (("base", 50), ("better", 55), ("same", 50.02)):
        seeds = {s: {t: round((mean + rng.normal(0, 0.05)) / 100, 5) for t in TASKS} for s in range(3)}
        write_seeds(root, group, seeds)
    spoiled = write_run(root, "org/spoiled", {"SciFact": 0.5, "NFCorpus": {("dev", "default"): 0.9}})
    (spoiled / "ArguAna.json").write_text("{")
    return root


@pytest.mark.parametrize("verb", [["results"], ["results", "show"], ["results", "compare"], ["results", "export"]])
def test_help_has_an_example(verb: list[str]) -> None:
    found = call(*verb, "--help")
    assert found.exit_code == 0
    if len(verb) > 1:
        assert f"st-reasoning {' '.join(verb)} " in found.output
    assert "\\b" not in found.output


def test_show(folder: Path, tmp_path: Path) -> None:
    found = call("results", "show", "--results", folder, "--output", tmp_path / "scores.html")
    assert found.exit_code == 0, found.output
    lines = {line.split("  ")[0].strip(): line for line in found.stdout.splitlines()}
    assert lines["rank (Borda)"].split()[2:5] == ["1", "2", "3"]
    assert "better/seed-" in lines[""] or "better/seed-" in found.stdout
    assert "Retrieval (type)" in found.stdout
    assert "Not used, corrupt" in found.stderr
    assert "Not used, partial" in found.stderr
    assert "better/seed-2" in (tmp_path / "scores.html").read_text()
    facts = json.loads(call("results", "show", "--results", folder, "--json").stdout)
    spoiled = next(model for model in facts["models"] if model["model"] == "org/spoiled")
    assert (spoiled["tasks"]["SciFact"], spoiled["tasks"]["NFCorpus"], spoiled["mean_task"]) == (50, None, None)
    ranks = [model["rank_borda"] for model in facts["models"] if model["rank_borda"] is not None]
    assert ranks == sorted(ranks)
    assert sorted(each["kind"] for each in facts["left_out"]) == ["corrupt", "partial"]


def test_compare_in_every_format(folder: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / f"c.{kind}" for kind in ("html", "csv", "md", "json")]
    options = [word for path in outputs for word in ("--output", path)]
    found = call("results", "compare", "base", "better", "same", "--results", folder, *options)
    assert found.exit_code == 0, found.output
    first, second = (line for line in found.stdout.splitlines() if line.startswith(("better is", "same is")))
    assert first.startswith("better is better than base on all 3 tasks: +4.9")
    assert "95% interval" in first
    assert "over 3 seeds and 3 tasks" in first
    assert second.startswith("same is equivalent to base within 0.5 points on all 3 tasks")
    for path in outputs:
        assert "better" in path.read_text()
    facts = json.loads((tmp_path / "c.json").read_text())
    assert [each["rows"][0]["word"] for each in facts["comparisons"]] == ["better", "equivalent"]
    assert json.loads(call("results", "compare", "base", "same", "--results", folder, "--json").stdout)["left_out"]
    again = call("results", "compare", "base", "better", "--results", folder, "--output", outputs[0])
    assert (again.exit_code, "is there already" in again.stderr) == (2, True)


def test_export_writes_and_fails_by_exit_code(folder: Path, tmp_path: Path) -> None:
    found = call("results", "export", "base/seed-1", tmp_path / "sub", "--results", folder)
    assert found.exit_code == 0, found.output
    assert "out of reach" in found.stdout
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == ["README.md", "checks.json", "results"]
    found = call("results", "export", "org/spoiled", tmp_path / "partial", "--results", folder, "--json")
    assert found.exit_code == 1
    facts = json.loads(found.stdout)
    assert [each["name"] for each in facts["checks"] if each["status"] == "failed"] == [
        "no language or split is missing"
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "base"], "expected at least two models"),
        (["compare", "base", "nobody"], "no results of 'nobody'; there are: base (seeds 0, 1, 2)"),
        (["compare", "base", "local/seed-1"], "is ambiguous"),
        (["compare", "base", "same", "--margin", "0"], "margin: expected a positive number"),
        (["compare", "base", "same", "--level", "95"], "level: expected a share"),
        (["compare", "base", "same", "--benchmark", "MTEB(Code, v2)"], "did you mean 'MTEB(Code, v1)'"),
        (["compare", "base", "same", "--output", "x.pdf"], "expected a file that ends in .html, .csv, .md, .json"),
        (["compare", "base", "same", "--predictions", "nowhere"], "no such folder: nowhere"),
        (["show", "--benchmark", "BEIR-NL"], "no complete result of BEIR-NL"),
        (["export", "base", "out"], "base is 3 runs"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    folder: Path, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = call("results", *arguments, "--results", folder)
    assert found.exit_code == 2, found.output
    (line,) = [line for line in found.stderr.splitlines() if line.strip()]
    assert line.startswith("Error: ")
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder(tmp_path: Path) -> None:
    found = call("results", "show", "--results", tmp_path / "gone")
    assert (found.exit_code, "no such folder" in found.stderr) == (2, True)
