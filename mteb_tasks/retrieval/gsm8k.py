"""GSM8K: grade-school word problems and their solutions, written by people."""

from __future__ import annotations

import re

from mteb_tasks.frozen import OwnMetadata
from mteb_tasks.hub import HubPairRetrieval, Row

# A calculator's part of a solution, as in "48/2 = <<48/2=24>>24 clips": not a part of the text.
CALCULATION = re.compile(r"<<[^<>]*>>")


class GSM8KSolutionRetrieval(HubPairRetrieval):
    """Find a word problem's solution among those of the whole test split."""

    metadata = OwnMetadata(
        name="GSM8KSolutionRetrieval",
        description=(
            "Given a grade-school math word problem of GSM8K's test split, find its worked solution among those of "
            "all problems. Solutions repeat names and numbers of their problem."
        ),
        reference="https://arxiv.org/abs/2110.14168",
        dataset={
            "path": "openai/gsm8k",
            "name": "main",
            "split": "test",
            "revision": "740312add88f781978c0658806c59bc2815b9866",
        },
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=("2021-01-01", "2021-10-27"),
        domains=["Academic", "Written"],
        task_subtypes=["Reasoning as Retrieval"],
        license="mit",
        annotations_creators="human-annotated",
        dialect=[],
        sample_creation="created",
        prompt={"query": "Given a math word problem, retrieve its worked solution."},
        bibtex_citation=r"""
@article{cobbe2021gsm8k,
  author = {Cobbe, Karl and Kosaraju, Vineet and Bavarian, Mohammad and Chen, Mark and Jun, Heewoo and Kaiser, Lukasz and Plappert, Matthias and Tworek, Jerry and Hilton, Jacob and Nakano, Reiichiro and Hesse, Christopher and Schulman, John},
  journal = {arXiv preprint arXiv:2110.14168},
  title = {Training Verifiers to Solve Math Word Problems},
  year = {2021},
}
""",  # noqa: E501
        contributed_by="st-reasoning",
    )
    columns = ("question", "answer")

    def build(self, rows: list[Row]) -> None:
        """Pair each question with its solution, without the calculator's annotations."""
        self.set_pairs((row["question"], CALCULATION.sub("", row["answer"])) for row in rows)
