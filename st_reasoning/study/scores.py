"""What the scores of a study say: every pair compared as `st-reasoning results compare` does it, and all together.

Tests are adjusted by Holm over the rows of one kind in all pairs together: the pairs' headlines, their benchmarks,
types, tasks, and the cells of the table in the paper's form. An interval covers what its kind names and nothing else,
see ``results/STATISTICS.md``; that over pairs asks whether the difference would be there in other pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from st_reasoning.errors import InputError
from st_reasoning.files import folder_hash
from st_reasoning.results.compare import Comparison, compare
from st_reasoning.results.decide import Measured, Row, Settings, decide, over_units
from st_reasoning.results.examples import Examples
from st_reasoning.results.files import Run
from st_reasoning.results.groups import Side
from st_reasoning.results.reading import Results, TaskScores, read_results
from st_reasoning.results.resampled import Resampled
from st_reasoning.results.tasks import TaskInfo, benchmark_infos, task_infos
from st_reasoning.study import published
from st_reasoning.study.labels import ARMS, arm_label, embedders_of
from st_reasoning.study.plan import Outcome, ended_well
from st_reasoning.study.recipe import Pair, StudyRecipe

EVERYTHING = "all tasks"
# Tasks of the paper's smallest benchmark: a study of fewer has none of them, and mteb need not be asked.
_FEWEST = 12


@dataclass(frozen=True)
class Scores:
    """What is known of the scores.

    Attributes:
        settings: Margin and level.
        results: What mteb wrote; None if nothing can be used.
        runs: By label of a backbone and part (``untrained`` or ``seed-N``), whose results they are.
        comparisons: By pair, those that could be compared.
        reasons: By pair, why it could not.
        columns: By pair and column of the paper's form, a row whose interval is over seeds alone.
        methods: A row for each method, over its pairs.
        overall: The row over all pairs; None where no pair was compared.
    """

    settings: Settings
    results: Results | None
    runs: dict[tuple[str, str], Run]
    comparisons: dict[str, Comparison]
    reasons: dict[str, str]
    columns: dict[str, dict[str, Row]]
    methods: tuple[Row, ...]
    overall: Row | None


@dataclass
class KeptExamples(Examples):
    """Scores by example that are read once for all pairs, each file of predictions with its own reservation."""

    _kept: dict[tuple[str, Path], tuple[Any, str]] = field(default_factory=dict)

    def scores(self, found: TaskScores, info: TaskInfo) -> dict[str, float] | None:
        """Return the score of each example, see :meth:`Examples.scores`."""
        return self._keep("scores", found, lambda: Examples.scores(self, found, info))  # type: ignore[no-any-return]

    def resampled(self, found: TaskScores, info: TaskInfo) -> Resampled | None:
        """Return what can be resampled where there is no mean, see :meth:`Examples.resampled`."""
        return self._keep("resampled", found, lambda: Examples.resampled(self, found, info))  # type: ignore[no-any-return]

    def by_mean(self, found: TaskScores) -> bool | None:
        """Return whether the score is a mean over examples, see :meth:`Examples.by_mean`."""
        return self._keep("by_mean", found, lambda: Examples.by_mean(self, found))  # type: ignore[no-any-return]

    def _keep(self, kind: str, found: TaskScores, read: Callable[[], Any]) -> Any:
        key = kind, found.path
        if key not in self._kept:
            # What hinders the file of one model must not hinder that of another.
            others, self.reasons = self.reasons, {}
            self._kept[key] = read(), self.reasons.get(found.task, "")
            self.reasons = others
        value, reason = self._kept[key]
        if reason:
            self.reasons[found.task] = reason
        return value


def compare_pairs(
    recipe: StudyRecipe, output: Path, outcomes: Mapping[str, Outcome], settings: Settings | None = None
) -> Scores:
    """Compare the arms of every pair on what mteb wrote below ``output``.

    A step that failed takes its seed out of the comparison on both sides; a pair without any is named with the reason.
    """
    settings = settings or Settings()
    try:
        results = read_results(output / "mteb")
    except InputError as error:
        return Scores(settings, None, {}, {}, {pair.name: str(error) for pair in recipe.pairs}, {}, (), None)
    benchmarks = {name: _only(benchmark_infos(name)) for name in recipe.benchmarks}
    infos = task_infos(recipe.tasks) | {task: info for found in benchmarks.values() for task, info in found.items()}
    benchmarks |= _papers_benchmarks(infos)
    runs = _runs(recipe, results, output, outcomes)
    sides: dict[str, tuple[Side, Side]] = {}
    reasons: dict[str, str] = {}
    for pair in recipe.pairs:
        try:
            sides[pair.name] = _sides(pair, recipe.seeds, runs)
        except InputError as error:
            reasons[pair.name] = str(error)
    examples = KeptExamples(Examples.of(results.predictions).files)
    _read_examples(examples, results, infos, sides)
    comparisons, partial = {}, {}
    for name, (a, b) in sides.items():
        try:
            examples.reasons.clear()
            comparisons[name] = compare(
                results, a, b, infos, benchmarks=benchmarks, settings=settings, examples=examples
            )
            partial[name] = _partial(results, a, b, comparisons[name], benchmarks, settings)
        except InputError as error:
            reasons[name] = str(error)
    comparisons = _adjusted(comparisons, settings)
    columns = _columns(recipe, list(benchmarks), comparisons, partial, settings)
    methods, overall = _over_pairs(recipe, comparisons, settings)
    return Scores(settings, results, runs, comparisons, reasons, columns, methods, overall)


def seeds_alone(row: Row) -> Measured | None:
    """Return the interval of a row that is over seeds alone: for its tasks as a fixed list, as the paper has it."""
    found = (each for each in (row.measured, *row.others) if each is not None and each.kind == "seeds")
    return next(found, None)


def _papers_benchmarks(infos: dict[str, TaskInfo]) -> dict[str, dict[str, TaskInfo]]:
    """Return the benchmarks of the paper's Table 1 of which the study has all tasks."""
    found = {}
    for name in published.BENCHMARKS if len(infos) >= _FEWEST else ():
        members = _only(benchmark_infos(published.BRIGHT_SOURCE if name == published.BRIGHT else name))
        if name == published.BRIGHT:
            members = {task: info for task, info in members.items() if not task.endswith(published.BRIGHT_LEFT_OUT)}
        if members.keys() <= infos.keys():
            found[name] = members
    return found


