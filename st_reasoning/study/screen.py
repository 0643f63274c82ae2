"""A cheap look at backbones before any of them is trained in earnest: which to start from, and which to leave.

Each is converted and scored as it is, trained contrastively for some steps on generated problems and scored again,
probed, and compared with the first one by HRSA. All of it runs in memory; nothing is written.

How far that may be trusted has to be measured. On seven tiny models of graded quality, as in
tests/benchmarks/screen_agreement.py, the ranking after 12 steps was rather the reverse of the final one: Kendall -0.43
by the study's recipe and one seed, -0.62 by the recipe below and two; the gain over the untrained score had +0.52 and
+0.33. With seven models none of these is told from 0. In the study of the micro models, four backbones whose final
scores lie within two points, ranking and gain had -0.33 (p = 0.75) after 12 steps with two seeds, the likeness to the
first backbone +0.67 (p = 0.33). :func:`agreement` measures it for a study at hand.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_reasoning.backbone import convert, open_model, resolve
from st_reasoning.config import to_mapping, versions
from st_reasoning.errors import InputError
from st_reasoning.files import read_json
from st_reasoning.problems import gsm_problems, held_out_templates
from st_reasoning.study.labels import arm_label, backbone_label
from st_reasoning.study.recipe import StudyRecipe
from st_reasoning.training import DataSet, Generated, TrainingRecipe

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

INSTRUCTION = "Given a math word problem, retrieve its worked solution."
TRAINING = TrainingRecipe(
    data=(DataSet("gsm_symbolic", INSTRUCTION, generated=Generated("gsm_symbolic", 192)),),
    hard_negatives=1,
    batch_size=16,
    max_seq_length=128,
    warmup=0,
    schedule="constant",
    learning_rate=5e-5,
)
RULE = (
    "go: the 95 % interval of the difference from the first backbone, after the short training, lies above 0; "
    "no-go: it lies below 0; undecided: it holds 0"
)
DEPTH = 10  # of the ranking that is scored
K = 10  # neighbours


@dataclass(frozen=True)
class Screening:
    """How backbones are screened.

    Attributes:
        training: The contrastive recipe, of which the first ``steps`` are run.
        steps: Optimiser steps.
        seeds: Training seeds; every backbone has each. With one, intervals say nothing about another seed.
        per_template: Problems of each held-out template: to be found, probed and compared on.
        draw: Seed of their draw.
    """

    training: TrainingRecipe = TRAINING
    steps: int = 12
    seeds: tuple[int, ...] = (0,)
    per_template: int = 5
    draw: int = 3

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.seeds:
            raise InputError(f"screening: expected at least 1 step and 1 seed, got {self.steps} and {len(self.seeds)}")
        if self.per_template < 5:
            raise InputError(f"screening: per_template must be at least 5, for the probe, got {self.per_template}")


def screen(
    backbones: tuple[str, ...], settings: Screening, *, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Screen backbones; the first one is what the others are compared with.

    Args:
        backbones: Two or more, see :func:`st_reasoning.convert`.
        settings: How.
        say: Receives a line for each backbone.

    Returns:
        JSON values: ``backbones`` in the order of their scores after the short training, best first, each with a word;
        ``rule``, ``settings`` and ``versions``. Scores are in points of 0 to 100.

    Raises:
        InputError: for fewer than two backbones, or one that cannot be loaded.
    """
    if len(set(backbones)) < 2:
        raise InputError(f"screening needs two different backbones or more, got {len(set(backbones))}")
    for name in backbones:
        resolve(name)
    problems = gsm_problems(settings.per_template, seed=settings.draw, templates=held_out_templates())
    templates = [problem.template for problem in problems]
    found: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    for number, name in enumerate(dict.fromkeys(backbones), start=1):
        say(f"[{number}/{len(set(backbones))}] {name} ...")
        entry = _look(name, settings, [p.question for p in problems], [p.solution for p in problems], templates)
        first = first or entry
        entry["hrsa"] = None if entry is first else _compare(first["backbone"], name, problems, settings)
        entry |= judge(first["runs"], entry["runs"], templates, reference=entry is first)
        found.append(entry)
        say(f"[{number}/{len(set(backbones))}] {name}: {entry['short']:.1f}, {entry['word']}")
    found.sort(key=lambda entry: -entry["short"])
    for entry in found:
        del entry["runs"]
    return {
        "schema": 1,
        "backbones": found,
        "rule": RULE,
        "chance": round(100 * sum(gain(rank) for rank in range(len(problems))) / len(problems), 4),
        "settings": to_mapping(settings),
        "versions": versions(),
    }


