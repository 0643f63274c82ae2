"""One step of a study in a process of its own: ``python -m st_reasoning.study RECIPE OUTPUT NAME KEY``.

RECIPE is the ``recipe.yaml`` of the study's folder OUTPUT. The process that planned the study starts this one; it has
read the content of all inputs, and KEY is what it came to.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from st_reasoning.cli.base import working
from st_reasoning.errors import InputError
from st_reasoning.study.executors import perform
from st_reasoning.study.layout import lay_out
from st_reasoning.study.recipe import StudyRecipe


def run_step(recipe: Path, output: Path, name: str, key: str) -> str:
    """Lay the study out again, without looking into its inputs, and run one of its steps.

    Returns:
        Why it failed, in a line; empty if it did not.

    Raises:
        InputError: if the study has no such step.
    """
    step = next((step for step in lay_out(StudyRecipe.read(recipe), output) if step.name == name), None)
    if step is None:
        raise InputError(f"the study of {recipe} has no step {name}")
    return perform(step, key, output / "steps")


def _end_with_parent() -> None:
    """End this process when the other end of its standard input is closed, as it is when the parent is killed."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> None:
    """Run a step; ``--detached`` after the four arguments lets it outlive the process that started it."""
    recipe, output, name, key, *detached = arguments
    if not detached:
        _end_with_parent()
    with working():
        failure = run_step(Path(recipe), Path(output), name, key)
    if failure:
        raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
