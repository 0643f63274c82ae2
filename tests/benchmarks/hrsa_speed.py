"""HRSA against the published procedure: `python tests/benchmarks/hrsa_speed.py FOLDER [SENTENCES]` (a causal LM).

With `--width 2048 --layers 4` only the forward passes and `fast` are timed, of a model of that shape with random
weights: passes cost as the square of the width, most measures as the width, and Procrustes, by its SVDs, as its cube.

Compares the model with a copy that has 5 % of noise on its weights. The published procedure is the one of
HKUST-KnowComp/Reasoning-Embedding with its defaults: for each measure both models are loaded and run, in padded batches
of eight texts as they come, all states are kept, CKA of all layer pairs by d x d products, correlations of all layer
pairs from the rows, full k-NN in parts of 1,024, Procrustes by SVD. All is float32 (its models are bfloat16, which many
processors are slower at), and left out are its garbage collection after every pair of layers and its figures. All sides
run in this process, one after another; prints seconds, ratios, and how far the estimates are from the exact values.
Beside the seconds of the clock stand those of the processor, over all threads. 500 sentences (the default) take 25
minutes on two cores.
"""

from __future__ import annotations

import argparse
import gc
import math
import tempfile
import time
from pathlib import Path

import torch
from hrsa_setting import load, noisy, sentences, widened
from torch import Tensor
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from st_reasoning.hrsa import hidden_states, panel

KS = (5, 10, 50)
BATCH = 8  # texts, where the published procedure is not told otherwise


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


def states(folder: str, texts: list[str]) -> Tensor:
    """Load a model and return all its hidden states of all tokens [L + 1, n, d], as the published procedure does."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    found: list[list[Tensor]] = []
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(texts[start : start + BATCH], add_special_tokens=False, padding=True, return_tensors="pt")
        with torch.no_grad():
            layers = model(**batch, output_hidden_states=True).hidden_states
        found = found or [[] for _ in layers]
        used = batch["attention_mask"].bool()
        for rows, layer in zip(found, layers, strict=True):
            rows += [state[mask] for state, mask in zip(layer, used, strict=True)]
    return torch.stack([torch.cat(rows) for rows in found])


def published_cka(xs: Tensor, ys: Tensor) -> Tensor:
    sides = [[z - z.mean(dim=0, keepdim=True) for z in side] for side in (xs, ys)]
    # Norms in float64: in float32 they overflow and the value is 0 (TRAPS.md), which is not a speed to compare with.
    own = [[(z.T @ z).double().norm() for z in side] for side in sides]
    return torch.tensor([
        [float((x.T @ y).double().norm().square() / (a * b)) for y, b in zip(sides[1], own[1], strict=True)]
        for x, a in zip(sides[0], own[0], strict=True)
    ])  # fmt: skip


def published_correlation(xs: Tensor, ys: Tensor) -> Tensor:
    def one(x: Tensor, y: Tensor) -> float:
        x, y = x - x.mean(dim=0), y - y.mean(dim=0)
        covariance, of_x, of_y = ((u * v).sum(dim=0) / (len(x) - 1) for u, v in ((x, y), (x, x), (y, y)))
        return float((covariance / (of_x.sqrt() * of_y.sqrt())).clamp(-1, 1).mean())

    return torch.tensor([[one(x, y) for y in ys] for x in xs])


def published_procrustes(xs: Tensor, ys: Tensor) -> list[float]:
    found = []
    for layer in [*range(len(xs)), -1]:  # the last one again, as the map of the whole model
        x, y = (z[layer] - z[layer].mean(dim=0, keepdim=True) for z in (xs, ys))
        left, _, right = torch.linalg.svd(x.T @ y, full_matrices=False)
        square = (left @ right).square()
        found.append(1 - float(torch.special.entr(square).sum(dim=1).mean()) / math.log(len(square)))
    return found


def published_knn(xs: Tensor, ys: Tensor) -> list[dict[int, float]]:
    def neighbours(z: Tensor) -> Tensor:
        units = torch.nn.functional.normalize(z, dim=1)
        found = []
        for part in torch.arange(len(z)).split(1024):
            similarity = units[part] @ units.T
            similarity[torch.arange(len(part)), part] = -1e9
            found.append(similarity.topk(max(KS), dim=1).indices)
        return torch.cat(found)

    def overlap(a: Tensor, b: Tensor) -> float:
        shared = (a[:, :, None] == b[:, None, :]).any(dim=2).sum(dim=1).float()
        return float((shared / (2 * a.shape[1] - shared)).mean())

    pairs = ((neighbours(x), neighbours(y)) for x, y in zip(xs, ys, strict=True))
    return [{k: overlap(a[:, :k], b[:, :k]) for k in KS} for a, b in pairs]


def published_pooled(xs: Tensor, ys: Tensor) -> None:
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
    print(f"{tokens:,} tokens of {count} sentences, {torch.get_num_threads()} threads")
    print(f"two forward passes, one after the other, batches of 1,024 positions: {shown(passes)}", flush=True)
    for estimator in ("fast",) if only_fast else ("fast", "exact"):
        gc.collect()
        start = Spent()
        values[estimator] = panel(model, other, texts, k=KS, estimator=estimator, batch_tokens=1024, progress=False)
        seconds[estimator] = start.seconds()
        print(f"{estimator} {shown(seconds[estimator])}: {values[estimator]['runtime']['seconds']}", flush=True)
        if estimator == "fast":
            print("fast, times these passes: {:.2f} by the clock, {:.2f} by the processor".format(
                *(seconds["fast"] / passes).tolist()), flush=True)  # fmt: skip
    if only_fast:
        return
    with tempfile.TemporaryDirectory() as copied:
        other[0].model.save_pretrained(copied)
        AutoTokenizer.from_pretrained(folder).save_pretrained(copied)
        del model, other, one
        loads, total = [], torch.zeros(2, dtype=torch.float64)
        for measure in measures:
            gc.collect()
            start = Spent()
            xs, ys = states(folder, texts), states(copied, texts)
            loads.append(start.seconds())
            values[measure.__name__] = measure(xs, ys)
            whole = start.seconds()
            total += whole
            print(
                f"{measure.__name__}: loads and passes {shown(loads[-1])}, measure {shown(whole - loads[-1])}",
                flush=True,
            )
            del xs, ys
    plain = torch.stack(loads).mean(dim=0)
    print(f"published procedure {shown(total)}, of which loads and two forward passes {shown(plain)} each time")
    for number, by in enumerate(("clock", "processor")):
        fast, exact = (float(total[number] / seconds[name][number]) for name in ("fast", "exact"))
        share, own = (float(seconds["fast"][number] / two[number]) for two in (plain, passes))
        print(f"by the {by}: fast {fast:.1f} times faster, exact {exact:.1f} times; fast takes {share:.2f} times the")
        print(
            f"  loads and forward passes of the published procedure, {own:.2f} times those in batches of like lengths"
        )
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