def _look(
    name: str, settings: Screening, questions: list[str], solutions: list[str], templates: list[int]
) -> dict[str, Any]:
    """Return what a backbone scores as it is and after a short training, by problem, and what a probe reads from it."""
    recipe = replace(settings.training, max_steps=settings.steps, held_out=None, save_every=None)
    model = convert(name, **recipe.conversion())
    untrained = found_by(model, questions, solutions)
    probe = _probe(model, solutions, templates)
    runs = []
    for seed in settings.seeds:
        trained = copy.deepcopy(model)
        trainer = recipe.trainer(trained, seed=seed)
        trainer.train()
        runs.append(found_by(trained.eval(), questions, solutions))
    short = _points([value for run in runs for value in run])
    return {
        "backbone": name,
        "label": backbone_label(name),
        "untrained": _points(untrained),
        "short": short,
        "gain": round(short - _points(untrained), 4),
        "probe": round(probe, 4),
        "runs": runs,
    }


def found_by(model: SentenceTransformer, questions: list[str], solutions: list[str]) -> list[float]:
    """Return, for each question, the gain of its own solution among all: nDCG@10 with one right answer."""
    queries = model.encode_query(questions, convert_to_tensor=True, show_progress_bar=False)
    documents = model.encode_document(solutions, convert_to_tensor=True, show_progress_bar=False)
    similarities = model.similarity(queries, documents)
    own = similarities.diagonal()[:, None]
    # What ties with the right answer counts as before it: a model that maps all to one point finds nothing.
    ranks = (similarities >= own).sum(dim=1) - 1
    return [gain(int(rank)) for rank in ranks]


def gain(rank: int) -> float:
    """Return the gain of a right answer at a rank, from 0."""
    return 1 / math.log2(rank + 2) if rank < DEPTH else 0.0


def _probe(model: SentenceTransformer, texts: list[str], labels: list[int]) -> float:
    """Return the accuracy of a linear probe of the template on held-out texts, from the untrained embeddings."""
    from st_reasoning.hrsa.measures import linear_probe_transfer

    features = model.encode_document(texts, convert_to_tensor=True, show_progress_bar=False).cpu()
    return float(linear_probe_transfer(features, features, labels, seed=0).own)


def _compare(first: str, other: str, problems: list[Any], settings: Screening) -> dict[str, Any]:
    """Return HRSA at the last layer of two backbones as language models; None where a measure is not defined."""
    from st_reasoning.hrsa import panel

    a, b = (open_model(name, attention="causal") for name in (first, other))
    found = panel(
        a,
        b,
        [problem.solution for problem in problems],
        labels=[problem.template for problem in problems],
        names=("first", "other"),
        k=(K,),
        max_tokens=settings.training.max_seq_length,
        progress=False,
    )
    layer, guard = found["layers"][-1], found["sensitivity"][-1]

    def value(part: dict[str, Any] | None, key: str) -> tuple[float | None, list[float] | None]:
        return (None, None) if part is None else (part[key], part.get(f"{key}_interval"))

    parts = {
        "linear_cka": value(layer["linear_cka"], "debiased"),
        "linear_cka_without_sinks": value(guard["linear_cka_without_sinks"], "debiased"),
        "knn_overlap": value(layer["knn_overlap"][str(K)], "value"),
        "probe_transfer": value(layer["linear_probe"], "difference"),
    }
    return {name: {"value": number, "interval": interval} for name, (number, interval) in parts.items()}


def judge(
    first: list[list[float]], other: list[list[float]], templates: list[int], *, reference: bool
) -> dict[str, Any]:
    """Return the difference of two backbones in points, its interval, and the word for it, see :data:`RULE`.

    Problems of one template are no independent evidence: the units are templates, and seeds where there are several.

    Args:
        first: Gains of the first backbone, [seeds][problems].
        other: Those of the other one.
        templates: Of each problem.
        reference: Whether the other one is the first.
    """
    from st_reasoning.stats import crossed, paired_t

    if reference:
        return {"difference": 0.0, "interval": None, "word": "reference"}
    kinds = sorted(set(templates))
    differences = []
    for run_a, run_b in zip(first, other, strict=True):
        gained = [100 * (b - a) for a, b in zip(run_a, run_b, strict=True)]
        of_kind = {kind: [gain for gain, t in zip(gained, templates, strict=True) if t == kind] for kind in kinds}
        differences.append([sum(values) / len(values) for values in of_kind.values()])
    estimate = crossed(differences) if len(differences) > 1 else paired_t(differences[0])
    word = "go" if estimate.low > 0 else "no-go" if estimate.high < 0 else "undecided"
    interval = [round(estimate.low, 4), round(estimate.high, 4)]
    return {"difference": round(estimate.difference, 4), "interval": interval, "word": word}


