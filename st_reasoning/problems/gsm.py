"""School word problems of reasoning-gym's ``gsm_symbolic``, with worked solutions."""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from st_reasoning.errors import InputError, MissingExtraError

# reasoning-gym ends every gsm_symbolic question with this; it says nothing about the problem, and as the most
# common sentence of the corpus it would be pooled into every embedding.
GSM_SUFFIX = " Give the result as your final answer. Do not include units."

# Templates that round down in a solution, by division or by cutting off decimals, and so may answer wrongly: every step
# of 60 draws of each template was calculated again.
ROUNDED_TEMPLATES = frozenset({2, 3, 4, 49, 60, 75, 99})


@dataclass(frozen=True)
class Problem:
    """One problem of a template, with its worked solution.

    Attributes:
        question: The problem in words.
        solution: The worked solution, final answer included.
        answer: The final answer alone.
        template: Which template of the family it was drawn from; problems of one template differ in names and
            numbers only.
        seed: The seed that makes reasoning-gym draw it again.
    """

    question: str
    solution: str
    answer: str
    template: int
    seed: int


def gsm_templates() -> tuple[int, ...]:
    """Return the ids of the ``gsm_symbolic`` templates that reasoning-gym declares sound, ascending."""
    return tuple(_gsm_module().tasks_ok)


def held_out_templates(share: float = 0.25) -> frozenset[int]:
    """Return the ``gsm_symbolic`` templates that no training set of this project may touch.

    The choice depends on each id alone (its SHA-256), so it does not move when templates are added or dropped.

    Args:
        share: The expected share of templates held out.
    """
    limit = int(share * 2**32)
    return frozenset(
        t for t in gsm_templates() if int.from_bytes(hashlib.sha256(b"gsm_symbolic/%d" % t).digest()[:4], "big") < limit
    )


def gsm_problems(per_template: int, *, seed: int, templates: frozenset[int] | set[int]) -> list[Problem]:
    """Draw ``gsm_symbolic`` problems: the same number from each template, no question and no solution twice.

    Args:
        per_template: How many problems of each template.
        seed: The first seed tried; others follow in order.
        templates: Which templates.

    Returns:
        Problems ordered by draw, then by template, so that any prefix covers the templates evenly.

    Raises:
        InputError: for a template that does not exist, or one that cannot yield that many different problems.
        MissingExtraError: without reasoning-gym.
    """
    known = set(gsm_templates())
    if strange := sorted(set(templates) - known):
        raise InputError(f"unknown gsm_symbolic templates {strange}; expected some of {sorted(known)}")
    problems: list[Problem] = []
    seen: set[str] = set()
    for draw in range(per_template):
        for template in sorted(templates):
            for attempt in range(1000):
                drawn = seed_of(seed, template, draw, attempt)
                problem = draw_problem(template, drawn)
                # Two questions with one solution would make a right answer count as a wrong one in retrieval.
                if seen.isdisjoint((problem.question, problem.solution)):
                    break
            else:
                raise InputError(f"gsm_symbolic template {template} cannot yield {per_template} different problems")
            seen.update((problem.question, problem.solution))
            problems.append(problem)
    return problems


def gsm_generator(template: int) -> Callable[[Any, float], dict[str, Any]]:
    """Return what draws one problem of a template, from a random generator and a difficulty (1.0)."""
    generator: Callable[[Any, float], dict[str, Any]] = _gsm_generators()[template]
    return generator


def draw_problem(template: int, drawn: int) -> Problem:
    """Draw one problem of a template from a seed."""
    return gsm_problem(gsm_generator(template)(Random(drawn), 1.0), template, drawn)  # noqa: S311 - no secrets


def gsm_problem(item: dict[str, Any], template: int, drawn: int) -> Problem:
    """Make a problem of what a generator returns."""
    question = " ".join(str(item["question"]).removesuffix(GSM_SUFFIX).split())
    return Problem(question, str(item["metadata"]["answer_cot"]), str(item["answer"]), template, drawn)


def bag_of_words(text: str) -> Counter[str]:
    """Count the words and numbers of a text, in lower case."""
    return Counter(re.findall(r"\w+", text.lower()))


def gym_items(family: str, size: int, seed: int, settings: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Draw items of a reasoning-gym family, from any seed of ours.

    Raises:
        InputError: for settings that the family does not have.
        MissingExtraError: without reasoning-gym.
    """
    try:
        import reasoning_gym
    except ImportError:
        raise MissingExtraError("reasoning-gym", "demo", "drawing reasoning problems") from None
    try:
        items: Iterable[dict[str, Any]] = reasoning_gym.create_dataset(family, size=size, seed=seed % 2**31, **settings)
    except (TypeError, AssertionError) as error:
        raise InputError(f"{family}: these settings are not reasoning-gym's: {error}") from None
    return items


def seed_of(*parts: int) -> int:
    """Return a 63-bit seed that depends on every part, so that streams of neighbouring seeds do not overlap."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def _gsm_module() -> Any:
    try:
        from reasoning_gym.arithmetic.gsm_symbolic import gsm_symbolic
    except ImportError:
        raise MissingExtraError("reasoning-gym", "demo", "drawing reasoning problems") from None
    return gsm_symbolic


@functools.cache
def _gsm_generators() -> Any:
    module = _gsm_module()
    return module.GSMSymbolicDataset(module.GSMSymbolicDatasetConfig(size=1, seed=0)).generators
