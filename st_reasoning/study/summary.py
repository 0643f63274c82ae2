"""What the steps of a study found, gathered into the content of ``study.json``; its keys are in SCHEMA.md."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from st_reasoning.config import to_mapping, versions
from st_reasoning.results.words import ASSUMED, row_mapping
from st_reasoning.results.words import to_mapping as comparison_mapping
from st_reasoning.study.answers import pair_answer, study_answer, undecided
from st_reasoning.study.labels import ARMS, arm_label, embedders_of
from st_reasoning.study.mechanism import hierarchy, mechanism
from st_reasoning.study.paper_form import cells
from st_reasoning.study.plan import Outcome, ended_well
from st_reasoning.study.prediction import predict
from st_reasoning.study.recipe import Pair, StudyRecipe
from st_reasoning.study.scores import Scores, compare_pairs
from st_reasoning.study.tasks import names_by_benchmark

SCHEMA = 2
Outcomes = Mapping[str, Outcome]
# Of what a step returned, what a reader wants to know of it.
_FACTS = ("held_out_loss", "losses", "data", "tokens")


def summarise(recipe: StudyRecipe, output: Path, outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """Gather what the steps found; scores in points of 0 to 100.

    What a step that failed would have given is ``None``, and ``missing`` says which step and why. The same files give
    the same content, but for ``runtime``.
    """
    scores = compare_pairs(recipe, output, outcomes)
    tasks = list(dict.fromkeys((*_benchmark_tasks(recipe), *recipe.tasks)))
    pairs = [_pair(pair, recipe, output, outcomes, scores, tasks) for pair in recipe.pairs]
    prediction = predict(pairs, alpha=scores.settings.alpha)
    study = {
        "schema": SCHEMA,
        "answer": study_answer(scores, {pair["name"]: pair["answer"] for pair in pairs}),
        "margin": scores.settings.margin,
        "level": scores.settings.level,
        "assumed": ASSUMED,
        "pairs": pairs,
        "overall": None if scores.overall is None else row_mapping(scores.overall),
        "methods": [row_mapping(row) for row in scores.methods],
        "hierarchy": hierarchy(recipe, pairs),
        "prediction": prediction,
        "undecided": undecided(scores, pairs, prediction),
        "missing": [*_missing(outcomes), *_lost(recipe, outcomes, scores)],
        "steps": [
            {
                "name": outcome.name,
                "state": "done" if outcome.ok else outcome.state,
                **{key: outcome.facts[key] for key in _FACTS if key in outcome.facts},
            }
            for outcome in outcomes.values()
        ],
        "recipe": to_mapping(recipe),
        "versions": versions(),
        "runtime": {"seconds": {outcome.name: outcome.seconds for outcome in outcomes.values()}},
    }
    found: dict[str, Any] = _relative(study, output)
    return found


def _benchmark_tasks(recipe: StudyRecipe) -> list[str]:
    return [task for names in names_by_benchmark(recipe.benchmarks).values() for task in names]


def _pair(
    pair: Pair, recipe: StudyRecipe, output: Path, outcomes: Outcomes, scores: Scores, tasks: list[str]
) -> dict[str, Any]:
    """Return what is known of one pair."""
    comparison = scores.comparisons.get(pair.name)
    audit = outcomes.get(f"audit/{pair.name}")
    by_task = [_task(pair, task, recipe.seeds, outcomes, scores) for task in tasks]
    found = mechanism(pair, recipe, output, outcomes)
    return {
        "name": pair.name,
        "method": pair.method,
        "base": pair.base,
        "reasoning": pair.reasoning.backbone or f"{pair.name} ({pair.method} of the base, made here)",
        "labels": {arm: arm_label(pair, arm) for arm in ARMS},
        "answer": pair_answer(comparison, scores.reasons.get(pair.name, ""), by_task),
        "difference": None if comparison is None else comparison.headline.difference,
        "audit": audit.facts if audit is not None and audit.facts else None,
        "tasks": by_task,
        "comparison": None if comparison is None else comparison_mapping(comparison),
        "columns": cells(pair, scores.columns.get(pair.name, {})),
        "mechanism": found,
        "hrsa": {
            "backbones": None if found["backbones"] is None else found["backbones"]["file"],
            "embedders": [each["file"] for each in found["embedders"]],
        },
    }


def _task(pair: Pair, task: str, seeds: tuple[int, ...], outcomes: Outcomes, scores: Scores) -> dict[str, Any]:
    """Return the scores of one pair on one task, with the file of each; means are over seeds that both arms have."""
    by_seed = [{"seed": seed, **_arms(pair, f"seed-{seed}", task, outcomes, scores)} for seed in seeds]
    both = [each for each in by_seed if each["difference"] is not None]
    differences = [each["difference"] for each in both]
    return {
        "task": task,
        "untrained": _arms(pair, "untrained", task, outcomes, scores),
        "trained": {
            key: round(statistics.fmean(each[key] for each in both), 4) if both else None
            for key in (*ARMS, "difference")
        },
        "difference_std": round(statistics.stdev(differences), 4) if len(both) > 1 else None,
        "seeds": by_seed,
    }


def _arms(pair: Pair, part: str, task: str, outcomes: Outcomes, scores: Scores) -> dict[str, Any]:
    """Return the scores of both arms in points, their difference, and the file of each."""
    found: dict[str, Any] = {}
    files: dict[str, str | None] = {}
    for arm in ARMS:
        label = arm_label(pair, arm)
        outcome, run = outcomes.get(f"evaluate/{label}/{part}"), scores.runs.get((label, part))
        score = None if outcome is None else outcome.facts.get(task)
        file = None if scores.results is None or run is None else scores.results.scores[run].get(task)
        found[arm] = None if score is None else round(100 * float(score), 4)
        files[arm] = None if file is None or score is None else str(file.path)
    known = None not in (found["base"], found["reasoning"])
    found["difference"] = round(found["reasoning"] - found["base"], 4) if known else None
    return {**found, "files": files}


def _missing(outcomes: Outcomes) -> list[dict[str, str]]:
    """Return the steps that did not end well, why, and what the study lacks for it."""
    return [
        {"step": outcome.name, "state": outcome.state, "reason": outcome.reason, "lacks": lacks(outcome.name)}
        for outcome in outcomes.values()
        if not outcome.ok
    ]


def _lost(recipe: StudyRecipe, outcomes: Outcomes, scores: Scores) -> list[dict[str, str]]:
    """Return the evaluations that ended well and of which mteb's results hold nothing for the embedder that is there.

    Without a word, their seeds would be in no statistic.
    """
    found = []
    for label, part in embedders_of(recipe):
        step = f"evaluate/{label}/{part}"
        if ended_well(step, outcomes) and (label, part) not in scores.runs:
            reason = (
                "the results hold no scores of the embedder as it lies there: it was written anew since, or they were "
                f"taken away; remove steps/{step}.json to have it evaluated again"
            )
            found.append({"step": step, "state": "failed", "reason": reason, "lacks": lacks(step)})
    return found


def lacks(step: str) -> str:
    """Return what a study lacks without a step, in words."""
    kind, *rest = step.split("/")
    if not rest:
        return {"texts": "the texts that models are compared on"}.get(kind, kind)
    name, part = rest[0], "/".join(rest[1:]).replace("seed-", "seed ")
    said = {
        "import": f"the backbone {name} as a folder",
        "sft": f"the reasoning model of {name}",
        "rlvr": f"the reasoning model of {name}",
        "audit": f"the audit of {name}",
        "convert": f"the embedder of {name} without training",
        "train": f"the embedder of {name}, {part}",
        "evaluate": f"the scores of {name}, {part}",
        "curve": f"the curve of {name} over training, {part}",
        "hrsa": f"the comparison of the backbones of {name}"
        if part == "backbones"
        else f"the comparison of the embedders of {name}, {part}",
    }
    return said.get(kind, step)


def _relative(value: Any, output: Path) -> Any:
    """Return a JSON value in which paths within the study's folder begin there, wherever the folder lies."""
    if isinstance(value, dict):
        return {key: _relative(item, output) for key, item in value.items()}
    if isinstance(value, list):
        return [_relative(item, output) for item in value]
    if isinstance(value, str):
        for folder in dict.fromkeys((str(output.resolve()), str(output))):
            value = value.replace(f"{folder}/", "") if folder not in (".", "/") else value
    return value
