"""Scores out of ``<output>/results/<org__model>/<revision>/<Task>.json``, all of them or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from st_reasoning.errors import InputError
from st_reasoning.results.files import EXPERIMENTS, MODEL_FILE, PREDICTIONS, Run, identify, parse_result


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
    """Read every score below an mteb output folder; for what goes on without the unusable, see ``read_results``.

    Args:
        folder: What was given to mteb as its output folder, or the folder ``results`` within.

    Returns:
        Scores ordered by model, revision, experiment, task, split and subset.

    Raises:
        InputError: if there are none, or any file is corrupt or incomplete. All such files are named at once;
        no
            score is returned then, for an average over what is left would look like a result.
    """
    root = results_root(folder)
    scores: list[TaskScore] = []
    broken: list[str] = []
    for file in _result_files(root):
        try:
            run = identify(file.parent, file.relative_to(root).parts[:-1])
            scores.extend(_scores(file, run))
        except InputError as error:
            broken.append(str(error))
    if broken:
        raise InputError(f"{len(broken)} results cannot be used: {'; '.join(broken)}")
    if not scores:
        raise no_results(folder)
    return sorted(scores, key=lambda s: (s.model, s.revision, s.experiment or "", s.task, s.split, s.subset))


def results_root(folder: Path | str) -> Path:
    """Return the folder that holds the models' folders.

    Raises:
        InputError: if there is no such folder.
    """
    folder = Path(folder)
    root = folder / "results" if (folder / "results").is_dir() else folder
    if not root.is_dir():
        raise InputError(f"no such folder: {folder}; expected an output folder of mteb")
    return root


def no_results(folder: Path | str) -> InputError:
    """Return the error for a folder without any."""
    return InputError(f"no mteb results below {folder}; expected results/<model>/<revision>/<Task>.json")


def _result_files(root: Path) -> list[Path]:
    return [
        file
        for pattern in ("*/*/*.json", f"*/*/{EXPERIMENTS}/*/*.json")
        for file in sorted(root.glob(pattern))
        if file.name != MODEL_FILE and file.name[0] != "." and not file.name.endswith(PREDICTIONS)
    ]


def _scores(file: Path, run: Run) -> list[TaskScore]:
    return [
        TaskScore(
            model=run.model,
            revision=run.revision,
            task=file.stem,
            split=split,
            subset=subset,
            main_score=float(entry["main_score"]),
            scores=MappingProxyType(dict(entry)),
            path=file,
            experiment=run.experiment,
        )
        for (split, subset), entry in parse_result(file, run).entries.items()
    ]
