"""A table of models by task, type and benchmark, with mteb's own means and ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from st_reasoning.errors import InputError
from st_reasoning.results.comparable import other_data
from st_reasoning.results.groups import label, seed_and_group
from st_reasoning.results.reading import LeftOut, Results, TaskScores, left_out_mapping
from st_reasoning.results.tasks import (
    ANALYSIS,
    OUTSIDE,
    UNKNOWN,
    TaskInfo,
    benchmark_infos,
    leave_out_partial,
    quiet_mteb,
    task_infos,
)

SHOWN = 6
# Their names in mteb's scores -> ours.
_COLUMNS = {"Mean(Task)": "mean_task", "Mean(TaskType)": "mean_type", "Rank": "rank_borda"}


@dataclass(frozen=True)
class Overview:
    """Scores in points, 0 to 100, by model.

    Attributes:
        name: Of the benchmark, or "all tasks". tasks: Their names with their types. models: One mapping per run:
        ``model``, ``revision``, ``experiment``, ``label``, ``seed``, ``rank_borda``, ``mean_task``, ``mean_type``,
        ``types`` and ``tasks``; None where a score is missing, and then mteb gives no mean either. left_out: Files that
        are not in it. notes: What else to know.
    """

    name: str
    tasks: Mapping[str, str]
    models: tuple[dict[str, Any], ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]

    @property
    def types(self) -> list[str]:
        """The types of all tasks."""
        return sorted(set(self.tasks.values()))


def overview(results: Results, benchmark: str | None = None) -> Overview:
    """Make the table of a benchmark, or of all tasks there are; imports mteb.

    Raises:
        InputError: if mteb does not know the benchmark, or no result is of it.
    """
    infos = task_infos(results.tasks) if benchmark is None else next(iter(benchmark_infos(benchmark).values()))
    results = leave_out_partial(results, infos)
    if benchmark is None:
        infos = {name: infos[name] for name in results.tasks}
    runs = [run for run in results.runs if infos.keys() & results.scores[run].keys()]
    if not runs:
        why = f"; {results.left_out[0].reason}" if results.left_out else ""
        raise InputError(f"no complete result of {benchmark or 'any task'} below {results.folder}{why}")
    labels = {run: label(run, results.runs) for run in runs}
    found = {labels[run]: {t: s for t, s in results.scores[run].items() if t in infos} for run in runs}
    unknown, analyses = (sorted(name for name, i in infos.items() if i.type == kind) for kind in (UNKNOWN, ANALYSIS))
    summary = _mteb_summary(found, infos, benchmark)
    models = []
    for run in runs:
        name, row = labels[run], summary.get(labels[run], {})
        models.append({
            "label": name,
            "model": run.model,
            "revision": run.revision,
            "experiment": run.experiment,
            "seed": seed_and_group(run)[0],
            **{ours: _points(row.get(theirs), ours) for theirs, ours in _COLUMNS.items()},
            "types": {t: _points(row.get(t)) for t in {i.type for i in infos.values()} - OUTSIDE},
            "tasks": {
                task: 100 * info.score(found[name][task]) if task in found[name] else None
                for task, info in infos.items()
            },
        })  # fmt: skip
    models.sort(key=lambda row: (row["rank_borda"] is None, row["rank_borda"], row["label"]))
    notes = ["Means, and ranks by Borda count, are mteb's own; a model that lacks a task has no mean over it."]
    if unknown:
        notes.append(f"mteb does not know {', '.join(unknown)}: in no mean, and nobody can say whether complete.")
    if analyses:
        notes.append(f"{', '.join(analyses)}: likeness to a reference, no measure of quality; in no mean and no rank.")
    notes += other_data(results, runs, sorted(infos), labels)
    return Overview(
        benchmark or "all tasks",
        {name: info.type for name, info in sorted(infos.items())},
        tuple(models),
        results.left_out,
        tuple(notes),
    )


def _mteb_summary(
    found: Mapping[str, Mapping[str, TaskScores]], infos: Mapping[str, TaskInfo], benchmark: str | None
) -> dict[str, dict[str, Any]]:
    """Return mteb's means and ranks by label.

    They are those of ``Benchmark.get_score``: the table of ``get_benchmark_result`` drops, without a word, every model
    that mteb has not registered, and so every local one. A run goes to mteb under its label: mteb joins the revisions
    of one name, which for local models are others.
    """
    known = [name for name, info in infos.items() if info.type not in OUTSIDE]
    if not known:
        return {}
    with quiet_mteb() as mteb:
        from mteb.benchmarks.benchmark import Benchmark
        from mteb.results import BenchmarkResults, ModelResult, TaskResult

        model_results = [
            ModelResult(
                model_name=name,
                model_revision="1",
                task_results=[
                    TaskResult.from_validated(
                        dataset_revision="", task_name=task, mteb_version=one.mteb_version or "2",
                        scores=_as_mteb(one, infos[task]), evaluation_time=None, kg_co2_emissions=None,
                    )
                    for task, one in tasks.items()
                    if task in known
                ],
            )
            for name, tasks in found.items()
        ]  # fmt: skip
        whole = mteb.get_benchmark(benchmark) if benchmark else Benchmark("all tasks", mteb.get_tasks(tasks=known))
        scores: dict[str, dict[str, Any]] = whole.get_score(BenchmarkResults(model_results=model_results))
    return scores


def _as_mteb(scores: TaskScores, info: TaskInfo) -> dict[str, list[dict[str, Any]]]:
    by_split: dict[str, list[dict[str, Any]]] = {}
    for (split, subset), value in scores.cells.items():
        if info.cells is None or (split, subset) in info.cells:
            by_split.setdefault(split, []).append({"hf_subset": subset, "main_score": value, "languages": ["eng-Latn"]})
    return by_split


def _points(value: Any, column: str = "") -> float | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return int(value) if column == "rank_borda" else 100 * float(value)


def overview_mapping(found: Overview) -> dict[str, Any]:
    """Return the table as JSON values."""
    return {
        "schema": 1,
        "name": found.name,
        "tasks": dict(found.tasks),
        "models": list(found.models),
        "notes": list(found.notes),
        "left_out": left_out_mapping(found.left_out),
    }


def overview_text(found: Overview) -> str:
    """Return the table for a terminal: models across, for they are fewer than tasks; of very many the best."""
    models = found.models[:SHOWN]
    rows = [["", *(model["label"] for model in models)]]
    for name, key, digits in (("rank (Borda)", "rank_borda", 0), ("mean of tasks", "mean_task", 2)):
        rows.append([name, *(_cell(model[key], digits) for model in models)])
    rows.append(["mean of types", *(_cell(model["mean_type"]) for model in models)])
    for kind in found.types:
        rows.append([f"{kind} (type)", *(_cell(model["types"].get(kind)) for model in models)])
        tasks = [task for task, of in found.tasks.items() if of == kind]
        rows += [[f"  {task}", *(_cell(model["tasks"][task]) for model in models)] for task in tasks]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
    rest = len(found.models) - len(models)
    more = [f"{rest} further models: --output FILE.html or .csv shows them all."] if rest else []
    return "\n".join([f"{found.name}: main scores in points (0 to 100)", "", *lines, "", *found.notes, *more])


def _cell(value: float | None, digits: int = 2) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.{digits}f}"
