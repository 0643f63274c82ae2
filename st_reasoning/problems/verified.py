"""Problems whose answers can be checked by rule, and the rule: what a model is rewarded for.

reasoning-gym's own scores are not enough for that: of ``gsm_symbolic`` it takes "288 or 7" for 288, and most families
pay a part for an answer that merely contains the right one. A policy finds such gaps.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from st_reasoning.errors import InputError, unknown_name
from st_reasoning.problems.gsm import (
    ROUNDED_TEMPLATES,
    gsm_problems,
    gsm_templates,
    gym_items,
    held_out_templates,
    seed_of,
)

# What stands before the answer, in its last line, as in GSM8K.
MARK = "####"

# The share of questions that nothing is trained on.
HELD_OUT = 0.1


@dataclass(frozen=True)
class VerifiedProblem:
    """A problem that has one right answer.

    Attributes:
        family: Of reasoning-gym.
        question: In words, without what reasoning-gym says about the format.
        solution: Worked out where the family tells how, the answer after ``####`` in the last line; else that line.
        answer: The right one.
    """

    family: str
    question: str
    solution: str
    answer: str

    def solved_by(self, completion: str) -> bool:
        """Whether a completion ends with the right answer: see :func:`final_answer` and :func:`same_answer`."""
        given = final_answer(completion)
        return given is not None and same_answer(given, self.answer)


@dataclass(frozen=True)
class VerifiedFamily:
    """A family in which no second answer is right.

    Attributes:
        settings: What differs from the family's defaults.
        without: Patterns to leave out of the question.
        steps: From an item to the lines of its solution before the answer.
        sound: Whether an item's answer is what its question asks for; reasoning-gym's is not always.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    steps: Callable[[dict[str, Any]], list[str]] = lambda item: []
    sound: Callable[[dict[str, Any]], bool] = lambda item: True


def final_answer(completion: str) -> str | None:
    """Return what stands after ``####`` in the last line of a completion, None unless it stands in that line alone.

    More than one answer is none: who could give several would be paid for guessing.
    """
    *before, last = completion.strip().split("\n")
    last = last.lstrip()
    if not last.startswith(MARK) or MARK in last[len(MARK) :] or any(MARK in line for line in before):
        return None
    return last[len(MARK) :].strip() or None


def same_answer(given: str, right: str) -> bool:
    """Return whether two answers are the same: as numbers, if the right one is one, else as words.

    Numbers may have a sign, separators of thousands and trailing zeros, and nothing else around them.
    """
    number = _number(right)
    if number is not None:
        return _number(given) == number
    # Letters of other scripts have a lower case in this one, as the sign of the kelvin has.
    if right.isascii() and not given.isascii():
        return False
    return " ".join(given.split()).lower() == " ".join(right.split()).lower()


_NUMBER = re.compile(r"[+-]?([1-9]\d{0,2}(,\d{3})+|\d+)(\.\d+)?")


def _number(text: str) -> Decimal | None:
    # isdigit and Decimal know digits of many scripts, of which \d is one: ASCII keeps to what a model was shown.
    if not text.isascii() or not _NUMBER.fullmatch(text):
        return None
    try:
        return Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None


def _sums(item: dict[str, Any]) -> list[str]:
    """Return a line for each operation of a chain, from left to right."""
    first, *rest = str(item["metadata"]["expression"]).split()
    total, lines = int(first), []
    for sign, number in zip(rest[::2], rest[1::2], strict=True):
        new = total + int(number) if sign == "+" else total - int(number)
        lines.append(f"{total} {sign} {number} = {new}")
        total = new
    return lines


def _exact(item: dict[str, Any]) -> bool:
    """Whether the value of an expression is the answer: reasoning-gym rounds divisions down on the way."""
    import sympy

    return bool(sympy.sympify(item["metadata"]["expression"], rational=True) == int(item["answer"]))


def _one_count(item: dict[str, Any]) -> bool:
    """Whether a letter is asked for of which capitals do not matter: reasoning-gym counts them and does not say so."""
    letter, text = str(item["metadata"]["target_letter"]), " ".join(item["metadata"]["span"])
    return letter.isalpha() and text.count(letter) == text.lower().count(letter.lower()) == int(item["answer"])


