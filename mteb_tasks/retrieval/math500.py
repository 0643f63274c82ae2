"""MATH-500: competition problems and their solutions."""

from __future__ import annotations

from mteb_tasks.frozen import OwnMetadata
from mteb_tasks.hub import HubPairRetrieval, Row
from mteb_tasks.math500 import ABOUT, DATASET


class MATH500SolutionRetrieval(HubPairRetrieval):
    """Find a competition problem's solution among those of all 500."""

    metadata = OwnMetadata(
        name="MATH500SolutionRetrieval",
        description=(
            "Given a problem of MATH-500, high-school competition mathematics in LaTeX, find its worked solution "
            "among those of all 500."
        ),
        dataset=DATASET,
        type="Retrieval",
        category="t2t",
        main_score="ndcg_at_10",
        task_subtypes=["Reasoning as Retrieval"],
        annotations_creators="expert-annotated",
        prompt={"query": "Given a competition math problem, retrieve its worked solution."},
        **ABOUT,
    )
    columns = ("problem", "solution")

    def build(self, rows: list[Row]) -> None:
        """Pair each problem with its solution."""
        self.set_pairs((row["problem"], row["solution"]) for row in rows)
