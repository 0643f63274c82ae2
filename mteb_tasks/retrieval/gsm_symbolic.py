"""Word problems and their worked solutions, from templates that no training set of this project touches."""

from __future__ import annotations

from typing import Any

from mteb.abstasks.retrieval import AbsTaskRetrieval

from mteb_tasks.frozen import FrozenData, OwnMetadata
from st_reasoning.problems import gsm_problems, held_out_templates

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
            "Given a grade-school math word problem, find its worked solution. 80 problems from ten "
            "GSM-Symbolic templates, eight of each: a solution has seven rivals that differ in names and "
            "numbers only. Copied names and numbers give much away: by nDCG@10, word counts reach 0.88, "
            "tf-idf 0.97, untrained SmolLM2-135M with mean pooling 0.67, a random encoder 0.07. The task "
            "tells how much of a problem's detail an embedding keeps, not whether the model could solve it."
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
        bibtex_citation=r"""
@article{mirzadeh2024gsmsymbolic,
  author = {Iman Mirzadeh and Keivan Alizadeh and Hooman Shahrokhi and Oncel Tuzel and Samy Bengio and Mehrdad Farajtabar},
  journal = {arXiv preprint arXiv:2410.05229},
  title = {{GSM-Symbolic}: Understanding the Limitations of Mathematical Reasoning in Large Language Models},
  year = {2024},
}
""",  # noqa: E501
        contributed_by="st-reasoning",
    )

    def draw(self) -> list[dict[str, str]]:
        """Draw the problems; the n-th solution answers the n-th question and no other."""
        templates = frozenset(sorted(held_out_templates())[:TEMPLATES])
        return [
            {"question": problem.question, "solution": problem.solution}
            for problem in gsm_problems(PROBLEMS, seed=SEED, templates=templates)
        ]

    def build(self, content: Any) -> None:
        """Make queries of the questions and documents of the solutions; one is relevant per query."""
        from datasets import Dataset

        ids = [f"{number:02d}" for number in range(len(content))]
        self.dataset = {
            "default": {
                "test": {
                    "queries": Dataset.from_list(
                        [{"id": f"q{i}", "text": row["question"]} for i, row in zip(ids, content, strict=True)]
                    ),
                    "corpus": Dataset.from_list(
                        [
                            {"id": f"d{i}", "title": "", "text": row["solution"]}
                            for i, row in zip(ids, content, strict=True)
                        ]
                    ),
                    "relevant_docs": {f"q{i}": {f"d{i}": 1} for i in ids},
                    "top_ranked": None,
                }
            }
        }
