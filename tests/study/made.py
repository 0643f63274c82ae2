"""Studies that are done, of any size, without training: real panels of tiny models, made-up scores."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from st_reasoning.files import write_json
from st_reasoning.results.tasks import benchmark_infos
from st_reasoning.study import Pair, Reasoning, StudyRecipe
from st_reasoning.study.labels import ARMS, arm_label
from st_reasoning.study.plan import Outcome
from st_reasoning.study.tasks import names_by_benchmark
from st_reasoning.training import DataSet, Generated, TrainingRecipe
from tests.models import make_llama
from tests.results.folders import write_run

TRAINING = TrainingRecipe(data=(DataSet("gsm", "Find the solution.", generated=Generated("gsm_symbolic", 8)),))
NOISES = (0.01, 0.05, 0.2)
TEXTS = [
    f"First add the {n} apples to the {n + 3} pears: {n} + {n + 3} = {2 * n + 3}. Then take {k} away."
    for n in range(6)
    for k in range(3)
]


def make_panels(folder: Path) -> list[dict[str, Any]]:
    """Return panels of a tiny llama with copies that drifted further and further from it."""
    from transformers import AutoModelForCausalLM

    from st_reasoning.backbone import open_model
    from st_reasoning.hrsa import panel

    base = make_llama(folder / "base")
    found = []
    for place, noise in enumerate(NOISES):
        other = folder / f"noise-{place}"
        shutil.copytree(base, other)
        model = AutoModelForCausalLM.from_pretrained(base)
        torch.manual_seed(place)
        with torch.no_grad():
            for weights in model.parameters():
                weights += noise * torch.randn_like(weights)
        model.save_pretrained(other)
        a, b = (open_model(str(path), attention="causal") for path in (base, other))
        labels = [str(len(text) % 2) for text in TEXTS]
        found.append(panel(a, b, TEXTS, labels=labels, k=[2, 5, 10], names=ARMS, progress=False))
    return found


def made(
    folder: Path,
    differences: dict[str, list[float]],
    panels: list[dict[str, Any]],
    *,
    tasks: tuple[str, ...] = ("Alpha", "Beta"),
    benchmarks: tuple[str, ...] = (),
    methods: tuple[str, ...] = ("SFT", "RLVR"),
    names: dict[str, tuple[str, str]] | None = None,
) -> tuple[StudyRecipe, Path, dict[str, Outcome]]:
    """Write a study's folder and return its recipe, folder and outcomes.

    Args:
        folder: Where to write.
        differences: By pair the difference in points for each seed, the same on all tasks.
        panels: Dealt out to the pairs: the first pair has the first one as backbones and the next one as embedders.
        tasks: Names, known to mteb or not.
        benchmarks: Names that mteb knows.
        methods: Of the pairs in turn.
        names: By pair the hub names of base and reasoning model; by default one base for all.
    """
    seeds = tuple(range(len(next(iter(differences.values())))))
    pairs = []
    for place, name in enumerate(differences):
        base, reasoning = (names or {}).get(name, ("org/base", f"org/{name}-reasoning"))
        pairs.append(Pair(name, base, Reasoning(backbone=reasoning), method=methods[place % len(methods)]))
    recipe = StudyRecipe(tuple(pairs), TRAINING, tasks=tasks, benchmarks=benchmarks, seeds=seeds)
    cells: dict[str, Any] = dict.fromkeys(tasks)
    for benchmark, members in names_by_benchmark(benchmarks).items():
        cells |= {task: benchmark_infos(benchmark)[benchmark][task].cells for task in members}
    out = folder / "out"
    outcomes: dict[str, Outcome] = {}
    for place, pair in enumerate(pairs):
        outcomes[f"audit/{pair.name}"] = outcome(f"audit/{pair.name}", findings=[], waived=[])
        for arm in ARMS:
            for part in ("untrained", *(f"seed-{seed}" for seed in seeds)):
                label, seed = arm_label(pair, arm), 0 if part == "untrained" else int(part.removeprefix("seed-"))
                gain = differences[pair.name][seed] if arm == "reasoning" and part != "untrained" else 0.0
                start = 40.0 if part == "untrained" else 50.0 + 0.25 * seed
                scores = {task: round((start + gain + number) / 100, 6) for number, task in enumerate(cells)}
                by_cell = {
                    task: score if cells[task] is None else dict.fromkeys(cells[task], score)
                    for task, score in scores.items()
                }
                write_run(out / "mteb", f"local/{part}", by_cell, source=str(out / "embedders" / label / part))
                name = f"evaluate/{label}/{part}"
                outcomes[name] = outcome(name, **scores)
        for offset, part in enumerate(("backbones", *(f"seed-{seed}" for seed in seeds))):
            write_json(out / "hrsa" / pair.name / part / "hrsa.json", panels[(place + offset) % len(panels)])
            outcomes[f"hrsa/{pair.name}/{part}"] = outcome(f"hrsa/{pair.name}/{part}", texts=18, tokens=99)
    return recipe, out, outcomes


def write_curve(out: Path, outcomes: dict[str, Outcome], pair: str, seed: int, points: list[dict[str, float]]) -> None:
    """Add a curve over training steps to a study."""
    name = f"curve/{pair}/seed-{seed}"
    write_json(out / f"{name}.json", {"schema": 1, "k": 2, "points": points})
    outcomes[name] = outcome(name, points=points)


def outcome(name: str, **facts: Any) -> Outcome:
    return Outcome(name, "done", 1.5, facts)


def failed(
    outcomes: dict[str, Outcome], *names: str, reason: str = "RuntimeError: out of memory"
) -> dict[str, Outcome]:
    """Return the outcomes as they are where these steps failed."""
    return {
        name: Outcome(name, "failed", 0.5, {}, reason) if name in names else found for name, found in outcomes.items()
    }
