"""HRSA against the published procedure: `python tests/benchmarks/hrsa_speed.py FOLDER [SENTENCES]` (a causal LM).

With `--width 2048 --layers 4` only the forward passes and `fast` are timed, of a model of that shape with random
weights: passes cost as the square of the width, most measures as the width, and Procrustes, by its SVDs, as its cube.

Compares the model with a copy that has 5 % of noise on its weights. The published procedure is the one that
HKUST-KnowComp/Reasoning-Embedding describes: for each measure both models are loaded and run, all states are kept, CKA
of all layer pairs by d x d products, full k-NN, Procrustes by SVD. All sides run in this process, one after another;
prints seconds, ratios, and how far the estimates are from the exact values. Beside the seconds of the clock stand those
of the processor, over all threads: other work on the machine changes them less. 500 sentences (the default) take the
published procedure half an hour on two free cores.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from pathlib import Path

import torch
from hrsa_setting import load, noisy, sentences, widened
from torch import Tensor
from transformers.utils import logging

from st_reasoning.hrsa import hidden_states, panel

KS = (5, 10, 50)


class Spent:
    """Seconds of the clock and of the processor since it was made."""

    def __init__(self) -> None:
        self.since = self.now()

    @staticmethod
    def now() -> Tensor:
        return torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.float64)

    def seconds(self) -> Tensor:
        return self.now() - self.since


def shown(seconds: Tensor) -> str:
    return f"{seconds[0]:.0f} s (processor {seconds[1]:.0f} s)"


def states(folder: str, texts: list[str]) -> tuple[list[Tensor], list[Tensor]]:
    model = load(folder)
    other = noisy(load(folder))
    return tuple(hidden_states(one, texts, batch_tokens=1024, progress=False).states for one in (model, other))


def published_cka(xs: list[Tensor], ys: list[Tensor]) -> Tensor:
    xs, ys = [x - x.mean(0) for x in xs], [y - y.mean(0) for y in ys]
    # float64 norms: in float32 they overflow and the value is 0 (TRAPS.md), which is not a speed to compare with.
    own_x, own_y = ([(z.T @ z).double().norm() for z in side] for side in (xs, ys))
    return torch.tensor([
        [float((x.T @ y).double().square().sum() / a / b) for y, b in zip(ys, own_y, strict=True)]
        for x, a in zip(xs, own_x, strict=True)
    ])  # fmt: skip


def published_correlation(xs: list[Tensor], ys: list[Tensor]) -> Tensor:
    def one(x: Tensor, y: Tensor) -> float:
        x, y = x - x.mean(0), y - y.mean(0)
        return float(((x * y).sum(0) / (x.norm(dim=0) * y.norm(dim=0))).mean())

    return torch.tensor([[one(x, y) for y in ys] for x in xs])


def published_procrustes(xs: list[Tensor], ys: list[Tensor]) -> list[float]:
    found = []
    for x, y in zip(xs, ys, strict=True):
        left, _, right = torch.linalg.svd((x - x.mean(0)).double().T @ (y - y.mean(0)).double())
        square = (left @ right).square()
        found.append(
            1 - float(torch.special.entr(square).sum(1).mean()) / torch.tensor(float(len(square))).log().item()
        )
    return found


def published_knn(xs: list[Tensor], ys: list[Tensor]) -> list[dict[int, float]]:
    found = []
    for x, y in zip(xs, ys, strict=True):
        near = []
        for z in (x, y):
            units = torch.nn.functional.normalize(z, dim=1)
            rows = []
            for part in torch.arange(len(z)).split(256):
                similarity = units[part] @ units.T
                similarity[torch.arange(len(part)), part] = -2
                rows.append(similarity.topk(max(KS), dim=1).indices)
            near.append(torch.cat(rows).tolist())
        found.append({
            k: sum(len({*a[:k]} & {*b[:k]}) / len({*a[:k]} | {*b[:k]}) for a, b in zip(*near, strict=True)) / len(x)
            for k in KS
        })  # fmt: skip
    return found


def published_pooled(xs: list[Tensor], ys: list[Tensor]) -> None:
    """The probe's share: one more load and forward pass of each; the probe itself costs nothing beside it."""


