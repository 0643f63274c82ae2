"""Scores out of ``<output>/results/<org__model>/<revision>/<Task>.json``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from st_reasoning.errors import InputError
from st_reasoning.files import read_json

MODEL_FILE = "model_meta.json"
# mteb puts runs with options that change embeddings (precision, loading arguments) below this folder of the
# revision.
EXPERIMENTS = "experiments"


@dataclass(frozen=True)
class TaskScore:
    """The scores of one model on one split and subset of one task.

    Attributes:
        model: The model's name, e.g. ``local/embedder``. revision: The model's revision; for a local folder
        the hash of its files. task: The task's name. split: The split, e.g. ``test``. subset: The subset,
        ``default`` where a task has but one. main_score: The score the task is ranked by; a finite number.
        scores: Every score of the entry as mteb wrote it, read-only. path: The file it was read from.
        experiment: The name mteb gave to non-default options, or None. Scores of different experiments do not
        mix.
    """

    model: str
    revision: str
    task: str
    split: str
    subset: str
    main_score: float
    scores: Mapping[str, Any] = field(repr=False)
    path: Path
    experiment: str | None = None


def read_scores(folder: Path | str) -> list[TaskScore]:
    """Read every score below an mteb output folder.

    Args:
        folder: What was given to mteb as its output folder, or the folder ``results`` within.

    Returns:
        Scores ordered by model, revision, experiment, task, split and subset.

    Raises:
        InputError: if there are none, or any file is corrupt or incomplete. All such files are named at once;
        no
            score is returned then, for an average over what is left would look like a result.
    """
    folder = Path(folder)
    root = folder / "results" if (folder / "results").is_dir() else folder
    if not root.is_dir():
        raise InputError(f"no such folder: {folder}; expected an output folder of mteb")
    scores: list[TaskScore] = []
    broken: list[str] = []
    for file in _result_files(root):
        try:
            scores.extend(_read_file(file, root))
        except InputError as error:
            broken.append(str(error))
    if broken:
        raise InputError(f"{len(broken)} results cannot be used: {'; '.join(broken)}")
    if not scores:
        raise InputError(f"no mteb results below {folder}; expected results/<model>/<revision>/<Task>.json")
    return sorted(scores, key=lambda s: (s.model, s.revision, s.experiment or "", s.task, s.split, s.subset))


def _result_files(root: Path) -> Iterator[Path]:
    for pattern in ("*/*/*.json", f"*/*/{EXPERIMENTS}/*/*.json"):
        yield from sorted(file for file in root.glob(pattern) if file.name != MODEL_FILE and file.name[0] != ".")


def _read_file(file: Path, root: Path) -> list[TaskScore]:
    result = read_json(file)
    splits = result.get("scores") if isinstance(result, dict) else None
    if not isinstance(splits, dict) or not splits:
        raise InputError(f"{file} has no scores")
    if result.get("task_name") != file.stem:
        raise InputError(f"{file} holds task {result.get('task_name')!r}; expected {file.stem!r}")
    place = file.relative_to(root).parts
    model, revision = _identity(file.parent, place)
    return [
        TaskScore(
            model=model,
            revision=revision,
            task=file.stem,
            split=split,
            subset=_subset(entry, file, split),
            main_score=_main_score(entry, file, split),
            scores=MappingProxyType(entry),
            path=file,
            experiment=place[3] if len(place) > 3 else None,
        )
        for split, entries in splits.items()
        for entry in _entries(entries, file, split)
    ]


def _identity(folder: Path, place: tuple[str, ...]) -> tuple[str, str]:
    """Return model name and revision as mteb wrote them; by the folders alone where it wrote none."""
    if not (folder / MODEL_FILE).is_file():
        return place[0].replace("__", "/", 1), place[1]
    meta = read_json(folder / MODEL_FILE)
    name, revision = (meta.get(key) if isinstance(meta, dict) else None for key in ("name", "revision"))
    if not isinstance(name, str) or revision != place[1]:
        raise InputError(f"{folder / MODEL_FILE} describes {name!r} at {revision!r}; expected revision {place[1]!r}")
    return name, revision


def _entries(entries: Any, file: Path, split: str) -> list[dict[str, Any]]:
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{file}, {split}: expected a list of scores, one entry per subset")
    return entries


def _subset(entry: dict[str, Any], file: Path, split: str) -> str:
    subset = entry.get("hf_subset")
    if not isinstance(subset, str):
        raise InputError(f"{file}, {split}: an entry does not name its hf_subset")
    return subset


def _main_score(entry: dict[str, Any], file: Path, split: str) -> float:
    value = entry.get("main_score")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(
            f"{file}, {split}, {entry.get('hf_subset')}: main_score is {value!r}; expected a finite number"
        )
    return float(value)
