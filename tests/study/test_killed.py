"""A study that is killed again and again ends as one that was left alone. `pytest -m slow`; ten minutes."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from st_reasoning.config import write_resolved
from st_reasoning.files import read_json
from st_reasoning.study import Corpus, Pair, Reasoning, StudyRecipe
from st_reasoning.training import DataSet, Generated, TrainingRecipe
from st_reasoning.variants import SFTRecipe

KILLS = 12
TIMES = {"seconds", "examples_per_second", "date", "runtime"}


def command(recipe: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "st_reasoning.cli", "study", str(recipe), "--output", str(out), *more]


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def found(out: Path) -> Any:
    """Return what a study found, without times and without the folder that it lies in.

    Nor with the revision of an embedder: it is a hash of files, one of which names the backbone by its path in the
    study's folder. Hashes of data, prompts and order stay.
    """
    text = json.dumps(read_json(out / "study.json")).replace(str(out), "OUT")
    text = re.sub(r'((?:local__[^/"]+/|"revision": "))[0-9a-f]{64}', r"\1REVISION", text)
    return without_times(json.loads(text))


def killed_at_random(command: list[str], draw: random.Random) -> bool:
    """Start a command and kill it, and nothing that it has started, after some of its steps have begun."""
    begun = draw.randint(1, 4)
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            begun -= line.startswith("[") and line.rstrip().endswith("...")
            if not begun:
                break
        time.sleep(draw.uniform(0, 8))
        if process.poll() is not None:
            return False
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_study(tiny_llm: Path, tmp_path: Path) -> None:
    recipe = StudyRecipe(
        pairs=(Pair("tiny-sft", str(tiny_llm), Reasoning(sft=SFTRecipe(examples=8, check_examples=2))),),
        training=TrainingRecipe(
            data=(DataSet("gsm", "Find the solution.", generated=Generated("gsm_symbolic", 16)),),
            hard_negatives=1, batch_size=8, max_seq_length=64, learning_rate=1e-3, save_every=1,
        ),
        tasks=("GSMSymbolicSolutionRetrieval", "ReasoningGymFamilyClustering"),
        seeds=(0, 1),
        hrsa=Corpus(templates=3, per_template=6),
    )  # fmt: skip
    path = tmp_path / "study.yaml"
    write_resolved(path, recipe)
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    subprocess.run(command(path, alone), check=True, stdout=subprocess.DEVNULL)

    draw, kills, calls = random.Random(0), 0, 0
    while kills < KILLS:
        calls += 1
        assert calls < 3 * KILLS, f"only {kills} kills before the study had ended {calls - kills} times"
        kills += killed_at_random(command(path, killed, "--jobs", str(draw.choice((1, 2)))), draw)
        if (killed / "study.json").exists():  # it ended: take away what a random half of the steps left behind
            (killed / "study.json").unlink()
            for record in sorted(killed.glob("steps/**/*.json")):
                if draw.random() < 0.5:
                    record.unlink()
    subprocess.run(command(path, killed), check=True, stdout=subprocess.DEVNULL)
    assert found(killed) == found(alone)
    assert not list(killed.rglob("*.partial"))
