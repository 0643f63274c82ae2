"""The verifier: a wrong one is worse than none, for a policy finds every gap."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction

import pytest

from st_reasoning.errors import InputError
from st_reasoning.problems.gsm import ROUNDED_TEMPLATES, Problem, draw_problem, gsm_templates, held_out_templates
from st_reasoning.problems.verified import (
    FAMILIES,
    HELD_OUT,
    VerifiedProblem,
    final_answer,
    is_held_out,
    same_answer,
    verified_problems,
)

pytest.importorskip("reasoning_gym", reason="draws the problems: pip install 'st-reasoning[demo]'")

NUMBER = VerifiedProblem("gsm_symbolic", "How many?", "#### 1288", "1288")
WORD = VerifiedProblem("spell_backward", "Spell this word backward: ammonia", "#### ainomma", "ainomma")


@pytest.mark.parametrize(
    "completion",
    [
        "#### 1288",
        "12 * 100 = 1200\n1200 + 88 = 1288\n#### 1288",
        "#### 1,288",
        "#### 1288.00",
        "#### +1288  \n",
        "####1288",
        "1288\n #### 1288",
    ],
)
def test_right_answers_are_rewarded(completion: str):
    assert NUMBER.solved_by(completion)


@pytest.mark.parametrize(
    "completion",
    [
        "#### 1287",
        "#### -1288",
        "#### 1288.5",
        "1288",  # no mark
        "The answer is #### 1288",  # not a line of its own
        "#### 1288\nand more",
        "#### 1288 or 7",  # reasoning-gym itself pays for this one
        "#### the answer is 1288",  # and for this
        "#### 1 1288",
        "#### 1\n#### 1288",  # one of many guesses
        "#### 1288\n#### 1",
        "#### 1288 #### 1288",
        "#### 1286, 1287, 1288",
        "#### 12,88",
        "#### 0x508",
        "#### 1288e0",
        "#### 644*2",
        "#### 1288/1",
        "#### ١٢٨٨",  # digits of another script
        "#### $1288",
        "#### NaN",
        "####",
        "",
        "####\n1288",
        "#" * 1000,
        "#### " + "1288" * 200,
        "#### 1288\x00",
        "#### 1_288",
        "#### 0,001,288",  # no such separators
    ],
)  # fmt: skip
def test_wrong_malformed_and_adversarial_answers_earn_nothing(completion: str):
    assert not NUMBER.solved_by(completion)


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("#### ainomma", True),
        ("#### AINOMMA", True),
        ("#### ammonia", False),
        ("#### ainomma ammonia", False),
        ("#### ainomm", False),
        ("#### a i n o m m a", False),
        ("#### \N{CYRILLIC SMALL LETTER A}inomma", False),  # looks like it
    ],
)
def test_words_are_compared_as_words(completion: str, right: bool):
    assert WORD.solved_by(completion) is right


def test_a_sign_whose_lower_case_is_the_letter_is_not_the_letter():
    assert same_answer("KOOB", "koob")
    assert not same_answer("\N{KELVIN SIGN}oob", "koob")


def test_numbers_with_separators_and_decimals():
    assert same_answer("0.50", "0.5")
    assert same_answer("-0", "0")
    assert not same_answer("", "0")
    assert not same_answer("1e400", "1")
    assert final_answer("a\n####  7 ") == "7"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_solves_its_own_problems_and_no_other(family: str):
    problems = verified_problems({family: {}}, 40, seed=5)
    assert len({problem.question for problem in problems}) == 40
    for problem in problems:
        assert problem.solved_by(problem.solution), problem
        assert "####" not in problem.question
        assert problem.answer not in ("", "None")
    wrong = sum(
        first.solved_by(second.solution)
        for first, second in itertools.pairwise(problems)
        if first.answer != second.answer
    )
    assert wrong == 0


def test_answers_of_expressions_are_their_values():
    """reasoning-gym rounds -1 / 33 to -1."""
    for held_out in (False, True):
        for problem in verified_problems({"basic_arithmetic": {}}, 300, seed=0, held_out=held_out):
            expression = max(re.findall(r"[-+*/() \d]+", problem.question), key=len).strip()
            exact = re.sub(r"\d+", lambda number: f"Fraction({number.group()})", expression)
            assert eval(exact, {"Fraction": Fraction}) == int(problem.answer), problem


def test_letters_are_counted_the_same_with_and_without_capitals():
    for problem in verified_problems({"letter_counting": {}}, 400, seed=0):
        letter, text = re.fullmatch(r'.*letter "(.)" appear in the text: "(.*)"\?', problem.question).groups()
        assert letter.isalpha()
        assert text.count(letter) == text.lower().count(letter.lower()) == int(problem.answer), problem


def test_steps_of_word_problems_are_exact():
    """Of the templates that round, none is drawn."""
    checked = 0
    for held_out in (False, True):
        for problem in verified_problems({"gsm_symbolic": {}}, 400, seed=0, held_out=held_out):
            solution = problem.solution.replace(",", "").replace("$", "")
            number = r"-?\d+(?:\.\d+)?"
            for first, sign, second, result in re.findall(
                rf"(?<![-+*/.\d(x] )(?<![-+*/.\d(])({number}) ?([-+*/]) ?({number}) ?= ?({number})(?![\d/%]|\.\d)",
                solution,
            ):
                value = eval(f"Fraction('{first}') {sign} Fraction('{second}')", {"Fraction": Fraction})
                assert abs(value - Fraction(result)) <= abs(value) / 10**6, problem.solution
                checked += 1
    assert checked > 500


def test_worked_sums_add_up():
    for problem in verified_problems({"chain_sum": {"max_terms": 6}}, 30, seed=1):
        *steps, last = problem.solution.split("\n")
        for step in steps:
            left, right = step.split(" = ")
            first, sign, second = left.split()
            assert int(first) + (1 if sign == "+" else -1) * int(second) == int(right)
        assert last == f"#### {problem.answer}" == f"#### {steps[-1].split(' = ')[1]}"


def test_draws_depend_on_the_seed_alone_and_leave_out_what_they_are_told():
    families = {"chain_sum": {"max_terms": 2, "max_digits": 1}, "gcd": {}}
    first = verified_problems(families, 20, seed=3)
    assert first == verified_problems(families, 20, seed=3)
    assert [problem.family for problem in first[:4]] == ["chain_sum", "gcd"] * 2
    asked = {problem.question for problem in first}
    second = verified_problems(families, 20, seed=3, exclude=asked)
    assert asked.isdisjoint(problem.question for problem in second)


def test_held_out_templates_are_never_trained_on(monkeypatch: pytest.MonkeyPatch):
    drawn: set[int] = set()

    def noted(template: int, seed: int) -> Problem:
        drawn.add(template)
        return draw_problem(template, seed)

    monkeypatch.setattr("st_reasoning.problems.gsm.draw_problem", noted)
    verified_problems({"gsm_symbolic": {}}, 164, seed=1)
    assert drawn == set(gsm_templates()) - held_out_templates() - ROUNDED_TEMPLATES
    drawn.clear()
    verified_problems({"gsm_symbolic": {}}, 36, seed=1, held_out=True)
    assert drawn == held_out_templates() - ROUNDED_TEMPLATES


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gsm_symbolic"])
def test_a_question_is_held_out_whatever_the_seed(family: str):
    """So that models trained one after another, each with a seed of its own, can be asked the same."""
    for seed in (1, 2):
        trained = verified_problems({family: {}}, 60, seed=seed)
        asked = verified_problems({family: {}}, 20, seed=seed, held_out=True)
        assert {is_held_out(problem.question) for problem in trained} == {False}
        assert {is_held_out(problem.question) for problem in asked} == {True}


def test_a_tenth_of_the_questions_is_held_out():
    share = sum(is_held_out(f"{a} + {b} =") for a in range(100) for b in range(100)) / 10_000
    assert abs(share - HELD_OUT) < 4 * (HELD_OUT * (1 - HELD_OUT) / 10_000) ** 0.5


@pytest.mark.parametrize(
    ("families", "count", "message"),
    [
        ({}, 1, "families: expected at least one"),
        ({"chain_sums": {}}, 1, "chain_sum"),
        ({"chain_sum": {"terms": 2}}, 1, "chain_sum: these settings are not reasoning-gym's"),
        ({"gsm_symbolic": {"size": 2}}, 1, "gsm_symbolic: expected no settings"),
        ({"chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}}, 5000, "ask for fewer"),
    ],
)
def test_what_cannot_be_drawn_is_refused(families: dict, count: int, message: str):
    with pytest.raises(InputError, match=message):
        verified_problems(families, count, seed=0)
