"""The shipped studies, whole, as the README's commands run them. `pytest -m slow`; half an hour on two free cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest


def run(output: Path, *recipe: str) -> tuple[dict[str, Any], float]:
    """Return what a study found, and the minutes it took, without the network."""
    command = [sys.executable, "-m", "st_reasoning.cli", "study", *recipe, "--output", str(output)]
    start = time.monotonic()
    subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    minutes = (time.monotonic() - start) / 60
    study = json.loads((output / "study.json").read_text())
    assert study["missing"] == []
    for report in ("report.html", "report.md"):
        text = (output / report).read_text()
        assert study["answer"]["advice"] in text
        assert all(pair["name"] in text for pair in study["pairs"])
    return study, minutes


@pytest.mark.slow
def test_the_study_without_arguments_ends_in_ten_minutes(tmp_path: Path) -> None:
    study, minutes = run(tmp_path / "out")
    assert [pair["method"] for pair in study["pairs"]] == ["SFT", "RLVR", "RLVR"]
    assert len(study["recipe"]["seeds"]) >= 2
    for pair in study["pairs"]:
        assert pair["comparison"] is not None
        assert pair["mechanism"]["realignment"] is not None
    assert minutes < 10
    again, minutes = run(tmp_path / "out")
    assert {key: value for key, value in again.items() if key != "runtime"} == {
        key: value for key, value in study.items() if key != "runtime"
    }
    assert minutes < 1


@pytest.mark.slow
@pytest.mark.real_model
def test_the_study_of_smollm2_ends_in_time_and_training_helps(tmp_path: Path) -> None:
    study, minutes = run(tmp_path / "out", "recipes/smollm2.yaml")
    (task,) = study["pairs"][0]["tasks"]
    for arm in ("base", "reasoning"):
        assert task["trained"][arm] > task["untrained"][arm]
    assert minutes < 25