FAMILIES: dict[str, VerifiedFamily] = {
    "gsm_symbolic": VerifiedFamily(),  # drawn by template, with its own solutions
    "chain_sum": VerifiedFamily(without=("State the final answer to the following arithmetic problem: ",), steps=_sums),
    "basic_arithmetic": VerifiedFamily(sound=_exact),
    "simple_equations": VerifiedFamily(),
    "products": VerifiedFamily(without=(" Give only the result as your final answer.",)),
    "gcd": VerifiedFamily(without=(" Give only the GCD as your final answer.",)),
    "lcm": VerifiedFamily(),
    "letter_counting": VerifiedFamily(sound=_one_count),
    "spell_backward": VerifiedFamily(),
}


def verified_problems(
    families: Mapping[str, Mapping[str, Any]],
    count: int,
    *,
    seed: int,
    held_out: bool = False,
    exclude: Collection[str] = (),
) -> list[VerifiedProblem]:
    """Draw problems of some families, in turn, no question twice.

    Args:
        families: What differs from the families' defaults, by name; some of ``FAMILIES``.
        count: How many in all.
        seed: The seed; each family has its own stream.
        held_out: Whether to draw what nothing here is trained on, instead of the rest, whatever the seeds: of
            ``gsm_symbolic`` other templates, of the other families the questions of :func:`is_held_out`.
        exclude: Questions that must not come.

    Raises:
        InputError: for an unknown family, unknown settings, or one that cannot yield so many different problems.
        MissingExtraError: without reasoning-gym.
    """
    if not families:
        raise InputError(f"families: expected at least one of {', '.join(FAMILIES)}, got none")
    per_family = -(-count // len(families))
    seen = set(exclude)
    drawn = []
    for number, (name, settings) in enumerate(families.items()):
        if name not in FAMILIES:
            raise unknown_name("family", name, FAMILIES)
        draw = _gsm if name == "gsm_symbolic" else _drawn
        fresh: list[VerifiedProblem] = []
        for problem in draw(name, settings, per_family, seed_of(seed, number), held_out):
            if problem.question not in seen:
                seen.add(problem.question)
                fresh.append(problem)
            if len(fresh) == per_family:
                break  # the others are not drawn
        if len(fresh) < per_family:
            raise InputError(
                f"{name} yields {len(fresh)} different problems with these settings; expected {per_family}: "
                "ask for fewer"
            )
        drawn.append(fresh)
    return [problems[place] for place in range(per_family) for problems in drawn][:count]


def is_held_out(question: str) -> bool:
    """Return whether nothing may be trained on a question: a tenth of all, by the SHA-256 of each alone.

    So models that were trained one after another, on problems drawn with any seeds, can be asked the same questions.
    """
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:4], "big") < HELD_OUT * 2**32


def _gsm(name: str, settings: Mapping[str, Any], count: int, seed: int, held_out: bool) -> Iterator[VerifiedProblem]:
    if settings:
        raise InputError(f"{name}: expected no settings, got {', '.join(settings)}")
    unseen = held_out_templates()
    templates = (unseen if held_out else frozenset(gsm_templates()) - unseen) - ROUNDED_TEMPLATES
    for problem in gsm_problems(-(-count // len(templates)), seed=seed, templates=templates):
        yield VerifiedProblem(name, problem.question, problem.solution, problem.answer)


def _drawn(name: str, settings: Mapping[str, Any], count: int, seed: int, held_out: bool) -> Iterator[VerifiedProblem]:
    """Yield what reasoning-gym draws on one side of the split by question."""
    family = FAMILIES[name]
    # Small settings repeat themselves; of the side that is held out, one in ten comes.
    items = gym_items(
        name, 20 * count * (round(1 / HELD_OUT) if held_out else 1), seed, {**family.settings, **settings}
    )
    for item in items:
        question = str(item["question"])
        for part in family.without:
            question = question.replace(part, "")
        question = " ".join(question.split())
        if is_held_out(question) is not held_out or not family.sound(item):
            continue
        answer = str(item["answer"])
        solution = "\n".join([*family.steps(item), f"{MARK} {answer}"])
        yield VerifiedProblem(name, question, solution, answer)
