"""Trainings that are killed without warning."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from st_reasoning.checkpoints import COMPLETE


def kill_after(arguments: list[str], checkpoints: Path, step: int) -> None:
    """Start a training and kill it without warning once it is some way behind the given step."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        deadline = time.monotonic() + 240
        while not (checkpoints / f"checkpoint-{step}" / COMPLETE).exists():
            assert process.poll() is None, "the training ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        # Anywhere: in a step, in an evaluation, in the middle of writing the next checkpoint.
        time.sleep(0.02 * step)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
