"""The card of the micro models: from figures and records to a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from st_reasoning.micro import CHECKSUMS, FIGURES, backbone_name

HOW = {
    "pretraining": "from scratch, next-token prediction",
    "sft": "supervised fine-tuning on worked solutions",
    "rlvr": "verifiable rewards (GRPO)",
}


def card(figures: dict[str, Any]) -> str:
    """Return the card of the four models."""
    models = figures["models"]
    versions = figures["versions"]
    total = sum(model["seconds"] for model in models.values()) / 60
    read = models["base"]["perplexity"]
    return f"""# Micro models

Four small causal language models of one family, for trying out the whole study on any machine, offline: a base, and
three reasoning variants of it. Made by `st-reasoning variants micro` from nothing but drawn problems. They are llamas
with {models["base"]["parameters"]:,} parameters, float32, and a byte-level BPE tokenizer of their own; nobody should
expect more of them than the tables below say.

{_table(("model", "trained from", "how", "minutes", "loads as"), _training(figures["models"]))}

All of it took {total:.0f} minutes of training ({"; ".join(figures["devices"])}), with torch {versions["torch"]},
transformers {versions["transformers"]} and trl {versions["trl"]}.

## Perplexity

Of {read["texts"]} held-out texts ({read["tokens"]:,} tokens predicted), and of the best unigram model, which is given
the very frequencies of these tokens. {_forgotten(models)}

{_table(("family", "texts", "unigram", *models), _perplexities(models))}

## Problems

Percent solved of problems that none of the models was trained on, greedily / sampled ({_samples(figures)} at
temperature 1). Held out are a tenth of the questions of each family, by the hash of each, and whole templates of
`gsm_symbolic`; what is held out is a question, so the same two numbers may stand in a step of another solution. A
problem is solved by a last line `#### ANSWER` with the right answer and nothing else. In **bold**: a variant on what it
was trained on. The standard error of a percentage p over n problems is sqrt(p (100 - p) / n): {_errors(models)}.

{_table(("problems", "how many", *models), _accuracies(figures))}

### What was learnt

The last phase of the base's training makes the answer's mark rare: it works sums out and mostly does not say which line
is the answer. So part of what a variant gains is the mark. The share of greedy completions whose last line is right,
with the mark or without, and in brackets the share that has the mark:

{_table(("problems", *models), _worked_out(figures))}

Where the first number of a variant is no higher than the base's, its training taught the mark and no better sums.

Why the base was laid out so, and what did not work, stands in the comments of the recipe.

## Once more

```sh
st-reasoning variants micro --output micro-models # an interrupted run is continued by the same command
```

The recipe is `recipes/micro-models.yaml`; seeds are fixed, but other versions or machines round otherwise, so weights
will not be the same to the last bit. Every figure is in `{FIGURES}`; how a model was trained, step by step, is in its
own folder. `sha256sum --check {CHECKSUMS}` in this folder tells whether the files are the ones the figures are of.

## Licence

The weights, like all of this project, are under Apache-2.0. All texts were drawn with reasoning-gym
{versions["reasoning-gym"]} (Apache-2.0), with its own words and names. Its `letter_counting` and `sentence_reordering`
take sentences from "In the Year 2889" (J. and M. Verne, 1889, public domain, as distributed by Project Gutenberg, whose
licence text stands around it), and `spell_backward` takes words from a list whose source it does not name. The
generators of its `gsm_symbolic` were written after the templates of GSM-Symbolic, which were made from GSM8K (MIT);
GSM-Symbolic itself (Apple) is published as a dataset under CC BY-NC-ND 4.0, and no text was taken from it. Nothing else
went in.
"""


def base_card(record: dict[str, Any]) -> str:
    """Return the card of the base model alone."""
    phases = [record["data"], *(phase["data"] for phase in record["earlier"])]
    documents, tokens = (sum(data[name] for data in phases) for name in ("documents", "tokens"))
    return f"""---
library_name: transformers
pipeline_tag: text-generation
license: apache-2.0
tags:
- st-reasoning
---

# Micro base model

An ordinary causal language model with {record["parameters"]:,} parameters, trained from scratch on
{tokens:,} tokens: {documents:,} documents drawn with reasoning-gym, but for those of more than
{record["recipe"]["block"]} tokens.

What it can and cannot do stands in the card one folder up.
"""


def _training(models: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, model in models.items():
        how = f"{HOW[model['method']]}, {model['steps']:,} steps"
        minutes = f"{model['seconds'] / 60:.0f}"
        rows.append((name, model["trained_from"] or "nothing", how, minutes, f"`{backbone_name(name)}`"))
    return rows


def _perplexities(models: dict[str, Any]) -> list[tuple[str, ...]]:
    base = models["base"]["perplexity"]
    rows: list[tuple[str, ...]] = []
    for name in (None, *base["families"]):
        found = [
            model["perplexity"] if name is None else model["perplexity"]["families"][name] for model in models.values()
        ]
        values = (f"{one['model']:.2f}" for one in found)
        rows.append((name or "all", str(found[0]["texts"]), f"{found[0]['unigram']:.1f}", *values))
    return rows


def _forgotten(models: dict[str, Any]) -> str:
    """Name the families in which a model has come to predict worse than the unigram model."""
    said = []
    for name, model in models.items():
        every = model["perplexity"]["families"]
        worse = [family for family, found in every.items() if found["model"] > found["unigram"]]
        if worse:
            said.append(f"{name} has forgotten {', '.join(worse)}: there it predicts worse than that.")
    return " ".join(said)


def _accuracies(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    models = figures["models"]
    rows: list[tuple[str, ...]] = []
    for kind, asked in models["base"]["kinds"].items():
        cells = []
        for name, model in models.items():
            found = model["kinds"][kind]
            cell = f"{100 * found['greedy']:.1f} / {100 * found['sampled']:.1f}"
            cells.append(f"**{cell}**" if kind in figures["taught"].get(name, ()) else cell)
        rows.append((kind, str(asked["problems"]), *cells))
    return rows


def _worked_out(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    models = figures["models"]
    taught = dict.fromkeys(kind for kinds in figures["taught"].values() for kind in kinds)
    rows: list[tuple[str, ...]] = []
    for kind in taught:
        found = (model["kinds"][kind] for model in models.values())
        rows.append((kind, *(f"{100 * one['last_line_right']:.1f} ({100 * one['marked']:.1f})" for one in found)))
    return rows


def _errors(models: dict[str, Any]) -> str:
    """Return the greatest standard error for each number of problems."""
    sizes = sorted({found["problems"] for found in models["base"]["kinds"].values()}, reverse=True)
    return ", ".join(f"at most {50 / n**0.5:.1f} points for n = {n}" for n in sizes)


def _samples(figures: dict[str, Any]) -> str:
    return f"{figures['recipe']['examination']['samples']} completions each"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
