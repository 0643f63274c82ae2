"""How many problems a language model solves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from st_reasoning.problems.verified import VerifiedProblem


def prompt(problem: VerifiedProblem) -> str:
    """Return what a model is shown; the line break is part of it, so that its tokens do not depend on what follows."""
    return f"{problem.question}\n"


def accuracy(
    model: Any,
    tokenizer: Any,
    problems: Sequence[VerifiedProblem],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    samples: int = 4,
    temperature: float = 1.0,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Return the share of problems that a model solves, greedily and sampled, in all and by family.

    Args:
        model: A causal LM, with its head.
        tokenizer: Its tokenizer.
        problems: What is asked.
        max_new_tokens: Longest completion.
        batch_size: Problems at once.
        samples: Sampled completions of each problem; ``sampled`` is the share of right ones among them all.
        temperature: Of sampling, from the whole distribution.
        seed: Of sampling.
        progress: Whether to show a bar.

    Returns:
        ``problems``, ``greedy``, ``sampled`` and ``cut``, the share of greedy completions not at their end, which
        count as wrong; ``samples``, ``temperature``; and ``families``: the first four by name.
    """
    import torch

    torch.manual_seed(seed)
    was_training = model.training
    model.eval()
    greedy: list[float] = []
    sampled: list[float] = []
    cut: list[bool] = []
    # Problems of like length are padded little.
    order = sorted(range(len(problems)), key=lambda number: len(problems[number].question))
    for start in tqdm(range(0, len(order), batch_size), desc="solving", disable=not progress):
        batch = [problems[number] for number in order[start : start + batch_size]]
        likeliest = complete(model, tokenizer, batch, max_new_tokens=max_new_tokens)
        greedy += _rates(batch, likeliest)
        cut += [not one.ended for (one,) in likeliest]
        drawn = complete(
            model, tokenizer, batch, max_new_tokens=max_new_tokens, samples=samples, temperature=temperature
        )
        sampled += _rates(batch, drawn)
    model.train(was_training)
    ordered = [problems[number] for number in order]

    def shares(name: str | None) -> dict[str, Any]:
        among = [place for place, problem in enumerate(ordered) if name in (None, problem.family)]
        return {
            "problems": len(among),
            "greedy": sum(greedy[place] for place in among) / len(among),
            "sampled": sum(sampled[place] for place in among) / len(among),
            "cut": sum(cut[place] for place in among) / len(among),
        }

    families = {problem.family: None for problem in problems}
    return {
        **shares(None),
        "samples": samples,
        "temperature": temperature,
        "families": {name: shares(name) for name in families},
    }


@dataclass(frozen=True)
class Completion:
    """What a model wrote.

    Attributes:
        text: Without special tokens.
        ended: Whether it came to its end; else it was cut, maybe within its answer.
    """

    text: str
    ended: bool


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Return the tokens that end a completion: the tokenizer's, and those that the model's folder names beside it.

    An instruction-tuned model ends its turn with another token than its texts; GRPOTrainer stops at either.
    """
    named = model.generation_config.eos_token_id
    named = [] if named is None else [named] if isinstance(named, int) else named
    return list(dict.fromkeys([int(tokenizer.eos_token_id), *named]))


def complete(
    model: Any,
    tokenizer: Any,
    problems: Sequence[VerifiedProblem],
    *,
    max_new_tokens: int,
    samples: int = 1,
    temperature: float | None = None,
) -> list[list[Completion]]:
    """Return completions of each problem: the likeliest token by token, or, with a temperature, so many drawn ones."""
    import torch

    ends = end_ids(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    rows = [tokenizer(prompt(problem))["input_ids"] for problem in problems]
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=model.device)
    # Whatever the model's folder says of generation: what is compared is the distribution itself.
    how: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if temperature is not None:
        how = {
            "do_sample": True,
            "temperature": temperature,
            "top_p": 1.0,
            "top_k": 0,
            "num_return_sequences": samples,
        }
    with torch.inference_mode():
        found = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            pad_token_id=pad,
            eos_token_id=ends,
            repetition_penalty=1.0,
            **how,
        )[:, longest:]
    completions = [
        Completion(text, ended=not set(ends).isdisjoint(row))
        for text, row in zip(tokenizer.batch_decode(found, skip_special_tokens=True), found.tolist(), strict=True)
    ]
    return [completions[start : start + samples] for start in range(0, len(completions), samples)]


def _rates(problems: Iterable[VerifiedProblem], completions: Iterable[list[Completion]]) -> list[float]:
    """Return the share of right completions of each problem."""
    return [
        sum(one.ended and problem.solved_by(one.text) for one in several) / len(several)
        for problem, several in zip(problems, completions, strict=True)
    ]
