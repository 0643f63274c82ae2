"""The one place that touches mteb's internals: its tables of tasks, benchmarks and models, and a few functions.

mteb has no entry points. What is used here was read in mteb 2.26.24; where a later version has moved
something, the part concerned stays out, one warning says so, and mteb goes on as it was.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from st_reasoning import __version__
from st_reasoning.files import new_file

# What an mteb that has moved on can answer with; pydantic's ValidationError is a ValueError.
MISFIT = (ImportError, AttributeError, TypeError, KeyError, ValueError)


def plug_in(mteb: Any) -> None:
    """Make ``mteb`` know our tasks, benchmarks and models, and load local ones; calling it again changes nothing.

    Args:
        mteb: The imported package. It is an argument so that no importer can forget to import it first.
    """
    misfits = []
    for part, fit in PARTS.items():
        try:
            fit(mteb)
        except MISFIT as error:
            misfits.append(f"{part} ({type(error).__name__}: {error})")
    if misfits:
        theirs = getattr(mteb, "__version__", "of unknown version")
        warnings.warn(
            f"st-reasoning {__version__} does not fit mteb {theirs} and leaves out: {'; '.join(misfits)}. "
            "mteb itself is not affected.",
            RuntimeWarning,
            stacklevel=2,
        )


def register_tasks(tasks: Iterable[type[Any]], *, by_name_only: bool = False) -> None:
    """Add task classes to every table by which mteb finds tasks.

    Args:
        tasks: The classes.
        by_name_only: Whether they are to be found by name alone, not among the tasks of a type or a language.

    Raises:
        ValueError: if mteb has another task of the same name.
    """
    tables = _module("mteb.get_tasks")
    by_name, listed, similar = tables._TASKS_REGISTRY, tables.TASK_LIST, tables._SIMILAR_TASKS
    for task in tasks:
        metadata = task.metadata
        known = by_name.get(metadata.name)
        if known is task:
            continue
        if known is not None:
            raise ValueError(f"mteb has a task {metadata.name} of its own, in {known.__module__}")
        by_name[metadata.name] = task
        if by_name_only:
            continue
        listed = (*listed, task)
        for related in (*(metadata.adapted_from or ()), *filter(None, [metadata.superseded_by])):
            similar.setdefault(related, []).append(metadata.name)
    tables.TASK_LIST = listed


def _module(name: str) -> Any:
    """Return a module of mteb by its full name; functions of the same name hide some as attributes."""
    importlib.import_module(name)
    return sys.modules[name]


def _fit_tasks(mteb: Any) -> None:
    from mteb_tasks.catalogue import ANALYSES, GENERATED, HUB

    register_tasks((*GENERATED, *HUB))
    register_tasks(ANALYSES, by_name_only=True)


def _fit_benchmarks(mteb: Any) -> None:
    """Add our benchmarks when mteb builds its own table of them, which `import mteb` does not."""

    def with_ours(original: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        from mteb_tasks.benchmarks import add_to

        return add_to(original())

    _replace(_module("mteb.benchmarks.get_benchmark"), "_build_registry", with_ours)


def _fit_models(mteb: Any) -> None:
    """Add what is known of published models, beside and never in place of what mteb knows."""
    from mteb_tasks.models import published

    registered = _module("mteb.models.model_implementations").MODEL_REGISTRY
    for meta in published():
        registered.setdefault(meta.name, meta)


def _fit_local_models(mteb: Any) -> None:
    """Teach mteb folders, models in memory, and to write down the instruction beside the scores."""
    from mteb_tasks import local_models
    from mteb_tasks.models import at_commit

    meta, evaluation = _module("mteb.models.model_meta").ModelMeta, _module("mteb.evaluate")
    look_up = _module("mteb.models.get_model_meta")
    registered, renamed = look_up.MODEL_REGISTRY, look_up._MODEL_RENAMES
    # All are there, or none is replaced.
    _ = look_up.get_model_meta, meta.from_sentence_transformer_model, mteb.ResultCache.save_to_cache
    _ = evaluation._check_cache, mteb.ResultCache.get_task_result_path, mteb.TaskResult.to_disk

    def from_folder(original: Callable[..., Any], model_name: str, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(original).bind(model_name, *args, **kwargs).arguments
        revision, ours = given.get("revision"), None
        if revision is not None and model_name in registered:
            ours = at_commit(registered[model_name], revision)
        if ours is not None:
            return ours
        # A name that mteb knows stays what it is, even where a folder happens to be called so.
        known = model_name in registered or model_name in renamed
        folder = None if known else local_models.folder_of(model_name)
        if folder is None:
            return original(model_name, *args, **kwargs)
        return local_models.folder_meta(folder, revision=revision, experiment_kwargs=given.get("experiment_kwargs"))

    def in_memory(original: Callable[..., Any], cls: type[Any], model: Any, *args: Any, **kwargs: Any) -> Any:
        return local_models.name_by_content(original(cls, model, *args, **kwargs), model)

    def with_prompts(
        original: Callable[..., Any], cache: Any, result: Any, model: Any, *rest: Any, **kwargs: Any
    ) -> Any:
        if used := local_models.prompts_used(model, result.task_name):
            kwargs["encode_kwargs"] = {**(kwargs.get("encode_kwargs") or {}), "prompt": used}
        return original(cache, result, model, *rest, **kwargs)

    def of_one_prompt(
        original: Callable[..., Any], task: Any, model: Any, cache: Any, *rest: Any, **kwargs: Any
    ) -> Any:
        found = original(task, model, cache, *rest, **kwargs)
        if cache is not None and found[0] is not None:
            local_models.refuse_other_prompt(task.metadata, model, cache)
        return found

    def at_once(original: Callable[..., Any], result: Any, path: Any) -> None:
        # mteb opens the file and then writes: a run that is killed there leaves one that no later run can read.
        with new_file(Path(path)) as scratch:
            original(result, scratch)

    _replace(look_up, "get_model_meta", from_folder)
    mteb.get_model_meta = look_up.get_model_meta
    _replace(meta, "from_sentence_transformer_model", in_memory)
    _replace(mteb.ResultCache, "save_to_cache", with_prompts)
    _replace(evaluation, "_check_cache", of_one_prompt)
    _replace(mteb.TaskResult, "to_disk", at_once)


PARTS: dict[str, Callable[[Any], None]] = {
    "tasks": _fit_tasks,
    "benchmarks": _fit_benchmarks,
    "models": _fit_models,
    "local models": _fit_local_models,
}


def _replace(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Put ``replacement``, which is given the original first, in the place of a function or method; once."""
    found = inspect.getattr_static(owner, name)
    original = found.__func__ if isinstance(found, classmethod) else found
    if hasattr(original, "_replaced_by_st_reasoning"):
        return

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    call._replaced_by_st_reasoning = True  # type: ignore[attr-defined]
    setattr(owner, name, classmethod(call) if isinstance(found, classmethod) else call)
