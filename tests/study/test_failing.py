"""A study of which a step fails: the others run, the report is written, the command ends with 1 and says why."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from st_reasoning.cli import main
from st_reasoning.config import write_resolved
from st_reasoning.files import read_json
from st_reasoning.study import Corpus, Pair, Reasoning, StudyRecipe
from st_reasoning.training import DataSet, Generated, TrainingRecipe
from tests.models import make_llama


def test_what_fails_is_told_and_the_rest_is_reported(tiny_llm: Path, tmp_path: Path) -> None:
    other = make_llama(tmp_path / "other", seed=1)
    recipe = StudyRecipe(
        pairs=(Pair("pair", str(tiny_llm), Reasoning(backbone=str(other))),),
        training=TrainingRecipe(
            data=(DataSet("gsm", "Find.", generated=Generated("gsm_symbolic", 8)),),
            hard_negatives=0, batch_size=8, max_seq_length=64,
        ),
        tasks=("GSMSymbolicSolutionRetrieval",),
        seeds=(0,),
        hrsa=Corpus(templates=3, per_template=6),
    )  # fmt: skip
    write_resolved(tmp_path / "study.yaml", recipe)
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
