"""Propositional formulas of reasoning-gym and whether they mean the same."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

from st_reasoning.errors import InputError, MissingExtraError

VARIABLES = ("P", "Q", "R")
# In words: an embedder's vocabulary may have no logical symbols, and would read them all as one unknown token.
WORDS = {"∧": "and", "∨": "or", "→": "implies", "↔": "iff", "¬": "not "}  # noqa: RUF001 - reasoning-gym writes so
# "P and P": a formula with such a part says less than it seems to.
IDLE = re.compile(r"\b([PQR]) \w+ \1\b")


@dataclass(frozen=True)
class FormulaQuad:
    """Two pairs of formulas: the two of a pair are made of the same words, and differ in meaning.

    Attributes:
        first: Two formulas of equal word counts that are not equivalent.
        second: Two formulas of other word counts; each is equivalent to the one at its place in ``first``, and
            not to the other.
    """

    first: tuple[str, str]
    second: tuple[str, str]


def formula_quads(count: int, *, seed: int, pool: int = 300) -> list[FormulaQuad]:
    """Draw formulas such that word counts tell nothing of which are equivalent; no formula comes twice.

    Of the formulas at hand those are taken whose equivalent pairs have as many sequences of two and three words
    in common as the others, or nearly.

    Args:
        count: How many quads.
        seed: Seed of reasoning-gym's ``propositional_logic``.
        pool: How many of its problems to take premises from.

    Raises:
        InputError: if the pool is too small.
        MissingExtraError: without reasoning-gym.
    """
    # word counts -> truth table -> formulas
    shelves: dict[tuple[str, ...], dict[tuple[bool, ...], list[str]]] = {}
    for formula, table in _formulas(seed, pool).items():
        shelves.setdefault(tuple(sorted(_words(formula))), {}).setdefault(table, []).append(formula)
    # two truth tables -> the pairs of formulas of equal word counts that have them
    partners: dict[tuple[tuple[bool, ...], tuple[bool, ...]], list[tuple[str, str]]] = {}
    for shelf in shelves.values():
        for low, high in itertools.combinations(sorted(shelf), 2):
            partners.setdefault((low, high), []).extend(itertools.product(shelf[low][:3], shelf[high][:3]))
    quads: list[FormulaQuad] = []
    used: set[str] = set()
    for meanings in sorted(partners):
        free = [pair for pair in partners[meanings] if used.isdisjoint(pair)]
        quad = min(
            (
                FormulaQuad(first, second)
                for first, second in itertools.combinations(free, 2)
                if sorted(_words(first[0])) != sorted(_words(second[0]))
            ),
            key=_advantage,
            default=None,
        )
        if quad is not None:
            quads.append(quad)
            used.update(quad.first + quad.second)
    if len(quads) < count:
        raise InputError(f"{pool} problems yield {len(quads)} quads of formulas; expected {count}: take more problems")
    limit = sorted(map(_advantage, quads))[count - 1]
    fair = [quad for quad in quads if _advantage(quad) <= limit]
    # Evenly over all meanings, which are in the order of their truth tables.
    return [fair[number * len(fair) // count] for number in range(count)]


def _words(formula: str) -> list[str]:
    return formula.replace("(", "").replace(")", "").split()


def _advantage(quad: FormulaQuad) -> int:
    """Return by how many common sequences of words the equivalent pairs and the others differ."""

    def common(one: str, other: str) -> int:
        sequences = [
            {tuple(words[place : place + length]) for length in (2, 3) for place in range(len(words) - length + 1)}
            for words in (_words(one), _words(other))
        ]
        return len(sequences[0] & sequences[1])

    alike = sum(common(one, other) for one, other in zip(quad.first, quad.second, strict=True))
    return abs(alike - sum(common(one, other) for one, other in zip(quad.first, reversed(quad.second), strict=True)))


def _formulas(seed: int, problems: int) -> dict[str, tuple[bool, ...]]:
    """Return formulas in words, each with its truth table; none is always true or always false."""
    try:
        from reasoning_gym.logic.propositional_logic import (
            Expression,
            PropositionalLogicConfig,
            PropositionalLogicDataset,
        )
    except ImportError:
        raise MissingExtraError("reasoning-gym", "demo", "drawing reasoning problems") from None
    # Premises alone are wanted, as many as a problem may have; the conclusions are thrown away.
    config = PropositionalLogicConfig(
        min_vars=len(VARIABLES), max_vars=len(VARIABLES), min_complexity=3, max_complexity=3,
        min_statements=20, max_statements=20, seed=seed, size=problems,
    )  # fmt: skip
    worlds = [
        dict(zip(VARIABLES, values, strict=True)) for values in itertools.product((False, True), repeat=len(VARIABLES))
    ]
    formulas: dict[str, tuple[bool, ...]] = {}
    for item in PropositionalLogicDataset(config):
        for premise in item["metadata"]["premises"]:
            expression: Any = Expression.from_string(premise)
            table = tuple(bool(expression.evaluate(world)) for world in worlds)
            formula = _in_words(premise)
            if len(set(table)) == 2 and not IDLE.search(formula):
                formulas[formula] = table
    return formulas


def _in_words(formula: str) -> str:
    """Return a formula with words for its symbols and without the outermost parentheses."""
    outer = formula.startswith("(") and formula.endswith(")")
    text = formula[1:-1] if outer else formula
    for symbol, word in WORDS.items():
        text = text.replace(symbol, word)
    return text