def main(folder: str, count: int, *, only_fast: bool = False) -> None:
    texts = sentences(count)
    measures = (published_cka, published_correlation, published_procrustes, published_knn, published_pooled)
    seconds, values = {}, {}
    model, other = load(folder), noisy(load(folder))
    start = Spent()
    for one in (model, other):
        tokens = len(hidden_states(one, texts, batch_tokens=1024, progress=False).token_ids)
    passes = start.seconds()
    print(f"{tokens:,} tokens of {count} sentences; two forward passes {shown(passes)}", flush=True)
    for estimator in ("fast",) if only_fast else ("fast", "exact"):
        gc.collect()
        start = Spent()
        values[estimator] = panel(model, other, texts, k=KS, estimator=estimator, batch_tokens=1024, progress=False)
        seconds[estimator] = start.seconds()
        print(f"{estimator} {shown(seconds[estimator])}: {values[estimator]['runtime']['seconds']}", flush=True)
        if estimator == "fast":
            print("fast, times the forward passes: {:.2f} by the clock, {:.2f} by the processor".format(
                *(seconds["fast"] / passes).tolist()), flush=True)  # fmt: skip
    if only_fast:
        return
    del model, other
    total = torch.zeros(2, dtype=torch.float64)
    for measure in measures:
        gc.collect()
        start = Spent()
        xs, ys = states(folder, texts)
        loaded = start.seconds()
        values[measure.__name__] = measure(xs, ys)
        whole = start.seconds()
        total += whole
        print(f"{measure.__name__}: states {shown(loaded)}, measure {shown(whole - loaded)}", flush=True)
        del xs, ys
    print(f"published procedure {shown(total)}")
    for number, by in enumerate(("clock", "processor")):
        fast, exact = (float(total[number] / seconds[name][number]) for name in ("fast", "exact"))
        share = float(seconds["fast"][number] / passes[number])
        print(f"by the {by}: fast {fast:.1f} times faster and {share:.2f} times the forward passes, exact {exact:.1f}")
    report(values)


def report(values: dict[str, object]) -> None:
    fast, exact = values["fast"], values["exact"]

    def apart(a: object, b: object) -> float:
        return float((torch.tensor(a).double() - torch.tensor(b).double()).abs().max())

    def knn(record: dict, k: int) -> list[float]:
        return [layer["knn_overlap"][str(k)]["value"] for layer in record["layers"]]

    name = "linear_cka_debiased"
    print(f"fast - exact, debiased CKA, any cell: {apart(fast['matrices'][name], exact['matrices'][name]):.4f}")
    print(f"fast - exact, k-NN: {max(apart(knn(fast, k), knn(exact, k)) for k in KS):.4f}")
    # Where states of different tokens are equal (token embeddings, texts that begin alike) the published topk picks
    # among ties as it likes, so each layer is shown.
    apart_by_layer = [
        max(abs(layer["knn_overlap"][str(k)]["value"] - plain[k]) for k in KS)
        for layer, plain in zip(exact["layers"], values["published_knn"], strict=True)
    ]
    print("exact - published k-NN by layer:", " ".join(f"{value:.4f}" for value in apart_by_layer))
    formulas = (
        apart(exact["matrices"]["linear_cka"], values["published_cka"].tolist()),
        apart(exact["matrices"]["dimension_correlation"], values["published_correlation"].tolist()),
    )
    print("exact - published formulas: CKA {:.1e}, correlation {:.1e}".format(*formulas))


if __name__ == "__main__":
    logging.disable_progress_bar()
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("sentences", type=int, nargs="?", default=500)
    parser.add_argument("--width", type=int)
    parser.add_argument("--layers", type=int, default=4)
    asked = parser.parse_args()
    if asked.width is None:
        main(asked.folder, asked.sentences)
    else:
        with tempfile.TemporaryDirectory() as made:
            wide = widened(asked.folder, asked.width, asked.layers, Path(made))
            main(wide, asked.sentences, only_fast=True)
