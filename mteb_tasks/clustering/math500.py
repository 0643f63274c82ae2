"""Competition problems by subject, without being told the subjects."""

from __future__ import annotations

from mteb.abstasks.clustering import AbsTaskClustering

from mteb_tasks.frozen import OwnMetadata
from mteb_tasks.hub import HubRows, Row, drawn
from mteb_tasks.math500 import ABOUT, DATASET


class MATH500SubjectClustering(HubRows, AbsTaskClustering):  # type: ignore[misc]
    """Find the seven subjects of MATH-500 as clusters."""

    metadata = OwnMetadata(
        name="MATH500SubjectClustering",
        description="Cluster the 500 problems of MATH-500, high-school competition mathematics, by their subject.",
        dataset=DATASET,
        type="Clustering",
        category="t2c",
        main_score="v_measure",
        task_subtypes=["Thematic clustering"],
        annotations_creators="expert-annotated",
        prompt="Identify the subject of a competition math problem.",
        **ABOUT,
    )
    columns = ("problem", "subject")
    # All of them, each of mteb's ten clusterings on as many drawn with replacement.
    max_document_to_embed = 500
    max_fraction_of_documents_to_embed = None
    max_documents_per_cluster = 500

    def build(self, rows: list[Row]) -> None:
        """Make a sentence of each problem and a label of its subject."""
        from datasets import Dataset, DatasetDict

        problems = [{"sentences": row["problem"], "labels": row["subject"]} for row in drawn(rows, by="problem")]
        self.dataset = DatasetDict({"test": Dataset.from_list(problems)})
