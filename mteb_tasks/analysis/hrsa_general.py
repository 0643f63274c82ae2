"""Representation similarity on news."""

from __future__ import annotations

from typing import Any

from mteb_tasks.analysis.similarity import MAIN_SCORE, RepresentationSimilarity
from mteb_tasks.frozen import OwnMetadata
from mteb_tasks.hub import HubRows, Row, drawn, split_by_label

PER_TOPIC = 64


class HRSAGeneral(HubRows, RepresentationSimilarity):
    """HRSA on news in brief; the probe tells four topics apart, as the paper's does."""

    metadata = OwnMetadata(
        name="HRSAGeneral",
        description=(
            "Hierarchical Representation Similarity Analysis of a model beside a reference (by default what it was "
            "made from) on 256 texts of AG News, 64 of each topic, the first in the order of their SHA-256, layer by "
            "layer: dimension-wise correlation, orthogonal Procrustes, linear CKA, k-NN overlap, cross-model linear "
            "probe, with intervals and chance levels. The main score is debiased linear CKA at the last layer without "
            "sink tokens: 1 for the same geometry, and no measure of quality."
        ),
        reference="https://arxiv.org/abs/2601.21192",
        dataset={
            "path": "fancyzhx/ag_news",
            "revision": "eb185aade064a813bc0b7f42de02595523103ca4",
            "split": "test",
        },
        # mteb has no type for analyses, and a new one would break what reads types.
        type="STS",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=MAIN_SCORE,
        date=("2004-01-01", "2015-12-31"),  # collected since 2004, published as a data set in 2015
        domains=["News", "Written"],
        task_subtypes=[],
        license="not specified",
        annotations_creators="human-annotated",
        dialect=[],
        sample_creation="found",
        bibtex_citation=r"""
@inproceedings{zhang2015characterlevel,
  author = {Xiang Zhang and Junbo Zhao and Yann LeCun},
  booktitle = {Advances in Neural Information Processing Systems 28},
  title = {Character-level Convolutional Networks for Text Classification},
  year = {2015},
}
""",
        contributed_by="st-reasoning",
    )
    columns = ("text", "label")

    def build(self, rows: list[Row]) -> None:
        """Keep so many texts of each topic as one split."""
        from datasets import Dataset

        texts: list[dict[str, Any]] = [{"text": row["text"], "label": row["label"]} for row in drawn(rows, by="text")]
        chosen, _ = split_by_label(texts, label="label", per_label=PER_TOPIC)
        self.keep(Dataset.from_list(chosen))