def _points(values: list[float]) -> float:
    return round(100 * sum(values) / len(values), 4)


# How well it foretold what a study found.


def backbones_of(study: Path) -> dict[str, str]:
    """Return the backbones of a finished study, by label: where each one lies."""
    recipe = StudyRecipe.read(study / "recipe.yaml")
    found = {backbone_label(pair.base): pair.base for pair in recipe.pairs}
    for pair in recipe.pairs:
        named = pair.reasoning.backbone
        found[arm_label(pair, "reasoning")] = str(study / "backbones" / pair.name) if named is None else named
    return found


def final_scores(study: Path) -> dict[str, float]:
    """Return what each backbone's trained embedders scored in a study, over seeds and tasks, in points, by label.

    Raises:
        InputError: if the study has not ended.
    """
    found: dict[str, float] = {}
    for pair in read_json(study / "study.json")["pairs"]:
        for arm, label in pair["labels"].items():
            scores = [seed[arm] for task in pair["tasks"] for seed in task["seeds"] if seed[arm] is not None]
            if scores:
                found[label] = round(sum(scores) / len(scores), 4)
    return found


def agreement(screened: dict[str, Any], final: dict[str, float]) -> dict[str, Any]:
    """Return how the ranking of a screening agrees with final scores: Kendall's and Spearman's rank correlations.

    Args:
        screened: What :func:`screen` returned.
        final: By label.

    Returns:
        ``models``: how many are in both; ``orders``: for the score after the short training, its gain, the untrained
        score, the probe and the likeness to the first backbone, ``kendall`` and ``spearman`` with two-sided p-values of
        no association; None where it is not defined; and ``scores``, what was compared.

    Raises:
        InputError: if fewer than three backbones are in both.
    """
    from scipy import stats

    entries = [entry for entry in screened["backbones"] if entry["label"] in final]
    if len(entries) < 3:
        raise InputError(f"agreement needs three backbones or more that the study has scored too, got {len(entries)}")
    truth = [final[entry["label"]] for entry in entries]
    values: dict[str, list[float | None]] = {
        key: [entry[key] for entry in entries] for key in ("short", "gain", "untrained", "probe")
    }
    values["linear_cka"] = [entry["hrsa"]["linear_cka"]["value"] if entry["hrsa"] else 1.0 for entry in entries]
    orders: dict[str, Any] = {}
    for key, column in values.items():
        if None in column or len(set(column)) < 2 or len(set(truth)) < 2:
            orders[key] = None
            continue
        kendall, spearman = stats.kendalltau(column, truth), stats.spearmanr(column, truth)
        orders[key] = {
            "kendall": round(float(kendall.statistic), 4),
            "kendall_p": round(float(kendall.pvalue), 4),
            "spearman": round(float(spearman.statistic), 4),
            "spearman_p": round(float(spearman.pvalue), 4),
        }
    scores = [{"label": entry["label"], "short": entry["short"], "final": final[entry["label"]]} for entry in entries]
    return {"models": len(entries), "orders": orders, "scores": scores}


def describe(found: dict[str, Any]) -> str:
    """Return a screening as a table for a terminal, best first."""
    rows = [("", "backbone", "short", "difference", "95 % interval", "untrained", "probe", "CKA", "k-NN", "")]
    for place, entry in enumerate(found["backbones"], start=1):
        interval = entry["interval"]
        hrsa = entry["hrsa"] or {}
        rows.append(
            (
                str(place),
                entry["label"],
                f"{entry['short']:.1f}",
                f"{entry['difference']:+.1f}" if interval else "",
                f"[{interval[0]:+.1f}, {interval[1]:+.1f}]" if interval else "",
                f"{entry['untrained']:.1f}",
                f"{entry['probe']:.2f}",
                *(_value(hrsa.get(name, {}).get("value")) for name in ("linear_cka", "knn_overlap")),
                entry["word"],
            )
        )
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip() for row in rows]
    seeds = len(found["settings"]["seeds"])
    lines += ["", f"{RULE[0].upper()}{RULE[1:]}. By chance a model scores {found['chance']:.1f}."]
    if seeds == 1:
        lines.append("One seed: the interval is over kinds of problems alone, and another seed may move every score.")
    if "agreement" in found:
        said = found["agreement"]
        lines.append(f"Against the final scores of {said['models']} models in {found['against']}:")
        for key, order in said["orders"].items():
            shown = (
                "not defined"
                if order is None
                else (
                    f"Kendall {order['kendall']:+.2f} (p = {order['kendall_p']:.2f}), "
                    f"Spearman {order['spearman']:+.2f} (p = {order['spearman_p']:.2f})"
                )
            )
            lines.append(f"  {key}: {shown}")
    return "\n".join(lines)


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
