"""Examples per second of contrastive training: ``python tests/benchmarks/contrastive_speed.py [BACKBONE] [LAYERS]``.

BACKBONE is SmolLM2-135M (by default the file in its package), cut to 2 layers; the batch is 256 gsm_symbolic questions
with their solutions. Three losses take turns in one run, forward and backward: CachedMultipleNegativesRankingLoss as it
is, the same with its best ``mini_batch_num_tokens``, and PackedInfoNCE. Prints medians, ratios (bars: 1.5 and 1.0),
and how far losses and gradients are apart (bar: 1e-5). Also the same by processor time, which other work on the machine
moves less.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from transformers.utils import logging

from st_reasoning.backbone import convert
from st_reasoning.problems import gsm_problems, gsm_templates
from st_reasoning.training.loss import PackedInfoNCE
from tests.models import SMOLLM2

INSTRUCTION = "Given a math word problem, retrieve its worked solution."
LIBRARY_BUDGETS = (256, 2048)


def cut_embedder(backbone: str, layers: int) -> SentenceTransformer:
    """Convert a backbone and keep its first layers."""
    model = convert(backbone, instruction=INSTRUCTION)
    transformer: Any = model[0].model
    transformer.layers = transformer.layers[:layers]
    transformer.config.num_hidden_layers = layers
    return model


def gsm_batch(model: SentenceTransformer, size: int) -> list[dict[str, Any]]:
    """Tokenise ``size`` questions, with the model's query prompt, and their solutions."""
    templates = set(gsm_templates())
    problems = gsm_problems(-(-size // len(templates)), seed=0, templates=templates)[:size]
    questions = model.preprocess([p.question for p in problems], prompt=model.prompts["query"])
    return [dict(questions), dict(model.preprocess([p.solution for p in problems]))]


def run(model: SentenceTransformer, loss: Any, columns: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Return the seconds of one forward and backward pass by the clock and of the processor, and the loss."""
    model.zero_grad()
    clock, processor = time.perf_counter(), time.process_time()
    value = loss([dict(column) for column in columns], None)
    value.backward()
    return time.perf_counter() - clock, time.process_time() - processor, float(value.detach())


def main(backbone: str = SMOLLM2, layers: str = "2", rounds: str = "3") -> None:
    """Measure and print."""
    logging.disable_progress_bar()
    model = cut_embedder(backbone, int(layers))
    columns = gsm_batch(model, 256)
    real = [int(column["attention_mask"].sum()) for column in columns]
    print(f"{int(layers)} layers, 256 questions ({real[0]} tokens) and solutions ({real[1]} tokens)")
    losses: dict[str, Any] = {"library": CachedMultipleNegativesRankingLoss(model, scale=50)}
    for budget in LIBRARY_BUDGETS:
        losses[f"library {budget}"] = CachedMultipleNegativesRankingLoss(model, scale=50, mini_batch_num_tokens=budget)
    losses["ours"] = PackedInfoNCE(model)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in losses}
    values: dict[str, float] = {}
    gradients: dict[str, torch.Tensor] = {}
    run(model, losses["ours"], gsm_batch(model, 16))  # warms up
    for turn in range(int(rounds)):
        for name, loss in losses.items():
            *taken, values[name] = run(model, loss, columns)
            times[name].append((taken[0], taken[1]))
            gradients[name] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            print(f"round {turn + 1}, {name}: {taken[0]:.1f} s, processor {taken[1]:.1f} s", file=sys.stderr)
    for name in losses:
        gap = float((gradients[name] - gradients["library"]).norm() / gradients["library"].norm())
        apart = abs(values[name] / values["library"] - 1)
        print(f"{name:>12}: loss {apart:.1e} and gradients {gap:.1e} from the library's")
    for k, kind in enumerate(("second", "processor second")):
        medians = {name: statistics.median(pair[k] for pair in pairs) for name, pairs in times.items()}
        best = min(medians[f"library {budget}"] for budget in LIBRARY_BUDGETS)
        print(f"examples per {kind}:", ", ".join(f"{name} {256 / median:.2f}" for name, median in medians.items()))
        print(f"  ours over the library's defaults: {medians['library'] / medians['ours']:.2f}")
        print(f"  ours over the library's best mini_batch_num_tokens: {best / medians['ours']:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
