"""A killed training goes on and ends with the same weights, bit for bit; real processes, real kills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from st_reasoning.checkpoints import COMPLETE, Checkpoints
from st_reasoning.errors import InputError
from st_reasoning.files import folder_hash, write_json
from st_reasoning.training import TrainingRecipe, train
from tests.killing import kill_after

RECIPE = {
    "data": [{"name": "gsm", "instruction": "Find it", "generated": {"family": "gsm_symbolic", "examples": 24}}],
    "hard_negatives": 1, "batch_size": 4, "max_seq_length": 64, "learning_rate": 1e-3, "epochs": 2,
    "mini_batch_tokens": 256, "save_every": 1,
}  # fmt: skip


def command(recipe: Path, backbone: Path, output: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "st_reasoning.training", str(recipe), "--backbone", str(backbone)),
        *("--output", str(output), "--seed", "3", "--device", "cpu", "--json"),
    ]


@pytest.mark.parametrize("changes", [{}, {"lora": {"rank": 4, "alpha": 8, "dropout": 0.1}}], ids=["full", "lora"])
def test_killed_twice_it_ends_with_the_same_weights(tiny_llm: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    arguments = command(path, tiny_llm, tmp_path / "killed")
    checkpoints = tmp_path / "killed.checkpoints"
    for step in (2, 7):  # the second one in the second epoch
        kill_after(arguments, checkpoints, step)
        assert not (tmp_path / "killed").exists()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=True)
    resumed = json.loads(run.stdout)
    assert 7 <= resumed["resumed_at"] < 12
    assert not checkpoints.exists()
    whole = subprocess.run(
        command(path, tiny_llm, tmp_path / "whole"), capture_output=True, text=True, env=environment, check=True
    )
    facts = json.loads(whole.stdout)
    assert facts["resumed_at"] is None
    assert resumed["losses"] == facts["losses"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("killed", "whole")]
    assert weights[0] == weights[1]
    # By its content a folder is known to mteb: how it came about must not make it another model.
    assert folder_hash(tmp_path / "killed") == folder_hash(tmp_path / "whole")


def test_a_checkpoint_that_was_being_written_is_left_out(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "a")
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    write_json(tmp_path / "checkpoint-9" / COMPLETE, {})
    assert checkpoints.latest() == tmp_path / "checkpoint-9"
    assert not (tmp_path / "checkpoint-10").exists()


def test_checkpoints_of_another_training_are_not_taken_up(tiny_llm: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "max_steps": 2}))
    parsed = TrainingRecipe.read(recipe)
    train(parsed, str(tiny_llm), tmp_path / "out", seed=0, keep_checkpoints=True)
    kept = tmp_path / "out.checkpoints"
    assert {path.name for path in kept.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
    kept.rename(tmp_path / "other.checkpoints")
    with pytest.raises(InputError, match="holds checkpoints of another training"):
        train(parsed, str(tiny_llm), tmp_path / "other", seed=1)
    facts = train(parsed, str(tiny_llm), tmp_path / "other", seed=1, overwrite=True)
    assert facts["resumed_at"] is None


def test_what_others_left_under_that_name_is_not_deleted(tiny_llm: Path, tmp_path: Path) -> None:
    """Without checkpoints of its own a training has nothing to remove, and foreign ones are not swept away."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "max_steps": 1, "save_every": None}))
    foreign = tmp_path / "out.checkpoints" / "checkpoint-5"
    foreign.mkdir(parents=True)
    train(TrainingRecipe.read(recipe), str(tiny_llm), tmp_path / "out")
    assert foreign.is_dir()
    with pytest.raises(InputError, match="holds checkpoints that st-reasoning did not write"):
        Checkpoints(foreign.parent, "a").claim(overwrite=True)
