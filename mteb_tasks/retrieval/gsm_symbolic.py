"""Word problems and their worked solutions, from templates that no training set of this project touches."""

from __future__ import annotations

from typing import Any

from mteb.abstasks.retrieval import AbsTaskRetrieval

from mteb_tasks.about import GSM_SYMBOLIC
from mteb_tasks.frozen import FrozenData, OwnMetadata, one_to_one
from st_reasoning.problems import Problem, gsm_problems, held_out_templates

TEMPLATES = 10
PROBLEMS = 8
SEED = 20_250_607


class GSMSymbolicSolutionRetrieval(FrozenData, AbsTaskRetrieval):  # type: ignore[misc]
    """Find a word problem's worked solution among those of problems that differ in names and numbers only.

    The first ten held-out templates in ascending order, eight problems of each; every one of the 80 solutions
    is a document, so a query meets seven distractors of its own template. See ``metadata.description`` for
    what simple baselines reach.
    """

    metadata = OwnMetadata(
        name="GSMSymbolicSolutionRetrieval",
        description=(
            "Given a grade-school math word problem, find its worked solution. 80 problems from ten GSM-Symbolic "
            "templates, eight of each: a solution has seven rivals that differ in names and numbers only. Names and "
            "numbers copied from problem to solution give nearly everything away; untrained SmolLM2-135M with mean "
            "pooling reaches 0.67. The task tells how much of a problem's detail an embedding keeps, not whether the "
            "model could solve it. By ndcg_at_10: word counts 0.85, tf-idf 0.98, word n-grams 0.99, character "
            "n-grams 0.99, random vectors 0.07, all-MiniLM-L6-v2 0.97."
        ),
        reference="https://arxiv.org/abs/2410.05229",
        # Drawn on the spot, never downloaded: the path names the task, the revision is the SHA-256 of the
        # content.
        dataset={
            "path": "st-reasoning/GSMSymbolicSolutionRetrieval",
            "revision": "556f69919e5b9d78076bea476bc02704f2b9eaa2c863e97c1c40241cace11f0e",
        },
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=("2021-10-27", "2024-10-07"),  # GSM8K, whose problems became the templates, to GSM-Symbolic
        domains=["Academic", "Constructed", "Written"],
        task_subtypes=["Reasoning as Retrieval"],
        license="apache-2.0",
        annotations_creators="algorithmic",
        dialect=[],
        sample_creation="created",
        prompt={"query": "Given a math word problem, retrieve its worked solution."},
        bibtex_citation=GSM_SYMBOLIC,
        contributed_by="st-reasoning",
    )

    def draw(self) -> list[dict[str, str]]:
        """Draw the problems; the n-th solution answers the n-th question and no other."""
        return [{"question": problem.question, "solution": problem.solution} for problem in held_out_problems()]

    def build(self, content: Any) -> None:
        """Make queries of the questions and documents of the solutions; one is relevant per query."""
        self.dataset = one_to_one(content)


def held_out_problems() -> list[Problem]:
    """Draw the problems of the first held-out templates."""
    return gsm_problems(PROBLEMS, seed=SEED, templates=frozenset(sorted(held_out_templates())[:TEMPLATES]))