def _runs(
    recipe: StudyRecipe, results: Results, output: Path, outcomes: Mapping[str, Outcome]
) -> dict[tuple[str, str], Run]:
    """Return the run of every embedder of the study whose evaluation ended well, by the path that mteb recorded.

    Of several runs from one folder, the one is meant that the folder still holds.
    """
    found: dict[tuple[str, str], Run] = {}
    for label, part in embedders_of(recipe):
        # Of a step that failed an earlier result may still lie there, of another embedder.
        if not ended_well(f"evaluate/{label}/{part}", outcomes):
            continue
        place = ("embedders", label, part)
        several = [
            run
            for run in results.runs
            if run.source is not None and run.source.parts[-3:] == place and run.experiment is None
        ]
        if len(several) > 1 and output.joinpath(*place).is_dir():
            revision = folder_hash(output.joinpath(*place))
            several = [run for run in several if run.revision == revision]
        if len(several) == 1:
            found[label, part] = several[0]
    return found


def _only(found: dict[str, dict[str, TaskInfo]]) -> dict[str, TaskInfo]:
    (infos,) = found.values()
    return infos


def _sides(pair: Pair, seeds: tuple[int, ...], runs: dict[tuple[str, str], Run]) -> tuple[Side, Side]:
    """Return both arms with the runs of the seeds that both have.

    Raises:
        InputError: if there is none.
    """
    labels = [arm_label(pair, arm) for arm in ARMS]
    there = [[seed for seed in seeds if (label, f"seed-{seed}") in runs] for label in labels]
    common = tuple(seed for seed in there[0] if seed in there[1])
    if not common:
        lacking = [label for label, found in zip(labels, there, strict=True) if not found] or labels
        names = " and ".join(lacking)
        raise InputError(f"no seed was trained and evaluated in both arms: there is no score of {names}")
    a, b = (Side(label, tuple(runs[label, f"seed-{seed}"] for seed in common), common) for label in labels)
    return a, b


