"""Representation similarity on worked solutions."""

from __future__ import annotations

from typing import Any

from mteb_tasks.analysis.similarity import MAIN_SCORE, RepresentationSimilarity
from mteb_tasks.frozen import FrozenData, OwnMetadata
from st_reasoning.problems import gsm_problems, held_out_templates

PROBLEMS = 8
SEED = 20_250_611


class HRSAChainOfThought(FrozenData, RepresentationSimilarity):
    """HRSA on step-by-step solutions of word problems; the probe tells their templates apart.

    Solutions of the templates that no training set of this project touches, eight of each.
    """

    metadata = OwnMetadata(
        name="HRSAChainOfThought",
        description=(
            "Hierarchical Representation Similarity Analysis of a model beside a reference (by default what it was "
            "made from) on 144 worked solutions of grade-school word problems, layer by layer: dimension-wise "
            "correlation, orthogonal Procrustes, linear CKA, k-NN overlap, cross-model linear probe, with intervals "
            "and chance levels. The main score is debiased linear CKA at the last layer without sink tokens: 1 for "
            "the same geometry, and no measure of quality."
        ),
        reference="https://arxiv.org/abs/2601.21192",
        dataset={
            "path": "st-reasoning/HRSAChainOfThought",
            "revision": "18e0e7b30ba5c105c234b4db19af2917aa7eac41007566cbd76876cf4e59f1e0",
        },
        # mteb has no type for analyses, and a new one would break what reads types.
        type="STS",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=MAIN_SCORE,
        date=("2021-10-27", "2024-10-07"),  # GSM8K, whose problems became the templates, to GSM-Symbolic
        domains=["Academic", "Constructed", "Written"],
        task_subtypes=[],
        license="apache-2.0",
        annotations_creators="algorithmic",
        dialect=[],
        sample_creation="created",
        bibtex_citation=r"""
@article{reasoningembedding2026,
  journal = {arXiv preprint arXiv:2601.21192},
  title = {Do Reasoning Models Enhance Embedding Models?},
  year = {2026},
}
""",
        contributed_by="st-reasoning",
    )

    def draw(self) -> list[dict[str, Any]]:
        """Draw the solutions and the templates of their problems."""
        problems = gsm_problems(PROBLEMS, seed=SEED, templates=held_out_templates())
        return [{"text": problem.solution, "label": problem.template} for problem in problems]

    def build(self, content: Any) -> None:
        """Keep the solutions as one split."""
        from datasets import Dataset

        self.keep(Dataset.from_list(content))
