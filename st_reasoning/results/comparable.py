"""What makes two sides differ beside the models: data, splits, mteb's version, prompts, options."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from st_reasoning.results.files import Run
from st_reasoning.results.reading import Results, TaskScores
from st_reasoning.results.tasks import TaskInfo

SETTINGS_FILE = "run_settings.jsonl"


def same_data(files: list[TaskScores], info: TaskInfo) -> str | None:
    """Return why scores of one task are not of the same data, if so."""
    first, *others = files
    for other in others:
        if other.dataset_revision != first.dataset_revision:
            return (
                f"{first.path} is of data revision {first.dataset_revision}, {other.path} of {other.dataset_revision}"
            )
        if info.cells is None and other.cells.keys() != first.cells.keys():
            return f"{first.path} and {other.path} have different splits or subsets"
    return None


def differences_in_setting(
    results: Results, pairs: tuple[tuple[Run, ...], tuple[Run, ...]], tasks: list[str]
) -> list[str]:
    """Return one sentence for each setting in which the two sides are not alike."""
    said = []
    first, second = ({run.experiment or "none" for run in runs} for runs in pairs)
    if first != second:
        said.append(f"the sides are of different experiments of mteb: {_list(first)} against {_list(second)}")
    versions: list[set[str]] = [set(), set()]
    prompts: dict[str, tuple[Any, Any]] = {}
    for task in tasks:
        for found, runs in zip(versions, pairs, strict=True):
            found.update(results.scores[run][task].mteb_version or "unknown" for run in runs)
        a, b = ({_prompt(run.folder, task) for run in runs} for runs in pairs)
        if a != b:
            prompts[task] = (a, b)
    if versions[0] != versions[1]:
        said.append(f"the sides were scored by different versions of mteb: {_list(versions[0])}, {_list(versions[1])}")
    if prompts:
        task, (a, b) = next(iter(prompts.items()))
        number = f"{len(prompts)} of {len(tasks)} tasks"
        said.append(f"the prompts differ on {number}, e.g. {task}: {_list(a)} and {_list(b)}")
    return said


def other_data(results: Results, runs: Iterable[Run], tasks: list[str], labels: Mapping[Run, str]) -> list[str]:
    """Return one sentence for each task that not all runs were scored on the same revision of its data."""
    said = []
    for task in tasks:
        by_revision: dict[str, list[str]] = {}
        for run in runs:
            if task in results.scores[run]:
                found = results.scores[run][task].dataset_revision or "unknown"
                by_revision.setdefault(found, []).append(labels[run])
        if len(by_revision) > 1:
            which = "; ".join(f"{revision[:12]}: {_first(names)}" for revision, names in sorted(by_revision.items()))
            said.append(f"Not the same data, so that scores and ranks do not compare: {task} at revision {which}.")
    return said


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _prompt(folder: Path, task: str) -> str:
    """Return the prompt that was used for a task as JSON, as far as mteb or st-reasoning wrote it down."""
    return _prompts(folder).get(task, "none recorded")


@functools.cache
def _prompts(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        lines = (folder / SETTINGS_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return found
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # half a line of a killed run; the scores are in another file
        options = entry.get("encode_kwargs") if isinstance(entry, dict) else None
        if isinstance(options, dict) and options.get("prompt") and isinstance(entry.get("task"), str):
            found[entry["task"]] = json.dumps(options["prompt"], ensure_ascii=False, sort_keys=True)
    return found


def _list(values: Iterable[str]) -> str:
    return ", ".join(sorted(values))