def _read_examples(
    examples: KeptExamples, results: Results, infos: dict[str, TaskInfo], sides: dict[str, tuple[Side, Side]]
) -> None:
    """Read the predictions task by task: a task's data is loaded once, not once for each pair."""
    runs = {run.key: run for pair in sides.values() for side in pair for run in side.runs}
    for name, info in infos.items():
        for run in runs.values():
            scores = results.scores[run].get(name)
            if scores is None or info.missing(scores):
                continue
            mean = examples.by_mean(scores)
            if mean:
                examples.scores(scores, info)
            elif mean is False:
                examples.resampled(scores, info)


def _partial(
    results: Results, a: Side, b: Side, found: Comparison, benchmarks: dict[str, dict[str, TaskInfo]],
    settings: Settings,
) -> dict[str, Row]:  # fmt: skip
    """Return, for each benchmark that lacks tasks, the row of those that are there."""
    complete = {row.name for row in found.rows if row.level == "benchmark"}
    rows = {}
    for name, infos in benchmarks.items():
        if name not in complete:
            try:
                part = compare(results, a, b, infos, benchmarks={name: infos}, benchmark=name, settings=settings)
            except InputError:
                continue  # none of its tasks is there: the table shows a gap, and the missing steps say why
            rows[name] = part.headline
    return rows


def _adjusted(comparisons: dict[str, Comparison], settings: Settings) -> dict[str, Comparison]:
    """Return the comparisons with their rows decided anew: adjusted over all pairs, level by level."""
    places: dict[str, list[tuple[str, int]]] = {}
    for name, found in comparisons.items():
        for number, row in enumerate(found.rows):
            places.setdefault("headline" if number == 0 else row.level, []).append((name, number))
    rows = {name: list(found.rows) for name, found in comparisons.items()}
    for family in places.values():
        decided = decide([comparisons[name].rows[number] for name, number in family], settings)
        for (name, number), row in zip(family, decided, strict=True):
            rows[name][number] = row
    return {name: replace(found, rows=tuple(rows[name])) for name, found in comparisons.items()}


def _columns(
    recipe: StudyRecipe,
    benchmarks: list[str],
    comparisons: dict[str, Comparison],
    partial: dict[str, dict[str, Row]],
    settings: Settings,
) -> dict[str, dict[str, Row]]:
    """Return the cells of the paper's form: by pair and benchmark, or of all tasks where no benchmark is named."""
    cells: dict[tuple[str, str], Row] = {}
    for name, found in comparisons.items():
        by_name = {row.name: row for row in found.rows if row.level == "benchmark"} | partial[name]
        wanted = {benchmark: by_name[benchmark] for benchmark in benchmarks if benchmark in by_name}
        if recipe.tasks or len(recipe.benchmarks) != 1:
            wanted[EVERYTHING] = found.headline
        for column, row in wanted.items():
            cells[name, column] = replace(row, measured=seeds_alone(row), others=())
    columns: dict[str, dict[str, Row]] = {name: {} for name in comparisons}
    for (name, column), row in zip(cells, decide(list(cells.values()), settings), strict=True):
        columns[name][column] = row
    return columns


def _over_pairs(
    recipe: StudyRecipe, comparisons: dict[str, Comparison], settings: Settings
) -> tuple[tuple[Row, ...], Row | None]:
    """Return a row for each method and one for all pairs: pairs are the units, seeds are not."""
    by_method: dict[str, list[Row]] = {}
    for pair in recipe.pairs:
        if pair.name in comparisons:
            by_method.setdefault(pair.method, []).append(comparisons[pair.name].headline)
    if not by_method:
        return (), None
    methods = decide([_mean("method", name, rows, settings) for name, rows in by_method.items()], settings)
    every = [row for rows in by_method.values() for row in rows]
    (overall,) = decide([_mean("overall", "all pairs", every, settings)], settings)
    return tuple(methods), overall


def _mean(level: str, name: str, rows: list[Row], settings: Settings) -> Row:
    a, b, difference = (float(np.mean([getattr(row, key) for row in rows])) for key in ("a", "b", "difference"))
    measured = over_units(np.array([row.difference for row in rows]), "pairs", settings.level)
    return Row(level, name, len(rows), a, b, difference, measured)
