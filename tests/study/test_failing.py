"""A study of which a step fails: the others run, the report is written, the command ends with 1 and says why."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from st_reasoning.cli import main
from st_reasoning.config import write_resolved
from st_reasoning.files import read_json
from st_reasoning.study import Corpus, IncompleteError, Pair, Reasoning, StudyRecipe, run_study
from st_reasoning.training import DataSet, Generated, TrainingRecipe
from tests.models import make_llama


def recipe_of(base: Path, other: Path) -> StudyRecipe:
    return StudyRecipe(
        pairs=(Pair("pair", str(base), Reasoning(backbone=str(other))),),
        training=TrainingRecipe(
            data=(DataSet("gsm", "Find.", generated=Generated("gsm_symbolic", 8)),),
            hard_negatives=0, batch_size=8, max_seq_length=64,
        ),
        tasks=("GSMSymbolicSolutionRetrieval",),
        seeds=(0,),
        hrsa=Corpus(templates=3, per_template=6),
    )  # fmt: skip


def test_what_fails_is_told_and_the_rest_is_reported(tiny_llm: Path, tmp_path: Path) -> None:
    other = make_llama(tmp_path / "other", seed=1)
    write_resolved(tmp_path / "study.yaml", recipe_of(tiny_llm, other))
    out = tmp_path / "out"
    # Something lies where the other arm's embedder is to be written.
    in_the_way = out / "embedders" / "other" / "seed-0"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("x")
    command = ["study", str(tmp_path / "study.yaml"), "--output", str(out)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1, done.output
    assert "1 of 12 steps failed and 2 that need them were skipped" in done.output
    assert "train/other/seed-0: the output" in done.output
    assert (out / "report.html").is_file()
    assert (out / "steps/evaluate/tiny-llama/seed-0.json").is_file()
    states = {step["name"]: step.get("state") for step in read_json(out / "study.json")["steps"]}
    assert len(states) == 12
    assert "train/other/seed-0" in (out / "report.html").read_text()

    in_the_way.unlink()
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0, again.output


def test_a_backbone_that_vanishes_on_the_way_is_told_too(tiny_llm: Path, tmp_path: Path) -> None:
    other, out = make_llama(tmp_path / "gone", seed=1), tmp_path / "out"

    def say(line: str) -> None:
        if "convert/tiny-llama" in line and other.exists():
            shutil.rmtree(other)

    with pytest.raises(IncompleteError, match="steps failed"):
        run_study(recipe_of(tiny_llm, other), out, say=say)
    study = read_json(out / "study.json")
    lost = {step["step"] for step in study["missing"]}
    assert {"convert/gone", "train/gone/seed-0", "evaluate/gone/seed-0"} <= lost
    assert study["pairs"][0]["labels"] == {"base": "tiny-llama", "reasoning": "gone"}
    assert "train/gone/seed-0" in (out / "report.html").read_text()
