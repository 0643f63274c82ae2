"""Two processes under gloo train as one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from st_reasoning.errors import InputError
from st_reasoning.training import TrainingRecipe
from st_reasoning.training.run import per_device

RECIPE = {
    "data": [
        {"name": "gsm", "instruction": "Find it", "generated": {"family": "gsm_symbolic", "examples": 14}},
        {"name": "other", "instruction": "Find", "generated": {"family": "gsm_symbolic", "examples": 12, "seed": 1}},
    ],
    "hard_negatives": 1, "batch_size": 4, "max_seq_length": 48, "learning_rate": 1e-3, "epochs": 1, "warmup": 0,
    "mini_batch_tokens": 128,
}  # fmt: skip


def launch(processes: int, recipe: Path, backbone: Path, output: Path, *options: str) -> dict[str, object]:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)),
            # Its --cpu would start processes by MPI only; so it starts them as for GPUs, and they are told the CPU.
            *(("--multi_gpu",) if processes > 1 else ()),
            *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
            *options,
            *("-m", "st_reasoning.training", str(recipe), "--backbone", str(backbone)),
            *("--output", str(output), "--seed", "1", "--device", "cpu", "--json"),
        ],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    facts: dict[str, object] = json.loads(run.stdout)
    return facts


def test_two_processes_give_the_weights_of_one(tiny_llm: Path, tmp_path: Path) -> None:
    """Batches, gathered negatives, averaged gradients: all together the same optimiser steps."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    one = launch(1, recipe, tiny_llm, tmp_path / "one")
    two = launch(2, recipe, tiny_llm, tmp_path / "two")
    assert (one["devices"], two["devices"]) == (1, 2)
    assert one["steps"] == two["steps"] == 7
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    before = load_file(tiny_llm / "model.safetensors")
    moved = np.sqrt(sum(float(((first[k] - before[f"model.{k}"]) ** 2).sum()) for k in first))
    apart = np.sqrt(sum(float(((first[k] - second[k]) ** 2).sum()) for k in first))
    # AdamW's first steps are of the gradient's sign: where it is rounding only, signs differ.
    assert apart < 0.02 * moved


def test_a_batch_must_share_out() -> None:
    assert per_device(2048, 4) == 512
    with pytest.raises(InputError, match="must be a multiple of the 3 processes that share it, got 8"):
        per_device(8, 3)


def test_the_paper_says_what_all_devices_share() -> None:
    assert TrainingRecipe(data=TrainingRecipe.read(Path("recipes/smollm2.yaml")).data).batch_size == 2048
