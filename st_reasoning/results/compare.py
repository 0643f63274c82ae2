"""Two sides, paired task by task: rows for tasks, types and benchmarks, and one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from st_reasoning.errors import InputError
from st_reasoning.results.comparable import differences_in_setting, same_data
from st_reasoning.results.decide import (
    Array,
    Measured,
    Row,
    Settings,
    decide,
    over_both,
    over_fixed,
    over_resampled,
    over_units,
    over_unpaired,
)
from st_reasoning.results.examples import Examples
from st_reasoning.results.files import Run
from st_reasoning.results.groups import Side
from st_reasoning.results.reading import Results, TaskScores
from st_reasoning.results.tasks import ANALYSIS, TaskInfo


@dataclass(frozen=True)
class Comparison:
    """What is known of the difference between two sides; differences are b - a.

    Attributes:
        a: The first side. b: The second. settings: Margin and level. rows: All, the headline first, then benchmarks,
        types and tasks. warnings: What makes the sides differ beside the models, and what was not used.
    """

    a: Side
    b: Side
    settings: Settings
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]

    @property
    def headline(self) -> Row:
        """The row that the sentence is about: the benchmark asked for, all tasks, or the only task."""
        return self.rows[0]


@dataclass(frozen=True)
class _Task:
    """One task's scores in points: of the sides' runs [n_a] and [n_b], and differences [S, Q] by example if known.

    Over examples alone, seeds being as they are, it is ``by_example``.
    """

    info: TaskInfo
    a: Array
    b: Array
    paired: bool
    examples: Array | None
    by_example: Measured | None = None

    @property
    def differences(self) -> Array:
        """[S] where seeds are paired, else the one difference of means."""
        return self.b - self.a if self.paired else np.array([self.b.mean() - self.a.mean()])


def compare(
    results: Results,
    a: Side,
    b: Side,
    infos: dict[str, TaskInfo],
    *,
    benchmarks: dict[str, dict[str, TaskInfo]] | None = None,
    benchmark: str | None = None,
    settings: Settings | None = None,
    examples: Examples | None = None,
) -> Comparison:
    """Compare two sides on every task that both have.

    Args:
        results: Partial files are named in the warnings and not used.
        a: The first side, e.g. the base models.
        b: The second.
        infos: What mteb knows of the tasks.
        benchmarks: Their tasks by name; one gets a row where both sides have all its tasks.
        benchmark: Restricts everything to this benchmark, with the splits and subsets it takes.
        settings: Margin and level.
        examples: Scores by example where predictions are at hand.

    Raises:
        InputError: if no task is left, or the sides share a run.
    """
    settings = settings or Settings()
    if shared := {run.key for run in a.runs} & {run.key for run in b.runs}:
        raise InputError(f"{a.name} and {b.name} are both {'@'.join(sorted(shared)[0][:2])}; expected different runs")
    warnings: list[str] = []
    pairs, paired = _pair_seeds(a, b, warnings)
    if benchmark is not None:
        infos = (benchmarks or {})[benchmark]
        if missing := sorted(name for name in infos if not _have(results, name, (*a.runs, *b.runs))):
            warnings.append(
                f"{len(missing)} of {len(infos)} tasks of {benchmark} are not there on both sides, so that the mean is "
                f"not the benchmark's: {_some(missing)}"
            )
    if analyses := [name for name, info in infos.items() if info.type == ANALYSIS and _have_one(results, name, pairs)]:
        warnings.append(f"{_some(analyses)}: likeness to a reference, no measure of quality, and not compared")
    infos = {name: info for name, info in infos.items() if info.type != ANALYSIS}
    left: list[str] = []
    tasks = [
        task
        for name in sorted(infos)
        if (task := _task(results, infos[name], pairs, paired, examples, settings, left)) is not None
    ]
    if left:
        more = f"; and {len(left) - 3} more" if len(left) > 3 else ""
        warnings.append(f"{len(left)} of {len(left) + len(tasks)} tasks are left out: {'; '.join(left[:3])}{more}")
    if not tasks:
        raise InputError(
            f"no task can be compared between {a.name} and {b.name}" + (f": {'; '.join(warnings)}" if warnings else "")
        )
    warnings += differences_in_setting(results, pairs, [task.info.name for task in tasks])
    if examples is not None:
        warnings += _without_examples(examples)
    rows = decide([_task_row(task, settings) for task in tasks], settings)
    by_task = dict(zip([task.info.name for task in tasks], rows, strict=True))
    types = [
        _group_row("type", kind, [task for task in tasks if task.info.type == kind], by_task, settings)
        for kind in sorted({task.info.type for task in tasks})
    ]
    top: list[Row] = []
    named: list[Row] = []
    if benchmark is not None:
        # Of a part it must not look like a score of the benchmark.
        part = "" if len(tasks) == len(infos) else f"{len(tasks)} of {len(infos)} tasks of "
        top = [_group_row("benchmark", f"{part}{benchmark}", tasks, by_task, settings)]
    else:
        named = [
            _group_row("benchmark", name, found, {}, settings)
            for name, members in sorted((benchmarks or {}).items())
            if len(found := _members(results, members, pairs, paired, settings, tasks)) == len(members)
        ]
        if len(tasks) > 1:
            top = [_group_row("all", "all tasks", tasks, by_task, settings)]
    ordered = [*decide(top, settings), *decide(named, settings), *decide(types, settings), *rows]
    if not top:
        ordered = [*rows, *ordered[: -len(rows)]]
    return Comparison(a, b, settings, tuple(ordered), tuple(warnings))


def _pair_seeds(a: Side, b: Side, warnings: list[str]) -> tuple[tuple[tuple[Run, ...], tuple[Run, ...]], bool]:
    """Return the runs of both sides in the order of their seeds, and whether they are paired."""
    first, second = ({s: r for s, r in zip(side.seeds, side.runs, strict=True) if s is not None} for side in (a, b))
    if len(a.runs) == len(b.runs) == 1:
        warnings += [
            f"{side.name} is one training: how far another seed would move the difference is in no interval"
            for side in (a, b)
            if side.seeds[0] is not None
        ]
        return (a.runs, b.runs), True
    common = sorted(first.keys() & second.keys())
    if len(common) >= 2 and len(first) == len(a.runs) and len(second) == len(b.runs):
        if dropped := sorted(first.keys() ^ second.keys()):
            warnings.append(f"seeds that one side lacks are not used: {', '.join(map(str, dropped))}")
        return (tuple(first[s] for s in common), tuple(second[s] for s in common)), True
    warnings.append(
        f"seeds are not paired: {a.name} has {_seeds(a)}, {b.name} has {_seeds(b)}; the same ones on both sides are "
        "compared with more certainty"
    )
    return (a.runs, b.runs), False


def _seeds(side: Side) -> str:
    return ", ".join("one run" if len(side.runs) == 1 and s is None else f"seed {s}" for s in side.seeds)


def _have(results: Results, name: str, runs: Iterable[Run]) -> bool:
    return all(name in results.scores[run] for run in runs)


def _task(
    results: Results,
    info: TaskInfo,
    pairs: tuple[tuple[Run, ...], tuple[Run, ...]],
    paired: bool,
    examples: Examples | None,
    settings: Settings,
    left: list[str],
) -> _Task | None:
    """Return a task's scores, or None where the sides cannot be compared on it; ``left`` is told why."""
    runs = (*pairs[0], *pairs[1])
    having = [run for run in runs if info.name in results.scores[run]]
    if not having:
        return None
    if len(having) < len(runs):
        lacking = next(run for run in runs if run not in having)
        left.append(f"{info.name}, for {lacking.model}@{lacking.revision[:8]} has no result")
        return None
    files = [results.scores[run][info.name] for run in runs]
    lacking_cells = [f"{each.path} lacks {'/'.join(cell)}" for each in files for cell in info.missing(each)]
    if reason := next(iter(lacking_cells), None) or same_data(files, info):
        left.append(f"{info.name}, for {reason}")
        return None
    count = len(pairs[0])
    points = np.array([100 * info.score(each) for each in files])
    by_example, measured = None, None
    if examples is not None and paired:
        by_example, measured = _by_example(files, info, count, examples, settings)
    return _Task(info, points[:count], points[count:], paired, by_example, measured)


