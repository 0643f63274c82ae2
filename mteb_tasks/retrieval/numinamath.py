"""NuminaMath-CoT, source cn_k12: exercises of Chinese schools in English, with solutions step by step."""

from __future__ import annotations

from typing import Any

from mteb_tasks.frozen import OwnMetadata
from mteb_tasks.hub import HubPairRetrieval, Row, drawn

SOURCE = "cn_k12"
PROBLEMS = 2_000


class NuminaMathK12SolutionRetrieval(HubPairRetrieval):
    """Find a school exercise's solution among those of 2,000."""

    metadata = OwnMetadata(
        name="NuminaMathK12SolutionRetrieval",
        description=(
            "Given an exercise of Chinese secondary schools, translated into English (NuminaMath-CoT, source cn_k12), "
            "find its worked solution among those of 2,000 exercises. They are the first 2,000 different ones in the "
            "order of their SHA-256, out of a train split: models trained on NuminaMath have seen them."
        ),
        reference="https://huggingface.co/datasets/AI-MO/NuminaMath-CoT",
        dataset={
            "path": "AI-MO/NuminaMath-CoT",
            "split": "train",
            "revision": "9d8d210c9f6a36c8f3cd84045668c9b7800ef517",
        },
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=("2023-01-01", "2024-07-15"),
        domains=["Academic", "Written"],
        task_subtypes=["Reasoning as Retrieval"],
        license="apache-2.0",
        annotations_creators="LM-generated",  # solutions were rewritten step by step by a model
        dialect=[],
        sample_creation="machine-translated",
        prompt={"query": "Given a math exercise, retrieve its worked solution."},
        bibtex_citation=r"""
@misc{li2024numinamath,
  author = {Jia Li and Edward Beeching and Lewis Tunstall and Ben Lipkin and Roman Soletskyi and Shengyi Costa Huang and Kashif Rasul and Longhui Yu and Albert Jiang and Ziju Shen and Zihan Qin and Bin Dong and Li Zhou and Yann Fleureau and Guillaume Lample and Stanislas Polu},
  howpublished = {https://huggingface.co/AI-MO/NuminaMath-CoT},
  publisher = {Numina},
  title = {{NuminaMath}},
  year = {2024},
}
""",  # noqa: E501
        contributed_by="st-reasoning",
    )
    columns = ("problem", "solution")

    def select(self, data: Any) -> Any:
        """Keep the rows of one source: 276,000 of 859,000."""
        return data.filter(
            lambda sources: [source == SOURCE for source in sources], input_columns="source", batched=True
        )

    def build(self, rows: list[Row]) -> None:
        """Pair the exercises drawn with their solutions."""
        self.set_pairs((row["problem"], row["solution"]) for row in drawn(rows, by="problem", count=PROBLEMS))
