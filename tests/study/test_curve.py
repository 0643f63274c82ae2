"""The curve of a pair over its training steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from st_reasoning.files import read_json
from st_reasoning.study import Corpus, Pair, Reasoning, StudyRecipe
from st_reasoning.study.graph import run_steps
from st_reasoning.study.run import plan_study
from st_reasoning.training import DataSet, Generated, TrainingRecipe
from tests.models import make_llama


def test_arms_are_compared_at_every_checkpoint(tiny_llm: Path, tmp_path: Path) -> None:
    other, out = make_llama(tmp_path / "other", seed=1), tmp_path / "out"
    recipe = StudyRecipe(
        pairs=(
            Pair("unlike", str(tiny_llm), Reasoning(backbone=str(other))),
            Pair("same", str(tiny_llm), Reasoning(backbone=str(tiny_llm))),
        ),
        training=TrainingRecipe(
            data=(DataSet("gsm", "Find.", generated=Generated("gsm_symbolic", 24)),),
            hard_negatives=0, batch_size=8, max_seq_length=64, learning_rate=1e-3, save_every=1,
        ),
        tasks=("GSMSymbolicSolutionRetrieval",),
        seeds=(0,),
        hrsa=Corpus(templates=3, per_template=6, curve=True, k=(3, 5)),
    )  # fmt: skip
    steps = plan_study(recipe, out)
    assert "curve/unlike/seed-0" in [step.name for step in steps]
    kinds = ("texts", "audit", "convert", "train", "curve")
    outcomes = run_steps([step for step in steps if step.name.split("/")[0] in kinds], out / "steps")
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}
    unlike = read_json(out / "curve" / "unlike" / "seed-0.json")
    assert unlike == outcomes["curve/unlike/seed-0"].facts
    assert [point["step"] for point in unlike["points"]] == [0, 1, 2, 3]
    assert all(point["knn_overlap"] < 0.9 for point in unlike["points"])
    for point in outcomes["curve/same/seed-0"].facts["points"]:
        assert point["linear_cka"] == pytest.approx(1.0)
        assert point["knn_overlap"] == 1.0
