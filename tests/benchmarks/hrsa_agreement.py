"""How far HRSA is from the published formulas: `python tests/benchmarks/hrsa_agreement.py FOLDER [SENTENCES]`.

On the states of a causal LM and of a copy with 5 % of noise on its weights, at every tenth layer, measure by measure as
`hrsa_published.py` writes them. A panel cannot be held against these two:

- k-NN overlap, because of ties: tokens that follow the same words have the same state in a causal LM, and the published
  topk takes any of them. So it is also told without all but the first of such tokens, and of these in float64, because
  float32 decides between some cosines by its rounding.
- Inverse row entropy, because a panel fits its map on part of the texts. Here it is fitted on all rows but one. The
  published SVD is of float32 products, which hold no small dimensions beside a massive one; so it is also told of the
  same formula in float64.

Five minutes for 500 sentences on two cores.
"""

from __future__ import annotations

import argparse

import hrsa_published as published
import torch
from hrsa_setting import load, noisy, sentences
from torch import Tensor
from transformers.utils import logging

from st_reasoning.hrsa import Activations, dimension_correlation, hidden_states, knn_overlap, linear_cka, procrustes


def firsts(found: Activations, *, alone: bool = False) -> Tensor:
    """Return which tokens [n] are the first to follow the same words, or, ``alone``, the first of their type."""
    seen: set[tuple[int, ...]] = set()
    first = torch.zeros(len(found.token_ids), dtype=torch.bool)
    for sentence in found.sentence.unique():
        rows = (found.sentence == sentence).nonzero().flatten()
        words = found.token_ids[rows].tolist()
        for end, row in enumerate(rows.tolist(), start=1):
            key = tuple(words[end - 1 if alone else 0 : end])
            first[row] = key not in seen
            seen.add(key)
    return first


def entropy(x: Tensor, y: Tensor) -> float:
    last = torch.arange(len(x)) == len(x) - 1
    return procrustes(x, y, held_out=last).inverse_row_entropy


def overlaps_apart(x: Tensor, y: Tensor) -> float:
    ours, theirs = knn_overlap(x, y, k=published.KS), published.knn(x[None], y[None])[0]
    return max(abs(ours[k] - theirs[k]) for k in published.KS)


def main(folder: str, count: int) -> None:
    texts = sentences(count)
    model = load(folder)
    a = hidden_states(model, texts, batch_tokens=1024, progress=False)
    b = hidden_states(noisy(model), texts, batch_tokens=1024, progress=False)
    of_types, of_words = firsts(a, alone=True), firsts(a)
    print(
        f"{len(of_words):,} tokens of {count} sentences; {int(of_words.sum()):,} are the first to follow the same "
        f"words, {int(of_types.sum()):,} the first of their type, which is all that token embeddings know"
    )
    print("layer  CKA      correlation  entropy  in float64  k-NN     without repeated  in float64")
    for layer in range(0, len(a.states), 10):
        x, y = a.states[layer], b.states[layer]
        pair, first = (x[None], y[None]), of_words if layer else of_types
        apart = (
            abs(float(linear_cka(x, y)) - published.cka(*pair)[0][0]),
            abs(float(dimension_correlation(x, y)) - published.correlation(*pair)[0][0]),
            abs(entropy(x, y) - published.procrustes(*pair)[0]),
            abs(entropy(x, y) - published.procrustes(*(side.double() for side in pair))[0]),
            overlaps_apart(x, y),
            overlaps_apart(x[first], y[first]),
            overlaps_apart(x[first].double(), y[first].double()),
        )
        print(
            "{:5}  {:.1e}  {:.1e}      {:.1e}  {:.1e}     {:.1e}  {:.1e}           {:.1e}".format(layer, *apart),
            flush=True,
        )


if __name__ == "__main__":
    logging.disable_progress_bar()
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("sentences", type=int, nargs="?", default=500)
    asked = parser.parse_args()
    main(asked.folder, asked.sentences)
