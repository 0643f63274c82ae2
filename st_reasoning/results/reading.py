"""Results of an mteb output folder, and by name everything in it that is not used, and why."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from st_reasoning.errors import InputError
from st_reasoning.results.files import EXPERIMENTS, MODEL_FILE, PREDICTIONS, ResultFile, Run, identify, parse_result
from st_reasoning.results.scores import no_results, results_root

Cells = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class TaskScores:
    """The main scores of a run on one task.

    Attributes:
        run: Whose they are. task: The task's name. cells: Main score by (split, subset), 0 to 1. dataset_revision: Of
        the task's data. mteb_version: That scored. path: The file.
    """

    run: Run
    task: str
    cells: Cells
    dataset_revision: str | None
    mteb_version: str | None
    path: Path

    @property
    def score(self) -> float:
        """The mean over all splits and subsets, as mteb takes it."""
        return sum(self.cells.values()) / len(self.cells)


@dataclass(frozen=True)
class LeftOut:
    """A file not used. kind: corrupt, foreign, duplicate, partial or analysis. reason: A sentence with its name."""

    path: Path
    kind: str
    reason: str


@dataclass(frozen=True)
class Results:
    """What can be used below a folder.

    Attributes:
        folder: The folder given. scores: By run and task. left_out: Files that are not used. predictions: Files of
        predictions that lie below it.
    """

    folder: Path
    scores: Mapping[Run, Mapping[str, TaskScores]]
    left_out: tuple[LeftOut, ...]
    predictions: tuple[Path, ...]

    @property
    def runs(self) -> list[Run]:
        """All runs, in order of their names."""
        return sorted(self.scores, key=lambda run: run.key)

    @property
    def tasks(self) -> list[str]:
        """The names of all tasks."""
        return sorted({task for found in self.scores.values() for task in found})

    def without(self, left_out: Iterable[LeftOut]) -> Results:
        """Return the results without further files."""
        left = list(left_out)
        paths = {each.path for each in left}
        kept = {
            run: {task: found for task, found in tasks.items() if found.path not in paths}
            for run, tasks in self.scores.items()
        }
        return replace(
            self, scores={run: tasks for run, tasks in kept.items() if tasks}, left_out=(*self.left_out, *left)
        )


def read_results(folder: Path | str) -> Results:
    """Read an mteb output folder and leave out what cannot be used; neither mteb nor torch is needed.

    Corrupt: no JSON, empty, or without scores that are numbers. Foreign: JSON that is no result of mteb, holds another
    task than its name says, or lies where mteb puts none. Duplicate: a task that a run has twice; of equal copies one
    stays, of different ones none, for nothing says which is right. What a task's splits and subsets should be, mteb
    knows: see :func:`~st_reasoning.results.tasks.leave_out_partial`.

    Args:
        folder: What was given to mteb as its output folder, or the folder ``results`` within.

    Raises:
        InputError: if there is no such folder, or not one usable result in it.
    """
    root = results_root(folder)
    found: dict[Run, dict[str, list[TaskScores]]] = {}
    left_out: list[LeftOut] = []
    predictions = []
    for place, names in _folders(root):
        here = root.joinpath(*place)
        run: Run | None = None
        for name in names:
            path = here / name
            if name.endswith(PREDICTIONS):
                predictions.append(path)
            elif not _is_place(place):
                left_out.append(LeftOut(path, "foreign", f"{path} lies where mteb puts no results"))
            else:
                try:
                    run = run or identify(here, place)
                    result = parse_result(path, run)
                except InputError as error:
                    reason = str(error) if str(path) in str(error) else f"{path}: {error}"
                    left_out.append(LeftOut(path, getattr(error, "kind", "corrupt"), reason))
                else:
                    tasks = found.setdefault(_same(found, run), {})
                    tasks.setdefault(result.task, []).append(_main_scores(result))
    scores = {run: {task: _only(several, left_out) for task, several in tasks.items()} for run, tasks in found.items()}
    used = {run: {task: one for task, one in tasks.items() if one is not None} for run, tasks in scores.items()}
    used = {run: tasks for run, tasks in used.items() if tasks}
    if not used:
        nothing = no_results(folder)
        raise InputError(f"{nothing}; {left_out[0].reason}") if left_out else nothing
    if root != Path(folder):
        predictions += _predictions_beside(Path(folder), root)
    return Results(Path(folder), used, tuple(left_out), tuple(sorted(predictions)))


def left_out_mapping(left_out: tuple[LeftOut, ...]) -> list[dict[str, str]]:
    """Return the files that were not used as JSON values."""
    return [{"path": str(each.path), "kind": each.kind, "reason": each.reason} for each in left_out]


def _folders(root: Path) -> list[tuple[tuple[str, ...], list[str]]]:
    """Return every folder below root, as its path's parts, with the names of the JSON files that may be results."""
    found = []
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if name[0] != ".")
        files = sorted(name for name in names if name.endswith(".json") and name != MODEL_FILE and name[0] != ".")
        if files:
            found.append((Path(folder).relative_to(root).parts, files))
    return found


def _is_place(place: tuple[str, ...]) -> bool:
    return len(place) == 2 or (len(place) == 4 and place[2] == EXPERIMENTS)


def _predictions_beside(folder: Path, root: Path) -> list[Path]:
    return [path for path in folder.rglob(f"*{PREDICTIONS}") if root not in path.parents]


def _same(found: Mapping[Run, object], run: Run) -> Run:
    """Return the run that is this one in another folder, e.g. a copy, or itself."""
    return next((each for each in found if each.key == run.key), run) if run not in found else run


def _main_scores(result: ResultFile) -> TaskScores:
    # The other scores, some hundred for a retrieval task, are let go: ten thousand files would fill the memory.
    cells = {cell: float(entry["main_score"]) for cell, entry in result.entries.items()}
    return TaskScores(result.run, result.task, cells, result.dataset_revision, result.mteb_version, result.path)


def _only(several: list[TaskScores], left_out: list[LeftOut]) -> TaskScores | None:
    """Return the one file of a run's task; of equal ones the first, of different ones none."""
    first, *others = several
    if all((each.cells, each.dataset_revision) == (first.cells, first.dataset_revision) for each in others):
        left_out += [LeftOut(each.path, "duplicate", f"{each.path} repeats {first.path}") for each in others]
        return first
    for each in several:
        other = others[0] if each is first else first
        left_out.append(
            LeftOut(each.path, "duplicate", f"{each.path} and {other.path} are the same task of the same model")
        )
    return None
