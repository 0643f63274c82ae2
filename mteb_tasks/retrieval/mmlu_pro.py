"""MMLU-Pro: questions, and the options of all of them."""

from __future__ import annotations

from mteb_tasks.frozen import OwnMetadata
from mteb_tasks.hub import HubPairRetrieval, Row, drawn
from mteb_tasks.mmlu_pro import ABOUT, DATASET
from st_reasoning.errors import InputError

QUESTIONS = 2_000
NO_OPTION = "N/A"  # fills up lists that have fewer options


class MMLUProAnswerRetrieval(HubPairRetrieval):
    """Find the correct option of an exam question among the options of 2,000 questions."""

    metadata = OwnMetadata(
        name="MMLUProAnswerRetrieval",
        description=(
            "Given an exam question of MMLU-Pro without its options, find the correct option among those of 2,000 "
            "questions, the first in the order of their SHA-256. An option that several questions share is one "
            "document. The question's own wrong options are close to it in wording and in the corpus: to tell them "
            "from the right one takes knowledge or reasoning."
        ),
        dataset=DATASET,
        type="Retrieval",
        category="t2t",
        main_score="ndcg_at_10",
        task_subtypes=["Question answering", "Reasoning as Retrieval"],
        annotations_creators="derived",
        prompt={"query": "Given an exam question, retrieve its correct answer."},
        **ABOUT,
    )
    columns = ("question", "options", "answer_index")

    def build(self, rows: list[Row]) -> None:
        """Pair each question drawn with its correct option; all other options are distractors.

        Raises:
            InputError: if an answer is none of its options, which would leave a question without an answer.
        """
        chosen = drawn(rows, by="question", count=QUESTIONS)
        for row in chosen:
            if not 0 <= row["answer_index"] < len(row["options"]):
                raise InputError(
                    f"{self.metadata.name}: answer_index {row['answer_index']} of {row['question'][:50]!r}; expected "
                    f"one of its {len(row['options'])} options"
                )
        self.set_pairs(
            ((row["question"], row["options"][row["answer_index"]]) for row in chosen),
            distractors=(option for row in chosen for option in row["options"] if option != NO_OPTION),
        )
