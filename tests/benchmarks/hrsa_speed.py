"""HRSA against the published procedure: `python tests/benchmarks/hrsa_speed.py FOLDER [SENTENCES]` (a causal LM).

Both sides measure all five levels, the probe on whether a text is longer than most. The models are compared token by
token; with `--pooled` they are embedders, and all measures are taken of one vector per text too, which the published
procedure does not.

With `--width 2048 --layers 4` only the forward passes and `fast` are timed, of a model of that shape with random
weights: passes cost as the square of the width, most measures as the width, and Procrustes, by its SVDs, as its cube.

Compares the model with a copy that has 5 % of noise on its weights. The published procedure is that of
`hrsa_published.py`; it is told with and without the seconds that it spends on collecting garbage. Both sides run one
after the other; prints seconds, ratios, and how far the estimates are from the exact values. Beside the seconds of the
clock stand those of the processor, over all threads. 500 sentences (the default) take half an hour on two cores.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import hrsa_published
import torch
from hrsa_published import KS, Spent
from hrsa_setting import load, noisy, sentences, widened
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import AutoTokenizer
from transformers.utils import logging

from st_reasoning.hrsa import hidden_states, panel


def shown(seconds: Tensor) -> str:
    return f"{seconds[0]:.0f} s (processor {seconds[1]:.0f} s)"


def published(
    folder: str, other: SentenceTransformer, texts: list[str], labels: list[bool], scratch: Path
) -> dict[str, Any]:
    """Run the published procedure and return what each measure took and gave."""
    copied, request = scratch / "other", scratch / "request.json"
    other[0].model.save_pretrained(copied)
    AutoTokenizer.from_pretrained(folder).save_pretrained(copied)
    asked = {"folders": [folder, str(copied)], "texts": texts, "labels": labels}
    request.write_text(json.dumps(asked), encoding="utf-8")
    subprocess.run([sys.executable, hrsa_published.__file__, request], check=True)
    answer: dict[str, Any] = json.loads(request.with_suffix(".answer.json").read_text(encoding="utf-8"))
    return answer


def main(folder: str, count: int, *, pooled: bool = False, only_fast: bool = False) -> None:
    texts = sentences(count)
    lengths = [len(text.split()) for text in texts]
    labels = [length > median(lengths) for length in lengths]
    seconds, values = {}, {}
    model, other = load(folder, pooled=pooled), noisy(load(folder, pooled=pooled))
    start = Spent()
    for one in (model, other):
        tokens = len(hidden_states(one, texts, batch_tokens=1024, progress=False).token_ids)
    passes = start.seconds()
    print(f"{tokens:,} tokens of {count} sentences, {torch.get_num_threads()} threads")
    print(f"two forward passes, one after the other, batches of 1,024 positions: {shown(passes)}", flush=True)
    for estimator in ("fast",) if only_fast else ("fast", "exact"):
        gc.collect()
        start = Spent()
        values[estimator] = panel(
            model, other, texts, labels=labels, k=KS, estimator=estimator, batch_tokens=1024, progress=False
        )
        seconds[estimator] = start.seconds()
        print(f"{estimator} {shown(seconds[estimator])}: {values[estimator]['runtime']['seconds']}", flush=True)
        if estimator == "fast":
            print("fast, times these passes: {:.2f} by the clock, {:.2f} by the processor".format(
                *(seconds["fast"] / passes).tolist()), flush=True)  # fmt: skip
    if only_fast:
        return
    with tempfile.TemporaryDirectory() as scratch:
        del model, one
        found = published(folder, other, texts, labels, Path(scratch))

    def total(name: str) -> Tensor:
        return torch.tensor([entry[name] for entry in found.values() if name in entry], dtype=torch.float64).sum(dim=0)

    whole, collecting, times = total("seconds"), total("collecting"), len(found) - 1  # the probe encodes
    plain = total("passes") / times
    bare = plain - total("collecting_in_passes") / times
    print(f"published procedure {shown(whole)}, of which collecting garbage {shown(collecting)}")
    print(f"its loads and two forward passes, each of {times} times {shown(plain)}, less garbage {shown(bare)}")
    for number, by in enumerate(("clock", "processor")):
        fast, exact = (float(seconds[name][number]) for name in ("fast", "exact"))
        for what, took, of_passes in (
            ("", whole[number], plain[number]),
            (", less its garbage", (whole - collecting)[number], bare[number]),
        ):
            print(
                f"by the {by}{what}: fast {took / fast:.1f} times faster, exact {took / exact:.1f} times; "
                f"fast takes {fast / of_passes:.2f} times its loads and two forward passes"
            )
        print(f"  and {fast / float(passes[number]):.2f} times our own, in batches of like lengths")
    report(values, {name: entry["value"] for name, entry in found.items()})


def report(values: dict[str, Any], published: dict[str, Any]) -> None:
    fast, exact = values["fast"], values["exact"]

    def apart(a: object, b: object) -> float:
        return float((torch.tensor(a).double() - torch.tensor(b).double()).abs().max())

    def knn(record: dict[str, Any], k: int) -> list[float]:
        return [layer["knn_overlap"][str(k)]["value"] for layer in record["layers"]]

    name = "linear_cka_debiased"
    print(f"fast - exact, debiased CKA, any cell: {apart(fast['matrices'][name], exact['matrices'][name]):.4f}")
    print(f"fast - exact, k-NN: {max(apart(knn(fast, k), knn(exact, k)) for k in KS):.4f}")
    # Where states of different tokens are equal (token embeddings, texts that begin alike) the published topk picks
    # among ties as it likes, so each layer is shown.
    apart_by_layer = [
        max(abs(layer["knn_overlap"][str(k)]["value"] - plain[str(k)]) for k in KS)
        for layer, plain in zip(exact["layers"], published["knn"], strict=True)
    ]
    print("exact - published k-NN by layer:", " ".join(f"{value:.4f}" for value in apart_by_layer))
    formulas = (
        apart(exact["matrices"]["linear_cka"], published["cka"]),
        apart(exact["matrices"]["dimension_correlation"], published["correlation"]),
    )
    print("exact - published formulas: CKA {:.1e}, correlation {:.1e}".format(*formulas))


if __name__ == "__main__":
    logging.disable_progress_bar()
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("sentences", type=int, nargs="?", default=500)
    parser.add_argument("--pooled", action="store_true")
    parser.add_argument("--only-fast", action="store_true")
    parser.add_argument("--width", type=int)
    parser.add_argument("--layers", type=int, default=4)
    asked = parser.parse_args()
    if asked.width is None:
        main(asked.folder, asked.sentences, pooled=asked.pooled, only_fast=asked.only_fast)
    else:
        with tempfile.TemporaryDirectory() as made:
            wide = widened(asked.folder, asked.width, asked.layers, Path(made))
            main(wide, asked.sentences, pooled=asked.pooled, only_fast=True)