def _by_example(
    files: list[TaskScores], info: TaskInfo, count: int, examples: Examples, settings: Settings
) -> tuple[Array | None, Measured | None]:
    """Return differences [S, Q] by example, if there are such, and the interval over examples alone."""
    means = {examples.by_mean(file) for file in files} - {None}
    if means == {True}:
        found = [each for each in (examples.scores(file, info) for file in files) if each is not None]
        if len(found) == len(files) and len({frozenset(each) for each in found}) == 1:
            values = 100 * np.array([[each[key] for key in sorted(found[0])] for each in found])
            differences = values[count:] - values[:count]
            return differences, over_units(differences.mean(axis=0), "examples", settings.level)
        if found:
            examples.reasons.setdefault(info.name, f"only {len(found)} of {len(files)} runs have them, or not the same")
    elif means == {False} and count == 1:
        both = [each for each in (examples.resampled(file, info) for file in files) if each is not None]
        if len(both) == 2:
            return None, over_resampled(both[0], both[1], settings.level)
        if both:
            examples.reasons.setdefault(info.name, "only one of 2 runs has them")
    return None, None


def _without_examples(examples: Examples) -> list[str]:
    """Return a sentence for each reason why predictions were not used, with the tasks it is about."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in sorted(examples.reasons.items()):
        by_reason.setdefault(reason, []).append(name)
    return [f"no scores by example of {_some(names)}: {reason}" for reason, names in by_reason.items()]


def _members(
    results: Results,
    members: dict[str, TaskInfo],
    pairs: tuple[tuple[Run, ...], tuple[Run, ...]],
    paired: bool,
    settings: Settings,
    known: list[_Task],
) -> list[_Task]:
    """Return what can be compared of a benchmark's tasks, with the splits and subsets it takes."""
    if not _have_any(results, members, pairs):
        return []
    same = {task.info: task for task in known}
    found = (same.get(info) or _task(results, info, pairs, paired, None, settings, []) for info in members.values())
    return [task for task in found if task is not None]


