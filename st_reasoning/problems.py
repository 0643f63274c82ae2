"""reasoning-gym behind one door: family and seed in, problems with worked solutions out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from st_reasoning.errors import InputError, MissingExtraError

# reasoning-gym ends every gsm_symbolic question with this; it says nothing about the problem, and as the most
# common sentence of the corpus it would be pooled into every embedding.
GSM_SUFFIX = " Give the result as your final answer. Do not include units."


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
    generators = _gsm_dataset().generators
    from random import Random

    problems: list[Problem] = []
    seen: set[str] = set()
    for draw in range(per_template):
        for template in sorted(templates):
            for attempt in range(1000):
                drawn = _seed_of(seed, template, draw, attempt)
                item = generators[template](Random(drawn), 1.0)  # noqa: S311 - word problems, not secrets
                question = " ".join(str(item["question"]).removesuffix(GSM_SUFFIX).split())
                solution = str(item["metadata"]["answer_cot"])
                # Two questions with one solution would make a right answer count as a wrong one in retrieval.
                if seen.isdisjoint((question, solution)):
                    break
            else:
                raise InputError(f"gsm_symbolic template {template} cannot yield {per_template} different problems")
            seen.update((question, solution))
            problems.append(Problem(question, solution, str(item["answer"]), template, drawn))
    return problems


def _seed_of(*parts: int) -> int:
    """Return a 63-bit seed that depends on every part, so that streams of neighbouring seeds do not overlap."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def _gsm_module() -> Any:
    try:
        from reasoning_gym.arithmetic.gsm_symbolic import gsm_symbolic
    except ImportError:
        raise MissingExtraError("reasoning-gym", "demo", "drawing reasoning problems") from None
    return gsm_symbolic


def _gsm_dataset() -> Any:
    module = _gsm_module()
    return module.GSMSymbolicDataset(module.GSMSymbolicDatasetConfig(size=1, seed=0))
