"""Problems of many reasoning-gym families without the sentence that says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from st_reasoning.errors import InputError
from st_reasoning.problems.gsm import gym_items, seed_of


@dataclass(frozen=True)
class Family:
    """How to draw a family of problems and what to keep of one.

    Attributes:
        matter: From a reasoning-gym item to the matter of the problem, without instruction and format.
        settings: What differs from the family's defaults, chosen so that families share their surface.
        keep: A pattern the matter must contain, where other families can draw the same text.
    """

    matter: Callable[[dict[str, Any]], str]
    settings: dict[str, Any] = field(default_factory=dict)
    keep: str = ""


def _metadata(key: str) -> Callable[[dict[str, Any]], str]:
    return lambda item: str(item["metadata"][key])


def _joined(key: str, separator: str) -> Callable[[dict[str, Any]], str]:
    return lambda item: separator.join(str(part) for part in item["metadata"][key])


def _after_colon(item: dict[str, Any]) -> str:
    return str(item["question"]).split(": ", 1)[1]


def _story(item: dict[str, Any]) -> str:
    """The first paragraph: the question, with its request for the format, is the second."""
    return str(item["question"]).split("\n\n")[0]


def _statements(item: dict[str, Any]) -> str:
    """What the inhabitants say: the island before it and the question after it are the same in every problem."""
    return re.split(r"inhabitants: [^.]*\. | So who is ", str(item["question"]))[1]


def _unasked(item: dict[str, Any]) -> str:
    """All sentences but the last, which asks."""
    return " ".join(re.split(r"(?<=[.?]) ", str(item["question"]))[:-1])


def _whole_numbers(item: dict[str, Any]) -> str:
    return ", ".join(str(number).removesuffix(".0") for number in item["metadata"]["original_numbers"])


# Three worlds, and several families in each: formulas of numbers and letters, people and what holds between
# them, and words of one novel. Within a world the families have much the same vocabulary. Not every family
# will do: what polynomial_multiplication draws depends on Python's hash seed.
FAMILIES: dict[str, Family] = {
    "chain_sum": Family(_metadata("expression"), {"max_digits": 2}),
    "basic_arithmetic": Family(_metadata("expression"), {"max_digits": 2}, r"[*/(]"),
    "simple_equations": Family(_metadata("equation")),
    "decimal_chain_sum": Family(_metadata("expression"), {"max_digits": 2, "max_decimal_places": 1}),
    "complex_arithmetic": Family(_after_colon, {}, "i"),
    "number_sequence": Family(_joined("sequence", ", ")),
    "number_sorting": Family(_whole_numbers, {"max_decimals": 0, "min_value": -40, "max_value": 40, "max_numbers": 8}),
    "propositional_logic": Family(_joined("premises", ", ")),
    "family_relationships": Family(_story),
    "knights_knaves": Family(_statements),
    "aiw": Family(_unasked, {"task_type_weights": [0.0, 0.5, 0.5]}),
    "caesar_cipher": Family(_metadata("cipher_text"), {"max_words": 8}),
    "letter_jumble": Family(_joined("scrambled_words", " "), {"min_corruption_level": 0.5, "max_words": 8}),
    "sentence_reordering": Family(_after_colon, {"max_words_in_sentence": 8}),
}


def family_instances(per_family: int, *, seed: int, exclude: Collection[str] = ()) -> list[tuple[str, str]]:
    """Draw problems of each family in ``FAMILIES``, reduced to their matter.

    Args:
        per_family: How many of each family.
        seed: The seed; each family has its own stream.
        exclude: Texts that must not come again.

    Returns:
        Pairs of text and family, no text twice, ordered by draw and then by family.

    Raises:
        InputError: if a family cannot yield so many different texts.
        MissingExtraError: without reasoning-gym.
    """
    seen = set(exclude)
    drawn: list[list[tuple[str, str]]] = []
    for number, (name, family) in enumerate(FAMILIES.items()):
        items = gym_items(name, 20 * per_family, seed_of(seed, number), family.settings)
        texts: list[tuple[str, str]] = []
        for item in items:
            # Lower case, or the cipher's capitals would give it away.
            text = " ".join(family.matter(item).split()).lower()
            if text not in seen and re.search(family.keep, text):
                seen.add(text)
                texts.append((text, name))
            if len(texts) == per_family:
                break
        else:
            raise InputError(f"{name} yields {len(texts)} different texts; expected {per_family}: ask for fewer")
        drawn.append(texts)
    return [texts[place] for place in range(per_family) for texts in drawn]
