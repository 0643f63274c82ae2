"""Benchmarks of this package, built when somebody first asks mteb for a benchmark and not before.

Building one looks up all its tasks: 160 of them for the paper's, which would double the time of `import mteb`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from st_reasoning.files import read_json

PAPER_PROMPTS = Path(__file__).with_name("paper_prompts.json")
PAPER_BENCHMARKS = ("MTEB(Multilingual, v2)", "MTEB(Code, v1)", "BRIGHT(v1.1)")


def add_to(registry: dict[str, Any]) -> dict[str, Any]:
    """Add the benchmarks that are not there yet to mteb's table of them, and return it.

    A benchmark that this mteb cannot build stays out with a warning, for the others are still of use.
    """
    for name, build in BUILDERS.items():
        if name in registry:
            continue
        try:
            registry[name] = build(registry)
        except (AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
            warnings.warn(
                f"st-reasoning cannot build its benchmark {name} with this mteb ({type(error).__name__}: {error})",
                RuntimeWarning,
                stacklevel=2,
            )
    return registry


def _generated(registry: Mapping[str, Any]) -> Any:
    from mteb_tasks.catalogue import GENERATED

    return _benchmark(
        name="ReasoningEmbedding(generated, v1)",
        tasks=[task() for task in GENERATED],
        display_name="Reasoning (generated)",
        description=(
            "Reasoning tasks drawn on the spot from pinned generators, so that they need no network and stand in no "
            "training set under their names. Each task's description says what word overlap alone scores."
        ),
    )


def _hub(registry: Mapping[str, Any]) -> Any:
    from mteb_tasks.catalogue import HUB

    return _benchmark(
        name="ReasoningEmbedding(eng, v1)",
        tasks=[task() for task in HUB],
        display_name="Reasoning (English)",
        description=(
            "Retrieval, classification and clustering on GSM8K, MATH-500, NuminaMath (cn_k12) and MMLU-Pro, from "
            "pinned revisions on the Hugging Face hub."
        ),
    )


def _paper(registry: Mapping[str, Any]) -> Any:
    prompts = paper_prompts()
    tasks = {task.metadata.name: task for name in PAPER_BENCHMARKS for task in registry[name].tasks}
    return _benchmark(
        name="ReasoningStudy(paper)",
        tasks=[_with_prompt(tasks[name], prompts[name]) for name in tasks],
        display_name="Reasoning study (paper)",
        reference="https://arxiv.org/abs/2601.21192",
        description=(
            f"The tasks of {', '.join(PAPER_BENCHMARKS)}, with the instructions of arXiv 2601.21192 in place of "
            "mteb's own. They reach embedders that read the task's prompt, as this project's do, and queries only. "
            "Two things differ from the paper's public code: BRIGHT's tasks each have the instruction meant for them, "
            "where the code scored all of them under one, and ArguAna has a sentence, where the code formatted a "
            "dictionary. BRIGHT's long tasks were not in the paper; they have the instructions of the short ones."
        ),
        citation=r"""
@misc{chan2026reasoning,
  archiveprefix = {arXiv},
  author = {Wun Yu Chan and Shaojin Chen and Huihao Jing and Kwun Hang Lau and Elton Chun-Chai Li and Zihao Wang and Haoran Li and Yangqiu Song},
  eprint = {2601.21192},
  title = {Do Reasoning Models Enhance Embedding Models?},
  year = {2026},
}
""",  # noqa: E501
    )


# By name, in the order in which mteb lists them.
BUILDERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "ReasoningEmbedding(generated, v1)": _generated,
    "ReasoningEmbedding(eng, v1)": _hub,
    "ReasoningStudy(paper)": _paper,
}


@lru_cache
def paper_prompts() -> dict[str, str]:
    """Return the paper's instruction for each task of its benchmarks, without the template around it."""
    by_instruction = read_json(PAPER_PROMPTS)["tasks_by_instruction"]
    return {task: instruction for instruction, tasks in by_instruction.items() for task in tasks}


def _benchmark(*, tasks: list[Any], **fields: Any) -> Any:
    from mteb import Benchmark
    from mteb.get_tasks import MTEBTasks

    return Benchmark(tasks=MTEBTasks(tasks), contacts=["st-reasoning"], **fields)


def _with_prompt(task: Any, instruction: str) -> Any:
    """Return a copy of ``task`` with another instruction; mteb's own benchmarks hold the original.

    The instruction stands in a class: metadata of an instance are gone when mteb unloads the data after an evaluation,
    and the next model would be asked otherwise.
    """
    kind = type(task)
    metadata = task.metadata.model_copy(update={"prompt": {"query": instruction}})
    changed = copy.copy(task)
    changed.__class__ = type(kind.__name__, (kind,), {"metadata": metadata, "__module__": __name__})
    return changed
