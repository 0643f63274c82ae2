"""The category of an exam question."""

from __future__ import annotations

from mteb.abstasks.classification import AbsTaskClassification

from mteb_tasks.frozen import OwnMetadata
from mteb_tasks.hub import HubRows, Row, drawn, split_by_label
from mteb_tasks.mmlu_pro import ABOUT, DATASET

TRAIN_PER_CATEGORY = 32
TEST = 2_048  # as in mteb's own tasks


class MMLUProCategoryClassification(HubRows, AbsTaskClassification):  # type: ignore[misc]
    """Tell the field of an exam question among 14."""

    metadata = OwnMetadata(
        name="MMLUProCategoryClassification",
        description=(
            "Classify an exam question of MMLU-Pro, without its options, into one of 14 categories from biology to "
            "psychology. Of the different questions in the order of their SHA-256, the first 32 of each category are "
            "for training and the next 2,048 for testing. 'Other' is a category, and ceilings are below 1 for it."
        ),
        dataset=DATASET,
        type="Classification",
        category="t2c",
        main_score="f1",  # categories differ in size
        task_subtypes=["Topic classification"],
        annotations_creators="derived",
        prompt="Classify the subject area of an exam question.",
        **ABOUT,
    )
    columns = ("question", "category")

    def build(self, rows: list[Row]) -> None:
        """Split the questions into train and test."""
        from datasets import Dataset, DatasetDict

        questions = [{"text": row["question"], "label": row["category"]} for row in drawn(rows, by="question")]
        train, test = split_by_label(questions, label="label", per_label=TRAIN_PER_CATEGORY)
        self.dataset = DatasetDict({"train": Dataset.from_list(train), "test": Dataset.from_list(test[:TEST])})
