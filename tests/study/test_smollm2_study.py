"""The shipped study on SmolLM2-135M, whole. `pytest -m slow`; about 20 minutes on two cores."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.real_model
def test_the_shipped_study_ends_in_time_and_training_helps(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "st_reasoning.cli",
        "study",
        "recipes/smollm2.yaml",
        "--output",
        str(tmp_path / "out"),
    ]
    start = time.monotonic()
    subprocess.run(command, check=True)
    minutes = (time.monotonic() - start) / 60
    study = json.loads((tmp_path / "out" / "study.json").read_text())
    (task,) = study["pairs"][0]["tasks"]
    for arm in ("base", "reasoning"):
        assert task["trained"][arm] > task["untrained"][arm]
    assert minutes < 25
