"""The subject of a competition problem."""

from __future__ import annotations

from mteb.abstasks.classification import AbsTaskClassification

from mteb_tasks.frozen import OwnMetadata
from mteb_tasks.hub import HubRows, Row, drawn, split_by_label
from mteb_tasks.math500 import ABOUT, DATASET

TRAIN_PER_SUBJECT = 16


class MATH500SubjectClassification(HubRows, AbsTaskClassification):  # type: ignore[misc]
    """Tell algebra from geometry, and five subjects more."""

    metadata = OwnMetadata(
        name="MATH500SubjectClassification",
        description=(
            "Classify a problem of MATH-500 by its subject: algebra, intermediate algebra, prealgebra, precalculus, "
            "geometry, number theory, counting and probability. The data set has one split. 16 problems of each "
            "subject, the first in the order of their SHA-256, are for training; the others, in which algebra has "
            "five times as many as counting, for testing."
        ),
        dataset=DATASET,
        type="Classification",
        category="t2c",
        main_score="f1",  # subjects differ in size
        task_subtypes=["Topic classification"],
        annotations_creators="expert-annotated",
        prompt="Classify the subject of a competition math problem.",
        **ABOUT,
    )
    columns = ("problem", "subject")

    def build(self, rows: list[Row]) -> None:
        """Split the problems into train and test."""
        from datasets import Dataset, DatasetDict

        problems = [{"text": row["problem"], "label": row["subject"]} for row in drawn(rows, by="problem")]
        train, test = split_by_label(problems, label="label", per_label=TRAIN_PER_SUBJECT)
        self.dataset = DatasetDict({"train": Dataset.from_list(train), "test": Dataset.from_list(test)})
