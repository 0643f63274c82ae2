"""The mteb tasks of a study: those it names, and those of the benchmarks it names."""

from __future__ import annotations

from typing import Any

from st_reasoning.errors import InputError, unknown_name


def find_tasks(tasks: tuple[str, ...], benchmarks: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return mteb's task objects by name: those of the benchmarks, in their form there, then the others.

    A benchmark may ask its tasks in its own way, with other instructions or in some languages only. A task that is
    named by itself too is asked in the benchmark's way: mteb keeps one result of a task for a model.

    Raises:
        InputError: naming an unknown task or benchmark and close matches, or a task that two benchmarks ask in
            different ways.
    """
    found: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for benchmark in benchmarks:
        for task in _benchmark(benchmark).tasks:
            name = task.metadata.name
            if name in found and _manner(found[name]) != _manner(task):
                raise InputError(
                    f"{owner[name]} and {benchmark} ask the task {name} in different ways, and mteb keeps one result "
                    "of it for a model; give each benchmark a study of its own"
                )
            found.setdefault(name, task)
            owner.setdefault(name, benchmark)
    return {**found, **{task.metadata.name: task for task in _named(tuple(t for t in tasks if t not in found))}}


def names_by_benchmark(benchmarks: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the names of the tasks of each benchmark."""
    return {name: tuple(task.metadata.name for task in _benchmark(name).tasks) for name in benchmarks}


def identity(task: Any) -> list[Any]:
    """Return, as JSON values, what decides the scores of a task beside the model."""
    return [task.metadata.name, task.metadata.dataset.get("revision"), *_manner(task)]


def _manner(task: Any) -> list[Any]:
    """Return how a task is asked: instruction, parts, splits."""
    prompt = task.metadata.prompt
    return [dict(prompt) if isinstance(prompt, dict) else prompt, sorted(task.hf_subsets), sorted(task.eval_splits)]


def _benchmark(name: str) -> Any:
    import mteb

    import mteb_tasks  # noqa: F401 - registers our benchmarks

    try:
        return mteb.get_benchmark(name)
    except KeyError:
        raise unknown_name("benchmark", name, {each.name for each in mteb.get_benchmarks()}) from None


def _named(tasks: tuple[str, ...]) -> list[Any]:
    import mteb

    import mteb_tasks  # noqa: F401 - registers our tasks

    if not tasks:
        return []  # mteb takes an empty list for all tasks
    try:
        return list(mteb.get_tasks(tasks=list(tasks)))
    except KeyError:
        # Instantiating every task of mteb takes seconds; only an error pays for them.
        known = {task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)}
        for task in tasks:
            if task not in known:
                raise unknown_name("task", task, known) from None
        raise
