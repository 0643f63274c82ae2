"""Word problems and worked solutions among rivals that use the same names and numbers."""

from __future__ import annotations

from typing import Any

from mteb.abstasks.retrieval import AbsTaskRetrieval

from mteb_tasks.about import ABOUT_GSM
from mteb_tasks.frozen import FrozenData, OwnMetadata, one_to_one
from st_reasoning.problems import exchanged_problems

# Held-out templates in which values can change places, and how many problems that gives, up to six.
GROUP_SIZES = {0: 2, 9: 6, 12: 6, 14: 3, 62: 2, 78: 2, 89: 6, 96: 6}
GROUPS = 4
SEED = 20_250_607


class GSMSymbolicExchangedRetrieval(FrozenData, AbsTaskRetrieval):  # type: ignore[misc]
    """Find a word problem's worked solution among those of problems made of the very same words.

    Four groups of each of eight held-out templates; within a group, numbers, names and things have changed
    places ("3 pens at $10 and 9 cups" and "9 pens at $10 and 3 cups"), so that all questions of a group have
    the same word counts. Whatever looks at word counts alone ranks the documents alike for the whole group and
    puts the right one first for one question at most.
    """

    metadata = OwnMetadata(
        name="GSMSymbolicExchangedRetrieval",
        description=(
            "Given a grade-school math word problem, find its worked solution among those of problems in which the "
            "same names, things and numbers play other parts: 132 problems in 32 groups from eight GSM-Symbolic "
            "templates, the questions of a group being equal as bags of words. By ndcg_at_1: word counts 0.21, "
            "tf-idf 0.23, word n-grams 0.67, character n-grams 0.24, random vectors 0.00, all-MiniLM-L6-v2 0.30."
        ),
        dataset={
            "path": "st-reasoning/GSMSymbolicExchangedRetrieval",
            "revision": "7d70b57889ade61dc0127cea3e16b53586e9a27c833988192d21497fc0d53957",
        },
        type="Retrieval",
        category="t2t",
        main_score="ndcg_at_1",
        task_subtypes=["Reasoning as Retrieval"],
        prompt={"query": "Given a math word problem, retrieve its worked solution."},
        **ABOUT_GSM,
    )

    def draw(self) -> list[dict[str, str]]:
        """Draw the problems, group after group; the n-th solution answers the n-th question and no other."""
        return [
            {"question": problem.question, "solution": problem.solution}
            for template, size in GROUP_SIZES.items()
            for group in exchanged_problems(template, GROUPS, size, seed=SEED)
            for problem in group
        ]

    def build(self, content: Any) -> None:
        """Make queries of the questions and documents of the solutions; one is relevant per query."""
        self.dataset = one_to_one(content)
