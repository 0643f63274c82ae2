"""What mteb knows of tasks and benchmarks: types, and the splits and subsets that a complete result has."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from st_reasoning.errors import unknown_name
from st_reasoning.results.reading import LeftOut, Results, TaskScores

UNKNOWN = "unknown to mteb"
# Run like a task, but no measure of quality: in no mean, and nobody is better at it.
ANALYSIS = "analysis"
OUTSIDE = frozenset((UNKNOWN, ANALYSIS))


@dataclass(frozen=True)
class TaskInfo:
    """A task as mteb, or one of its benchmarks, defines it.

    Attributes:
        name: Its name. type: Its type, e.g. Retrieval; one of ``OUTSIDE`` for what is in no mean. cells: The (split,
        subset) pairs that are scored; None where mteb does not know the task, so that nobody can say whether a result
        is complete.
    """

    name: str
    type: str
    cells: frozenset[tuple[str, str]] | None

    def missing(self, found: TaskScores) -> list[tuple[str, str]]:
        """Return what a complete result would have and this one has not."""
        return sorted((self.cells or frozenset()) - found.cells.keys())

    def score(self, found: TaskScores) -> float:
        """Return the mean over the cells that count, as mteb takes it."""
        cells = found.cells if self.cells is None else self.cells
        return sum(found.cells[cell] for cell in cells) / len(cells)


def task_infos(names: Iterable[str]) -> dict[str, TaskInfo]:
    """Return what mteb knows of tasks; imports mteb."""
    with quiet_mteb() as mteb:
        from mteb.get_tasks import _TASKS_REGISTRY

        return {
            name: _info(mteb.get_task(name)) if name in _TASKS_REGISTRY else TaskInfo(name, UNKNOWN, None)
            for name in names
        }


def benchmark_infos(name: str | None = None) -> dict[str, dict[str, TaskInfo]]:
    """Return a benchmark's tasks as it defines them, or those of all benchmarks; imports mteb.

    Raises:
        InputError: for a name that mteb does not know.
    """
    with quiet_mteb() as mteb:
        found = {benchmark.name: benchmark for benchmark in mteb.get_benchmarks()}
        if name is None:
            chosen = found
        elif name in found:
            chosen = {name: found[name]}
        else:
            try:
                chosen = {name: mteb.get_benchmark(name)}  # by an alias
            except KeyError:
                raise unknown_name("benchmark", name, found) from None
        return {
            name: {task.metadata.name: _info(task) for task in benchmark.tasks} for name, benchmark in chosen.items()
        }


def leave_out_partial(results: Results, infos: dict[str, TaskInfo]) -> Results:
    """Return the results without the files that lack a split or subset of their task."""
    partial = []
    for run in results.runs:
        for task, found in results.scores[run].items():
            if task in infos and (missing := infos[task].missing(found)):
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                reason = f"{found.path} lacks {'/'.join(missing[0])}{more} of {len(infos[task].cells or ())}"
                partial.append(LeftOut(found.path, "partial", reason))
    return results.without(partial)


@contextlib.contextmanager
def quiet_mteb() -> Iterator[Any]:
    """Yield mteb with our tasks in it; what it has to say about tasks in beta helps nobody here."""
    logger = logging.getLogger("mteb")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mteb

        import mteb_tasks  # noqa: F401 - registers our tasks

        logger.setLevel(logging.ERROR)
        try:
            yield mteb
        finally:
            logger.setLevel(level)


def _info(task: Any) -> TaskInfo:
    from mteb_tasks.catalogue import ANALYSES

    subsets = ["default"] if task.is_aggregate else task.hf_subsets
    cells = frozenset((split, subset) for split in task.eval_splits for subset in subsets)
    kind = ANALYSIS if isinstance(task, ANALYSES) else str(task.metadata.type)
    return TaskInfo(task.metadata.name, kind, cells)
