"""Variants whose training is killed: SIGKILL, in a process of its own, by the command that users run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from st_reasoning.files import read_json
from st_reasoning.variants.saving import VARIANT_RECORD
from tests.killing import kill_after

pytest.importorskip("trl", reason="trains: pip install 'st-reasoning[variants]'")
pytest.importorskip("reasoning_gym", reason="draws the problems: pip install 'st-reasoning[demo]'")

DIVISORS = {"gcd": {"min_value": 1, "max_value": 30}}
RECIPES: dict[str, dict[str, Any]] = {
    "sft": {
        "families": DIVISORS, "examples": 48, "batch_size": 4, "learning_rate": 1e-3, "check_examples": 4,
        "check_new_tokens": 0, "save_every": 1,
    },
    "rlvr": {
        "families": DIVISORS, "problems": 48, "steps": 12, "group": 4, "batch_size": 8, "learning_rate": 1e-3,
        "max_new_tokens": 4, "check_problems": 4, "save_every": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("method", RECIPES)
def test_killed_and_called_again_it_ends_with_the_same_weights(tiny_llm: Path, tmp_path: Path, method: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPES[method]))

    def command(output: Path) -> list[str]:
        arguments = ["variants", method, str(path), "--backbone", str(tiny_llm), "--output", str(output)]
        return [sys.executable, "-m", "st_reasoning.cli", *arguments]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_after(command(killed), tmp_path / "killed.checkpoints", 3)
    assert not killed.exists()
    for output in (killed, whole):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command(output), check=True, capture_output=True, env=environment)
    records = [read_json(output / VARIANT_RECORD) for output in (killed, whole)]
    assert 3 <= records[0]["resumed_at"] < 12
    assert records[1]["resumed_at"] is None
    assert f" since step {records[0]['resumed_at']}, where it went on." in (killed / "README.md").read_text()
    assert not (tmp_path / "killed.checkpoints").exists()
    weights = [(output / "model.safetensors").read_bytes() for output in (killed, whole)]
    assert weights[0] == weights[1]
    for name in ("losses", "rewards", "accuracy"):
        assert records[0].get(name) == records[1].get(name)
