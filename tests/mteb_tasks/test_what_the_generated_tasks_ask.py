"""The labels are right, and surface similarity is shut out where a task says so; checked by other means."""

import functools
import itertools
import re
from collections import Counter

import pytest

from mteb_tasks.clustering.gsm_symbolic_calculation import calculation
from mteb_tasks.drawn import answer_rings, family_texts
from mteb_tasks.pair_classification.gsm_symbolic_cross_template import GSMSymbolicCrossTemplateAnswerPC
from mteb_tasks.pair_classification.gsm_symbolic_same_template import GSMSymbolicSameTemplateAnswerPC
from mteb_tasks.pair_classification.propositional_equivalence import PropositionalEquivalencePC
from mteb_tasks.regression.gsm_symbolic_steps import GSMSymbolicStepsRegression
from mteb_tasks.retrieval.gsm_symbolic_exchanged import GROUP_SIZES, GROUPS, GSMSymbolicExchangedRetrieval
from st_reasoning.errors import InputError
from st_reasoning.problems import (
    FAMILIES,
    answer_quads,
    exchanged_problems,
    formula_quads,
    gsm_problems,
    gsm_templates,
    held_out_templates,
)

pytest.importorskip("reasoning_gym", reason="reasoning-gym draws the tasks: pip install 'st-reasoning[demo]'")


def words(text):
    return Counter(re.findall(r"\w+", text.lower()))


def groups():
    rows = iter(GSMSymbolicExchangedRetrieval().draw())
    return [list(itertools.islice(rows, size)) for size in GROUP_SIZES.values() for _ in range(GROUPS)]


def test_questions_of_a_group_are_equal_as_bags_of_words_and_solutions_are_not():
    assert set(GROUP_SIZES) < held_out_templates()
    found = groups()
    for group in found:
        assert len({frozenset(words(row["question"]).items()) for row in group}) == 1
        assert len({row["question"] for row in group}) == len(group) > 1
        # Not even a solution's lines in another order are the same.
        assert len({tuple(sorted(map(str.lower, row["solution"].splitlines()))) for row in group}) == len(group)
    rows = [row for group in found for row in group]
    assert len({row["question"] for row in rows}) == len({row["solution"] for row in rows}) == len(rows) == 132


def test_solutions_calculate_rightly_with_the_numbers_of_their_question():
    checked = 0
    for row in itertools.chain.from_iterable(groups()):
        for step in calculation(row["solution"].replace(".0", "")).split("; "):
            # Two whole numbers; what has a decimal or three numbers is left out.
            if found := re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", step):
                one, sign, other, result = found.groups()
                assert eval(f"{one} {sign} {other}") == int(result), row
                checked += 1
    assert checked > 300


@pytest.mark.parametrize("task_class", [GSMSymbolicSameTemplateAnswerPC, GSMSymbolicCrossTemplateAnswerPC])
def test_answers_are_equal_where_the_label_says_so_and_templates_are_as_named(task_class):
    problems = {
        problem.question: problem for ring in answer_rings() for quad in ring for problem in (*quad.first, *quad.second)
    }
    assert len(problems) == 160
    assert {problem.template for problem in problems.values()} <= held_out_templates()
    for row in task_class().draw()["test"]:
        pair = [problems[row["sentence1"]], problems[row["sentence2"]]]
        # The last line of the worked solution is a second witness of the answer.
        answers = {float(problem.solution.rsplit("####", 1)[1].replace(",", "")) for problem in pair}
        assert (len(answers) == 1) == bool(row["labels"])
        assert max(answers) - min(answers) <= max(2, 0.2 * min(answers))
        same_template = len({problem.template for problem in pair}) == 1
        assert same_template == (task_class is GSMSymbolicSameTemplateAnswerPC)
        for problem in pair:
            assert str(int(float(problem.answer.replace(",", "")))) not in words(problem.question)


@functools.cache
def always_said(template):
    problems = gsm_problems(12, seed=99, templates={template})
    return set.intersection(*(set(words(problem.question)) for problem in problems))


