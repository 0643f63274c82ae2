"""Word problems that say the same words in another order: names and numbers have exchanged their parts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from st_reasoning.errors import InputError
from st_reasoning.problems.gsm import Problem, bag_of_words, gsm_generator, gsm_problem, seed_of

# Orders of the values tried for one draw: most groups are full after a few dozen.
REACH = 1000


class _RefusedError(Exception):
    """The generator would not have drawn such a value there."""


class _Dictated(Random):
    """A random generator that writes down what is drawn from it, and can be told what to answer instead.

    The underlying stream advances as if nothing were dictated, so that the same questions are asked of it.
    """

    def __init__(self, seed: int, script: Sequence[Any] | None = None) -> None:
        super().__init__(seed)
        self.drawn: list[Any] = []
        self.script = script

    def _answer(self, value: Any, allowed: Callable[[Any], bool]) -> Any:
        if self.script is not None:
            if len(self.drawn) >= len(self.script):
                raise _RefusedError
            value = self.script[len(self.drawn)]
            if not allowed(value):
                raise _RefusedError
        self.drawn.append(value)
        return value

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        """Answer with a whole number of the range; ``randint`` comes here too."""
        value = super().randrange(start, stop, step)
        span = range(start) if stop is None else range(start, stop, step)
        return int(self._answer(value, lambda other: isinstance(other, int) and other in span))

    def choice(self, seq: Any) -> Any:
        """Answer with an element of the sequence."""
        return self._answer(super().choice(seq), lambda other: other in seq)

    def sample(self, population: Any, k: int, *, counts: Any = None) -> list[Any]:
        """Answer with ``k`` different elements."""
        values = super().sample(population, k, counts=counts)
        chosen: list[Any] = []
        for value in values:
            chosen.append(self._answer(value, lambda other: other in population and other not in chosen))
        return chosen


def exchanged_problems(template: int, groups: int, size: int, *, seed: int) -> list[list[Problem]]:
    """Draw groups of ``gsm_symbolic`` problems whose questions are made of the very same words.

    A problem is drawn; then two of the values drawn for it (numbers, names, things) change places, and again,
    as long as the template's generator could have drawn the values so. All questions of a group have equal
    word counts, so nothing that counts words can tell them apart. Their solutions differ in what some line
    says, not only in the order of lines or of a line's words, so none is right for another's question.

    Args:
        template: The template.
        groups: How many groups.
        size: How many problems in each.
        seed: The first seed tried; others follow in order.

    Returns:
        ``groups`` lists of ``size`` problems, no question and no solution twice. A problem's ``seed`` is that
        of the draw whose values were exchanged.

    Raises:
        InputError: for a template whose values cannot change places so often.
        MissingExtraError: without reasoning-gym.
    """
    found: list[list[Problem]] = []
    seen: set[str] = set()
    for attempt in range(200 * groups):
        if len(found) == groups:
            break
        group = _exchange(template, seed_of(seed, template, attempt), size)
        texts = {text for problem in group for text in (problem.question, problem.solution)}
        if len(group) == size and seen.isdisjoint(texts):
            found.append(group)
            seen |= texts
    if len(found) < groups:
        raise InputError(
            f"gsm_symbolic template {template} yields {len(found)} groups of {size} problems in the same words; "
            f"expected {groups}: ask for smaller groups or another template"
        )
    return found


def _exchange(template: int, drawn: int, size: int) -> list[Problem]:
    """Return up to ``size`` problems reached from one draw by values changing places, nearest first."""
    generate = gsm_generator(template)
    first = _Dictated(drawn)
    problems = [gsm_problem(generate(first, 1.0), template, drawn)]
    words = bag_of_words(problems[0].question)
    said = {_statements(problems[0].solution)}
    reached, waiting = {tuple(first.drawn)}, [tuple(first.drawn)]
    for values in waiting:  # grows while it is read: breadth first
        for i, j in itertools.combinations(range(len(values)), 2):
            exchanged = list(values)
            exchanged[i], exchanged[j] = exchanged[j], exchanged[i]
            if (key := tuple(exchanged)) in reached or len(reached) == REACH:
                continue
            reached.add(key)
            try:
                problem = gsm_problem(generate(_Dictated(drawn, exchanged), 1.0), template, drawn)
            except (_RefusedError, ZeroDivisionError):
                continue
            if bag_of_words(problem.question) != words:
                continue
            waiting.append(key)
            if (statements := _statements(problem.solution)) not in said:
                said.add(statements)
                problems.append(problem)
            if len(problems) == size:
                return problems
    return problems


def _statements(solution: str) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Return what a solution says, whatever the order of its lines and of the words in a line."""
    return tuple(sorted(tuple(sorted(bag_of_words(line).items())) for line in solution.splitlines()))
