"""The published HRSA, to compare with: `python tests/benchmarks/hrsa_published.py REQUEST`, which `hrsa_speed.py` runs.

Written plainly from HKUST-KnowComp/Reasoning-Embedding with its defaults: for each measure both models are loaded and
run, in padded batches of eight texts as they come; all states are kept; CKA of all layer pairs by d x d products,
correlations of all layer pairs from the rows, full k-NN in parts of 1,024, Procrustes by SVD. The probe loads both
models as sentence-transformers and encodes the texts, of which a share is tested on. Garbage is collected where it does
so: twice after each batch, at the end of each model, after each layer pair of CKA and after each map; these seconds are
counted apart, so that both sums can be told. All is float32 (its models are bfloat16, which many processors are slower
at), and its figures and tables are left out.

It is a process of its own, so that collecting garbage takes no longer than with its own imports.
"""

from __future__ import annotations

import gc
import json
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

BATCH = 8  # texts, where the published procedure is not told otherwise
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


collecting = torch.zeros(2, dtype=torch.float64)


def collect() -> None:
    start = Spent()
    gc.collect()
    collecting.add_(start.seconds())


def states(folder: str, texts: list[str]) -> Tensor:
    """Load a model and return all its hidden states of all tokens [L + 1, n, d]."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    found: list[list[Tensor]] = []
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(texts[start : start + BATCH], add_special_tokens=False, padding=True, return_tensors="pt")
        with torch.no_grad():
            layers = model(**batch, output_hidden_states=True).hidden_states
        collect()
        found = found or [[] for _ in layers]
        used = batch["attention_mask"].bool()
        for rows, layer in zip(found, layers, strict=True):
            rows += [state[mask] for state, mask in zip(layer, used, strict=True)]
        collect()
    del model
    collect()
    return torch.stack([torch.cat(rows) for rows in found])


def cka(xs: Tensor, ys: Tensor) -> list[list[float]]:
    sides = [[z - z.mean(dim=0, keepdim=True) for z in side] for side in (xs, ys)]
    # Norms in float64: in float32 they overflow and the value is 0, which is not a speed to compare with.
    own = [[(z.T @ z).double().norm() for z in side] for side in sides]

    def one(x: Tensor, y: Tensor, of_x: Tensor, of_y: Tensor) -> float:
        value = float((x.T @ y).double().norm().square() / (of_x * of_y))
        collect()
        return value

    return [
        [one(x, y, of_x, of_y) for y, of_y in zip(sides[1], own[1], strict=True)]
        for x, of_x in zip(sides[0], own[0], strict=True)
    ]


def correlation(xs: Tensor, ys: Tensor) -> list[list[float]]:
    def one(x: Tensor, y: Tensor) -> float:
        x, y = x - x.mean(dim=0), y - y.mean(dim=0)
        covariance, of_x, of_y = ((u * v).sum(dim=0) / (len(x) - 1) for u, v in ((x, y), (x, x), (y, y)))
        return float((covariance / (of_x.sqrt() * of_y.sqrt())).clamp(-1, 1).mean())

    return [[one(x, y) for y in ys] for x in xs]


def procrustes(xs: Tensor, ys: Tensor) -> list[float]:
    found = []
    for layer in [*range(len(xs)), -1]:  # the last one again, as the map of the whole model
        x, y = (z[layer] - z[layer].mean(dim=0, keepdim=True) for z in (xs, ys))
        left, _, right = torch.linalg.svd(x.T @ y, full_matrices=False)
        square = (left @ right).square()
        found.append(1 - float(torch.special.entr(square).sum(dim=1).mean()) / math.log(len(square)))
        collect()
    return found


def knn(xs: Tensor, ys: Tensor) -> list[dict[int, float]]:
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


def probe(folders: list[str], texts: list[str], labels: list[bool]) -> tuple[float, float]:
    """Return how well a probe of the first model does on its own embeddings and on those of the second."""
    # Here, because what is imported makes every collection of garbage longer.
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    models = [SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": "float32"}) for folder in folders]
    train, test, labels_train, labels_test = train_test_split(
        texts, labels, test_size=0.2, stratify=labels, random_state=0
    )
    (x, x_test), (_, y_test) = (
        [
            model.encode(part, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)
            for part in (train, test)
        ]
        for model in models
    )
    fitted = LogisticRegression(max_iter=1000).fit(x, labels_train)
    return fitted.score(x_test, labels_test), fitted.score(y_test, labels_test)


MEASURES = (cka, correlation, procrustes, knn)


def main(request: Path) -> None:
    """Answer ``{"folders": [a, b], "texts": [...], "labels": [...]}`` beside it: what each measure took and gave."""
    logging.disable_progress_bar()
    asked = json.loads(request.read_text(encoding="utf-8"))
    gc.collect()
    answer = {}
    for measure in MEASURES:
        collecting.zero_()
        start = Spent()
        xs, ys = (states(folder, asked["texts"]) for folder in asked["folders"])
        passes, collected = start.seconds(), collecting.clone()
        value = measure(xs, ys)
        answer[measure.__name__] = {
            "value": value,
            "seconds": start.seconds().tolist(),
            "passes": passes.tolist(),
            "collecting": collecting.tolist(),
            "collecting_in_passes": collected.tolist(),
        }
        print(
            f"published {measure.__name__}: {start.seconds()[0]:.0f} s, of which loads and passes {passes[0]:.0f} s "
            f"and collecting garbage {collecting[0]:.0f} s",
            flush=True,
        )
        del xs, ys
    start = Spent()
    scores = probe(asked["folders"], asked["texts"], asked["labels"])
    answer["probe"] = {"value": scores, "seconds": start.seconds().tolist(), "collecting": [0.0, 0.0]}
    print(f"published probe: {start.seconds()[0]:.0f} s, own {scores[0]:.2f}, transferred {scores[1]:.2f}", flush=True)
    request.with_suffix(".answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