def numbers_drawn(problem):
    """The numbers of a question that other problems of its template do not all have."""
    return {word for word in words(problem.question) if word.isdigit()} - always_said(problem.template)


def test_compared_problems_share_no_number_drawn():
    for ring in answer_rings()[::4]:
        for place, quad in enumerate(ring):
            for one, other in itertools.product((*quad.first, *ring[place - 1].first), quad.second):
                assert not numbers_drawn(one) & numbers_drawn(other)


def truth_table(formula):
    """Python's own operators: <= is implication and == is equivalence, between truth values."""
    python = formula.replace("implies", "<=").replace("iff", "==")
    python = re.sub(r"not (\w)", r"(not \1)", python)
    python = re.sub(r"not \(", "not (", python)
    return [
        bool(eval(python, {}, dict(zip("PQR", values, strict=True))))
        for values in itertools.product((False, True), repeat=3)
    ]


def test_formulas_are_equivalent_where_the_label_says_so():
    rows = PropositionalEquivalencePC().draw()["test"]
    # An operand in parentheses or a single letter, so that Python's precedence plays no part.
    operand = r"(?:\([^()]*\)|(?:not )?[PQR]|not \([^()]*\))"
    for row in rows:
        for key in ("sentence1", "sentence2"):
            assert re.fullmatch(rf"{operand} (?:and|or|implies|iff) {operand}|not \([^()]*\)", row[key]), row[key]
        assert (truth_table(row["sentence1"]) == truth_table(row["sentence2"])) == bool(row["labels"]), row


def test_the_two_formulas_a_formula_is_paired_with_are_equal_as_bags_of_words():
    rows = PropositionalEquivalencePC().draw()["test"]
    for side, other in (("sentence1", "sentence2"), ("sentence2", "sentence1")):
        paired = {}
        for row in rows:
            paired.setdefault(row[side], []).append(row[other])
        for one, two in paired.values():
            assert one != two
            assert words(one) == words(two)


def test_sequences_of_words_are_shared_as_often_by_equivalent_formulas_as_by_others():
    def sequences(formula):
        found = re.findall(r"\w+", formula)
        return {tuple(found[i : i + length]) for length in (2, 3) for i in range(len(found) - length + 1)}

    shared = Counter()
    for row in PropositionalEquivalencePC().draw()["test"]:
        shared[row["labels"]] += len(sequences(row["sentence1"]) & sequences(row["sentence2"]))
    assert shared[0] == shared[1] > 0


def test_families_are_told_by_no_instruction_and_no_capital():
    texts = family_texts()
    assert len(FAMILIES) >= 12
    assert {family for _, family in texts["train"]} == {family for _, family in texts["test"]} == set(FAMILIES)
    assert not {text for text, _ in texts["train"]} & {text for text, _ in texts["test"]}
    for text, _ in texts["train"] + texts["test"]:
        assert text == text.lower()
        assert not re.search(r"calculate|solve|answer|decrypt|scramble|reorder|ascending|sort ", text), text


def test_steps_are_learned_and_tested_on_different_templates():
    content = GSMSymbolicStepsRegression().draw()
    held_out = held_out_templates()
    test = gsm_problems(6, seed=20_250_607, templates=held_out)
    assert {row["text"] for row in content["test"]} == {problem.question for problem in test}
    train = gsm_problems(2, seed=20_250_607, templates=set(gsm_templates()) - held_out)
    assert {row["text"] for row in content["train"]} == {problem.question for problem in train}
    values = [row["value"] for row in content["test"]]
    assert {2.0, 3.0, 4.0, 5.0} <= set(values)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: exchanged_problems(4, 1, 2, seed=0), "template 4 yields 0 groups of 2 problems in the same words"),
        (lambda: answer_quads(3, seed=0, templates={33, 96}), "yield 0 rings of 2 with the same two answers"),
        (lambda: formula_quads(500, seed=0, pool=5), "quads of formulas; expected 500: take more problems"),
    ],
)
def test_what_cannot_be_drawn_is_said(draw, message):
    with pytest.raises(InputError, match=message):
        draw()
