"""What the micro models can and cannot do, in figures that anyone can compute again from their weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from st_reasoning.errors import InputError
from st_reasoning.micro.corpus import Document, Part, documents
from st_reasoning.problems.gsm import seed_of
from st_reasoning.problems.verified import (
    FAMILIES,
    MARK,
    VerifiedProblem,
    final_answer,
    same_answer,
    verified_problems,
)
from st_reasoning.variants.accuracy import Completion, complete


@dataclass(frozen=True)
class Examination:
    """What the models are asked; nothing of it is ever trained on.

    Attributes:
        taught: Problems of each family that variants are trained on.
        untaught: Problems of each other family whose answers can be checked.
        samples: Completions drawn of each problem, at temperature 1.
        max_new_tokens: Longest completion.
        texts: Held-out documents of each family of the corpus, for the perplexity.
        seed: Of the draws.
    """

    taught: int = 400
    untaught: int = 60
    samples: int = 4
    max_new_tokens: int = 48
    texts: int = 40
    seed: int = 100

    def __post_init__(self) -> None:
        for name in ("taught", "untaught", "samples", "max_new_tokens", "texts"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


def kind_of(family: str, settings: Mapping[str, Any]) -> str:
    """Return what problems of a family with some settings are called in figures and tables."""
    return f"{family} ({', '.join(f'{name} {value}' for name, value in settings.items())})" if settings else family


def kinds_of(families: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the kinds of problems that a variant is trained on."""
    return [kind_of(family, settings) for family, settings in families.items()]


def held_out_problems(
    corpus: Mapping[str, Part], taught: Sequence[Mapping[str, Mapping[str, Any]]], asked: Examination
) -> dict[str, list[VerifiedProblem]]:
    """Draw the problems that all models are asked, by kind.

    Args:
        corpus: What the base has read; of families whose answers can be checked, it is asked.
        taught: The families of each variant; each is asked as the variant was taught it.
        asked: How many.
    """
    kinds: dict[str, tuple[str, Mapping[str, Any], int]] = {}
    for families in taught:
        for family, settings in families.items():
            kinds[kind_of(family, settings)] = (family, settings, asked.taught)
    known = {family for family, _, _ in kinds.values()}
    for family, part in corpus.items():
        if family in FAMILIES and family not in known:
            kinds[kind_of(family, part.settings)] = (family, part.settings, asked.untaught)
    return {
        kind: verified_problems({family: settings}, count, seed=seed_of(asked.seed, *kind.encode()), held_out=True)
        for kind, (family, settings, count) in kinds.items()
    }


def worked_out(
    model: Any, tokenizer: Any, problems: Sequence[VerifiedProblem], *, max_new_tokens: int, batch_size: int = 100
) -> dict[str, float]:
    """Return :func:`last_lines` of a model's greedy completions."""
    batches = (problems[start : start + batch_size] for start in range(0, len(problems), batch_size))
    written = [one for some in batches for (one,) in complete(model, tokenizer, some, max_new_tokens=max_new_tokens)]
    return last_lines(written, problems)


def last_lines(written: Sequence[Completion], problems: Sequence[VerifiedProblem]) -> dict[str, float]:
    """Return the share of completions whose last line is right, marked as the answer or not, and of marked ones.

    Beside what :func:`accuracy` counts, it tells better sums from better manners.
    """
    right = [
        one.ended and same_answer(one.text.strip().split("\n")[-1].removeprefix(MARK).strip(), problem.answer)
        for one, problem in zip(written, problems, strict=True)
    ]
    marked = [one.ended and final_answer(one.text) is not None for one in written]
    return {"last_line_right": sum(right) / len(right), "marked": sum(marked) / len(marked)}


def held_out_texts(corpus: Mapping[str, Part], asked: Examination) -> list[Document]:
    """Draw the documents whose perplexity is measured: as many of each family."""
    return documents(
        {name: replace(part, documents=asked.texts) for name, part in corpus.items()}, seed=asked.seed, held_out=True
    )


def perplexity(model: Any, tokenizer: Any, texts: Sequence[Document]) -> dict[str, Any]:
    """Return the perplexity of texts, of all and by family, beside that of the best unigram model.

    Every token is predicted from those before it in the same text, from the second on, and the end of the text as well.
    The unigram model is given the very frequencies of the tokens that are predicted: no other one does better.

    Args:
        model: A causal LM.
        tokenizer: Its tokenizer.
        texts: The texts.

    Returns:
        ``texts``, ``tokens``, ``model``, ``unigram``, and ``families``: the same by name.
    """
    import torch

    longest = model.config.max_position_embeddings
    losses: dict[str, list[float]] = {}
    tokens: dict[str, list[int]] = {}
    counts: Counter[str] = Counter()
    model.eval()
    for text in texts:
        ids = [*tokenizer(text.text)["input_ids"], tokenizer.eos_token_id][:longest]
        row = torch.tensor([ids])
        with torch.inference_mode():
            logits = model(input_ids=row).logits[0, :-1].float()
        found = torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="none")
        losses.setdefault(text.family, []).extend(found.tolist())
        tokens.setdefault(text.family, []).extend(ids[1:])
        counts[text.family] += 1

    def of(families: Sequence[str]) -> dict[str, Any]:
        among = [loss for family in families for loss in losses[family]]
        frequencies = Counter(token for family in families for token in tokens[family])
        entropy = -sum(n / len(among) * math.log(n / len(among)) for n in frequencies.values())
        return {
            "texts": sum(counts[family] for family in families),
            "tokens": len(among),
            "model": math.exp(sum(among) / len(among)),
            "unigram": math.exp(entropy),
        }

    return {**of(tuple(losses)), "families": {family: of((family,)) for family in losses}}
