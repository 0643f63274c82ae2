"""Word problems with and without the same answer, alike in everything else."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from st_reasoning.errors import InputError
from st_reasoning.problems.gsm import Problem, bag_of_words, draw_problem, seed_of

DRAWS = 1500  # of each template: what there is to choose from
CHOICE = 12  # at most so many problems of one template and answer are looked at


@dataclass(frozen=True)
class AnswerQuad:
    """Four problems of one template, two with the lower of two answers and two with the higher.

    Attributes:
        first: A problem with the lower answer and one with the higher.
        second: The same, with other numbers. Either shares as many words with a problem of ``first`` as the
            other does, or nearly.
    """

    first: tuple[Problem, Problem]
    second: tuple[Problem, Problem]


def answer_quads(
    rings: int, *, seed: int, templates: Collection[int], size: int = 2, uses: int = 5
) -> list[tuple[AnswerQuad, ...]]:
    """Draw rings of quads, a ring having the same two answers and a quad for each of several templates.

    In a ring the ``first`` of each quad goes with its own ``second`` (same template) and with the ``second`` of
    the next quad, the last with the first one's (another template). Every problem is so compared with one of
    the same answer and with one of the other, which share with it as many words, or nearly, and no number but
    those of the template. No question comes twice, and none contains its answer.

    Args:
        rings: How many rings.
        seed: The seed of the draws.
        templates: The ``gsm_symbolic`` templates to draw from.
        size: How many templates in a ring.
        uses: In how many rings a template may be.

    Raises:
        InputError: if the templates have too few answers in common.
        MissingExtraError: without reasoning-gym.
    """
    shelves = {template: _by_answer(template, seed) for template in sorted(templates)}
    fixed = {template: _always_said(shelf) for template, shelf in shelves.items()}
    used_in: Counter[int] = Counter()
    found: list[tuple[AnswerQuad, ...]] = []
    used: set[str] = set()
    taken: set[int] = set()
    for low, high in _neighbours(shelves.values(), size):
        if len(found) == rings:
            return found
        if not taken.isdisjoint((low, high)):
            continue
        able = [t for t, shelf in shelves.items() if low in shelf and high in shelf and used_in[t] < uses]
        able.sort(key=lambda template: (used_in[template], template))  # the least used come first
        ring = _ring([(shelves[t], fixed[t]) for t in able], low, high, size, used)
        if ring:
            found.append(ring)
            taken.update((low, high))
            problems = [problem for quad in ring for problem in (*quad.first, *quad.second)]
            used.update(problem.question for problem in problems)
            used_in.update(quad.first[0].template for quad in ring)
    if len(found) < rings:
        raise InputError(
            f"the templates yield {len(found)} rings of {size} with the same two answers; expected {rings}"
        )
    return found


Shelf = dict[int, list[Problem]]  # answer -> problems of one template that have it


def _by_answer(template: int, seed: int) -> Shelf:
    """Return what a template draws, by answer; problems whose answer is no whole number or is told are left out."""
    shelf: Shelf = {}
    known = set()
    for draw in range(DRAWS):
        problem = draw_problem(template, seed_of(seed, template, draw))
        answer = float(problem.answer.replace(",", ""))
        if answer == int(answer) and str(int(answer)) not in bag_of_words(problem.question):
            if problem.question not in known:
                shelf.setdefault(int(answer), []).append(problem)
            known.add(problem.question)
    return {answer: problems[:CHOICE] for answer, problems in shelf.items() if len(problems) >= 2}


def _neighbours(shelves: Collection[Shelf], size: int) -> list[tuple[int, int]]:
    """Return pairs of close answers that ``size`` templates have; those that most have come first."""
    answers = sorted({answer for shelf in shelves for answer in shelf})
    pairs = []
    for place, low in enumerate(answers):
        for high in itertools.islice(answers, place + 1, None):
            if high >= low + max(3, low // 5):
                break
            having = sum(low in shelf and high in shelf for shelf in shelves)
            if having >= size:
                pairs.append((-having, high - low, low, high))
    return [(low, high) for _, _, low, high in sorted(pairs)]


def _always_said(shelf: Shelf) -> set[str]:
    """Return the words that every problem of a template contains."""
    return set.intersection(*(set(bag_of_words(p.question)) for problems in shelf.values() for p in problems))


def _ring(
    shelves: Sequence[tuple[Shelf, set[str]]], low: int, high: int, size: int, used: Collection[str]
) -> tuple[AnswerQuad, ...] | None:
    """Return a ring of as many quads as asked for, of the first templates that allow it.

    A shelf comes with the words that every problem on it contains.
    """
    firsts: list[tuple[Problem, Problem]] = []
    rest: list[tuple[Shelf, set[str]]] = []
    for shelf, always in shelves:
        fresh = [[problem for problem in shelf[answer] if problem.question not in used] for answer in (low, high)]
        if all(len(problems) >= 2 for problems in fresh):
            firsts.append((fresh[0][0], fresh[1][0]))
            rest.append(({low: fresh[0][1:], high: fresh[1][1:]}, always))
        if len(firsts) == size:
            break
    else:
        return None
    quads = []
    for place, (shelf, always) in enumerate(rest):
        second = _alike(shelf, always, low, high, (*firsts[place], *firsts[place - 1]))
        if second is None:
            return None
        quads.append(AnswerQuad(firsts[place], second))
    return tuple(quads)


def _alike(
    shelf: Shelf, always: set[str], low: int, high: int, others: Sequence[Problem]
) -> tuple[Problem, Problem] | None:
    """Return a problem of each answer that share no drawn number with ``others``, and words as equally as can be."""
    words = [bag_of_words(other.question) for other in others]
    bags = {problem: bag_of_words(problem.question) for answer in (low, high) for problem in shelf[answer]}
    shared = {problem: [bag & other for other in words] for problem, bag in bags.items()}
    apart = {
        answer: [p for p in shelf[answer] if all(w in always for bag in shared[p] for w in bag if w.isdigit())]
        for answer in (low, high)
    }
    pairs = [(one, other) for one in apart[low] for other in apart[high]]
    return min(
        pairs,
        key=lambda pair: sum(
            abs(one.total() - other.total()) for one, other in zip(shared[pair[0]], shared[pair[1]], strict=True)
        ),
        default=None,
    )
