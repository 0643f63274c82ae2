"""What the micro base model reads: questions with their solutions or answers, of many reasoning-gym families."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from st_reasoning.errors import InputError, unknown_name
from st_reasoning.problems.gsm import (
    ROUNDED_TEMPLATES,
    Problem,
    draw_problem,
    gsm_templates,
    gym_items,
    held_out_templates,
    seed_of,
)
from st_reasoning.problems.verified import FAMILIES, MARK, VerifiedProblem, is_held_out, verified_problems

# Families whose answers are not asked for here, with the pattern of what reasoning-gym says about the format.
OTHER_FAMILIES = {
    "aiw": "",
    "calendar_arithmetic": r" (Reply|Write|Answer|Give|Respond|Your|Return|Use|Provide|Express|Only) .*$",
    "family_relationships": r" (Respond|Answer|Reply|Provide) .*$",
    "knights_knaves": r" \(Format your answer .*$",
    "leg_counting": r"^.*Now, ",
    "needle_haystack": r" Reply only with a name\.$",
    "number_sequence": "",
    "sentence_reordering": "",
    "syllogism": r" \(Answer Yes or No\)$",
}


@dataclass(frozen=True)
class Part:
    """A family in the corpus.

    Attributes:
        documents: How many.
        settings: What differs from the family's defaults.
        marked: The share of documents that hold the worked solution with the answer after ``####``; of families whose
            answers are not checked, none do.
        otherwise: What the other documents hold: the ``answer`` alone, as reasoning-gym gives it, or the whole
            ``solution`` without the mark.
    """

    documents: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    marked: float = 1.0
    otherwise: Literal["answer", "solution"] = "answer"

    def __post_init__(self) -> None:
        if self.documents < 1 or not 0 <= self.marked <= 1:
            raise InputError("a part of the corpus: expected documents from 1 on and marked between 0 and 1")


@dataclass(frozen=True)
class Document:
    """A question, a line break, and what follows."""

    family: str
    text: str


def documents(parts: Mapping[str, Part], *, seed: int, held_out: bool = False) -> list[Document]:
    """Draw a corpus, in random order, no question twice.

    Args:
        parts: The families.
        seed: Of the draws and of the order.
        held_out: Whether to draw what is never trained on, see :func:`verified_problems`.

    Raises:
        InputError: for an unknown family, unknown settings, or one that cannot yield so many.
        MissingExtraError: without reasoning-gym.
    """
    found: list[Document] = []
    for name, part in parts.items():
        if name not in FAMILIES and name not in OTHER_FAMILIES:
            raise unknown_name("family", name, (*FAMILIES, *OTHER_FAMILIES), where="corpus")
        # A stream for each family, whatever else is drawn.
        stream = seed_of(seed, *name.encode())
        draw = _word_problems if name == "gsm_symbolic" else _verified if name in FAMILIES else _other
        found += [Document(name, text) for text in draw(name, part, stream, held_out)]
    Random(seed).shuffle(found)  # noqa: S311 - no secrets
    return found


def _verified(name: str, part: Part, seed: int, held_out: bool) -> Iterator[str]:
    chance = Random(seed)  # noqa: S311 - no secrets
    for problem in verified_problems({name: part.settings}, part.documents, seed=seed, held_out=held_out):
        yield f"{problem.question}\n{_told(problem, part, chance)}"


def _told(problem: Problem | VerifiedProblem, part: Part, chance: Random) -> str:
    """Return what follows a question."""
    if chance.random() < part.marked:
        return problem.solution
    return problem.answer if part.otherwise == "answer" else problem.solution.replace(f"{MARK} ", "")


def _word_problems(name: str, part: Part, seed: int, held_out: bool) -> Iterator[str]:
    """Yield problems of each template in turn; some templates have few and are passed over then."""
    if part.settings:
        raise InputError(f"{name}: expected no settings, got {', '.join(part.settings)}")
    unseen = held_out_templates()
    templates = sorted((unseen if held_out else frozenset(gsm_templates()) - unseen) - ROUNDED_TEMPLATES)
    chance = Random(seed)  # noqa: S311 - no secrets
    seen: set[str] = set()
    for draw in range(100 * part.documents):
        problem = draw_problem(templates[draw % len(templates)], seed_of(seed, draw))
        if problem.question not in seen:
            seen.add(problem.question)
            yield f"{problem.question}\n{_told(problem, part, chance)}"
        if len(seen) == part.documents:
            return
    raise InputError(f"{name} yields {len(seen)} different questions; expected {part.documents}: ask for fewer")


def _other(name: str, part: Part, seed: int, held_out: bool) -> Iterator[str]:
    seen: set[str] = set()
    for item in gym_items(name, 100 * part.documents, seed, part.settings):
        question = re.sub(OTHER_FAMILIES[name], "", " ".join(str(item["question"]).split()))
        if question not in seen and is_held_out(question) is held_out:
            seen.add(question)
            yield f"{question}\n{' '.join(str(item['answer']).split())}"
        if len(seen) == part.documents:
            return
    raise InputError(f"{name} yields {len(seen)} different questions; expected {part.documents}: ask for fewer")