def _have_one(results: Results, name: str, pairs: tuple[tuple[Run, ...], tuple[Run, ...]]) -> bool:
    return any(name in results.scores[run] for run in (*pairs[0], *pairs[1]))


def _have_any(results: Results, members: dict[str, TaskInfo], pairs: tuple[tuple[Run, ...], tuple[Run, ...]]) -> bool:
    return all(members.keys() <= results.scores[run].keys() for run in (*pairs[0], *pairs[1]))


def _task_row(task: _Task, settings: Settings) -> Row:
    level, found = settings.level, []
    if task.examples is not None:
        found.append(over_both(task.examples, "examples", level))
    if task.paired:
        found.append(over_units(task.differences, "seeds", level))
    else:
        found.append(over_unpaired(task.a, task.b, level))
    # With one training, what there is over examples decides; with several, it stands beside.
    found.insert(0 if len(task.differences) == 1 else len(found), task.by_example)
    measured = [each for each in found if each is not None]
    return _row("task", task.info.name, [task], measured)


def _group_row(level: str, name: str, tasks: list[_Task], by_task: dict[str, Row], settings: Settings) -> Row:
    """Return the row of a mean over tasks. Of one task it is the task's own."""
    if len(tasks) == 1:
        own = by_task.get(tasks[0].info.name) or _task_row(tasks[0], settings)
        return _row(level, name, tasks, [own.measured, *own.others] if own.measured else [])
    seeds_by_task = np.array([task.differences for task in tasks]).T  # [S, tasks]
    parts = [task.by_example for task in tasks if task.by_example is not None]
    found = [
        over_fixed(parts, seeds_by_task.mean(axis=1), settings.level) if len(parts) == len(tasks) else None,
        over_both(seeds_by_task, "tasks", settings.level),
        over_units(seeds_by_task.mean(axis=0), "tasks", settings.level),
    ]
    if tasks[0].paired:
        found.append(over_units(seeds_by_task.mean(axis=1), "seeds", settings.level))
    else:
        a, b = (np.mean([getattr(task, side) for task in tasks], axis=0) for side in ("a", "b"))
        found.append(over_unpaired(a, b, settings.level))
    return _row(level, name, tasks, [each for each in found if each is not None])


def _row(level: str, name: str, tasks: list[_Task], measured: list[Measured]) -> Row:
    a, b = (float(np.mean([getattr(task, side).mean() for task in tasks])) for side in ("a", "b"))
    return Row(level, name, len(tasks), a, b, b - a, measured[0] if measured else None, tuple(measured[1:]))


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
