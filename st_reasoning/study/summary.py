"""What the steps of a study found, gathered into the content of ``study.json``."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from st_reasoning.backbone import resolve
from st_reasoning.config import to_mapping, versions
from st_reasoning.study.plan import Outcome
from st_reasoning.study.recipe import Pair, StudyRecipe

ARMS = ("base", "reasoning")


def summarise(recipe: StudyRecipe, output: Path, outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """Gather what the steps found into the content of ``study.json``; scores in points of 0 to 100."""

    def score(pair: Pair, arm: str, run: str, task: str) -> float:
        label = arm_label(pair, arm)
        return round(100 * float(outcomes[f"evaluate/{label}/{run}"].facts[task]), 4)

    def arms(pair: Pair, run: str, task: str) -> dict[str, float]:
        base, reasoning = (score(pair, arm, run, task) for arm in ARMS)
        return {"base": base, "reasoning": reasoning, "difference": round(reasoning - base, 4)}

    pairs = []
    for pair in recipe.pairs:
        tasks = []
        for task in recipe.tasks:
            seeds = [{"seed": seed, **arms(pair, f"seed-{seed}", task)} for seed in recipe.seeds]
            mean = {key: round(statistics.fmean(s[key] for s in seeds), 4) for key in (*ARMS, "difference")}
            spread = round(statistics.stdev(s["difference"] for s in seeds), 4) if len(seeds) > 1 else None
            tasks.append(
                {
                    "task": task,
                    "untrained": arms(pair, "untrained", task),
                    "trained": mean,
                    "difference_std": spread,
                    "seeds": seeds,
                }
            )
        pairs.append(
            {
                "name": pair.name,
                "base": pair.base,
                "reasoning": pair.reasoning.backbone or f"{pair.name} (SFT of the base, made here)",
                "audit": outcomes[f"audit/{pair.name}"].facts,
                "tasks": tasks,
                "hrsa": {
                    "backbones": f"hrsa/{pair.name}/backbones/hrsa.json",
                    "embedders": [f"hrsa/{pair.name}/seed-{seed}/hrsa.json" for seed in recipe.seeds],
                },
            }
        )
    return {
        "schema": 1,
        "pairs": pairs,
        "steps": [{"name": o.name, "seconds": o.seconds, **_plain(o)} for o in outcomes.values()],
        "recipe": to_mapping(recipe),
        "versions": versions(),
    }


def arm_label(pair: Pair, arm: str) -> str:
    """Return what an arm's backbone is called in step names and folders."""
    if arm == "reasoning" and pair.reasoning.backbone is None:
        return pair.name
    return resolve(pair.base if arm == "base" else str(pair.reasoning.backbone)).label


def _plain(outcome: Outcome) -> dict[str, Any]:
    """Return what a reader of the study wants to know of one step, short."""
    wanted = ("held_out_loss", "losses", "data", "examples_per_second", "tokens")
    return {key: outcome.facts[key] for key in wanted if key in outcome.facts}
