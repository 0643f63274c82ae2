"""Where a training that was stopped goes on from."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_reasoning.errors import InputError
from st_reasoning.files import read_json, write_json

if TYPE_CHECKING:
    from transformers import TrainerCallback

RUN = "run.json"
# Written into a checkpoint after everything else: one without it was being written when the process was killed.
COMPLETE = "complete.json"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training.

    Attributes:
        folder: Holds ``checkpoint-STEP`` folders as the Trainer writes them.
        fingerprint: Hash of everything that decides the outcome; a training goes on only from its own checkpoints.
    """

    folder: Path
    fingerprint: str

    def claim(self, *, overwrite: bool) -> None:
        """Make the folder this training's own.

        Raises:
            InputError: if it holds checkpoints of another one, unless ``overwrite``, which deletes them.
        """
        run = self.folder / RUN
        if not run.is_file() and any(self.folder.glob("checkpoint-*")):
            raise InputError(f"{self.folder} holds checkpoints that st-reasoning did not write; move them elsewhere")
        if run.is_file() and read_json(run).get("fingerprint") != self.fingerprint:
            if not overwrite:
                raise InputError(
                    f"{self.folder} holds checkpoints of another training (recipe, data, backbone, seed or versions "
                    "differ); delete it, name another output, or pass --overwrite to begin anew"
                )
            shutil.rmtree(self.folder)
        write_json(run, {"fingerprint": self.fingerprint})

    def latest(self) -> Path | None:
        """Return the last complete checkpoint, None without one; incomplete ones are deleted."""
        found = {step_of(path): path for path in self.folder.glob("checkpoint-*[0-9]")}
        for step in sorted(found, reverse=True):
            if (found[step] / COMPLETE).is_file():
                return found[step]
            shutil.rmtree(found[step])
        return None

    def marker(self) -> TrainerCallback:
        """Return what marks checkpoints of a Trainer as complete."""
        from transformers import TrainerCallback

        class MarkComplete(TrainerCallback):
            def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.is_world_process_zero:
                    mark_complete(Path(args.output_dir), state.global_step)

        return MarkComplete()

    def remove(self) -> None:
        """Delete the folder with everything in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def mark_complete(folder: Path, step: int) -> None:
    """Say of the checkpoint of a step that everything in it is written."""
    write_json(folder / f"checkpoint-{step}" / COMPLETE, {"step": step})


def step_of(checkpoint: Path) -> int:
    """Return the step that a checkpoint was written after."""
    return int(checkpoint.name.split("-")[1])
