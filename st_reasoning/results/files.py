"""One result file of mteb: what it must hold, and whose it is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st_reasoning.errors import InputError
from st_reasoning.files import read_json

MODEL_FILE = "model_meta.json"
# mteb puts runs with options that change embeddings (precision, loading arguments) below this folder of the
# revision.
EXPERIMENTS = "experiments"
PREDICTIONS = "_predictions.json"


class UnusableError(InputError):
    """A file that is no usable result.

    Attributes:
        kind: corrupt, foreign or duplicate.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Run:
    """One model at one revision, under one set of options.

    Attributes:
        model: The model's name, e.g. ``local/embedder``. revision: Its revision; for a local folder the hash of its
        files. experiment: The name mteb gave to non-default options, or None. source: The folder a local model was
        loaded from, as mteb recorded it; it may be gone. folder: Where its results lie.
    """

    model: str
    revision: str
    experiment: str | None
    source: Path | None
    folder: Path

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from every other run; sorts."""
        return self.model, self.revision, self.experiment or ""


@dataclass(frozen=True)
class ResultFile:
    """The scores of a run on one task.

    Attributes:
        run: Whose scores they are. task: The task's name. entries: By split and subset, as mteb wrote them.
        dataset_revision: Of the task's data. mteb_version: That scored. path: The file.
    """

    run: Run
    task: str
    entries: Mapping[tuple[str, str], Mapping[str, Any]]
    dataset_revision: str | None
    mteb_version: str | None
    path: Path


def parse_result(file: Path, run: Run) -> ResultFile:
    """Read one result file.

    Raises:
        UnusableError: naming the file and what is wrong, if it is corrupt, incomplete or something else.
    """
    result = _read(file)
    splits = result.get("scores") if isinstance(result, dict) else None
    if not isinstance(splits, dict) or not splits:
        if isinstance(result, dict) and "mteb_dataset_name" in result:
            raise UnusableError("foreign", f"{file} has no scores as mteb writes them since 1.11")
        raise UnusableError("foreign", f"{file} has no scores")
    if result.get("task_name") != file.stem:
        raise UnusableError("foreign", f"{file} holds task {result.get('task_name')!r}; expected {file.stem!r}")
    entries: dict[tuple[str, str], Mapping[str, Any]] = {}
    for split, found in splits.items():
        if not isinstance(found, list) or not found or not all(isinstance(entry, dict) for entry in found):
            raise UnusableError("corrupt", f"{file}, {split}: expected a list of scores, one entry per subset")
        for entry in found:
            subset = entry.get("hf_subset")
            if not isinstance(subset, str):
                raise UnusableError("corrupt", f"{file}, {split}: an entry does not name its hf_subset")
            value = entry.get("main_score")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UnusableError(
                    "corrupt", f"{file}, {split}, {subset}: main_score is {value!r}; expected a finite number"
                )
            if (split, subset) in entries:
                raise UnusableError("duplicate", f"{file}, {split}: the subset {subset} is there twice")
            entries[split, subset] = entry
    return ResultFile(run, file.stem, entries, _text(result, "dataset_revision"), _text(result, "mteb_version"), file)


def identify(folder: Path, place: tuple[str, ...]) -> Run:
    """Say whose results lie in ``folder``: as mteb wrote it, or by the folders alone where it wrote nothing.

    Args:
        folder: That of the result files.
        place: Its path below the root, ``(org__model, revision[, "experiments", name])``.

    Raises:
        InputError: if the description is of another revision.
    """
    experiment = place[3] if len(place) > 3 else None
    if not (folder / MODEL_FILE).is_file():
        return Run(place[0].replace("__", "/", 1), place[1], experiment, None, folder)
    meta = read_json(folder / MODEL_FILE)
    name, revision = (meta.get(key) if isinstance(meta, dict) else None for key in ("name", "revision"))
    if not isinstance(name, str) or revision != place[1]:
        raise UnusableError(
            "foreign", f"{folder / MODEL_FILE} describes {name!r} at {revision!r}; expected revision {place[1]!r}"
        )
    arguments = meta.get("loader_kwargs")
    source = arguments.get("folder") if isinstance(arguments, dict) else None
    return Run(name, revision, experiment, Path(source) if isinstance(source, str) else None, folder)


def _read(file: Path) -> Any:
    try:
        content = file.read_bytes()
        return json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        said = "is empty" if not content.strip() else f"is not JSON: {error}"
        raise UnusableError("corrupt", f"{file} {said}") from None
    except OSError as error:
        raise UnusableError("corrupt", f"{file} cannot be read: {error.strerror}") from None


def _text(result: dict[str, Any], key: str) -> str | None:
    value = result.get(key)
    return value if isinstance(value, str) else None
