"""Pairs of word problems from one template that have the same answer, or not."""

from __future__ import annotations

from mteb.abstasks.pair_classification import AbsTaskPairClassification

from mteb_tasks.about import ABOUT_GSM
from mteb_tasks.drawn import answer_rings, crossed, pair_rows
from mteb_tasks.frozen import FrozenData, OwnMetadata


class GSMSymbolicSameTemplateAnswerPC(FrozenData, AbsTaskPairClassification):  # type: ignore[misc]
    """Tell whether two word problems that differ in names and numbers only have the same answer.

    Every problem is in one pair with the same answer and in one with an answer up to a fifth away. The problems
    of a pair share no number but those of the template, and no problem contains its answer: only working both
    out tells the pairs apart.
    """

    metadata = OwnMetadata(
        name="GSMSymbolicSameTemplateAnswerPC",
        description=(
            "Given two grade-school math word problems of one GSM-Symbolic template, tell whether their answers are "
            "equal. 160 pairs of 160 problems, half of them alike; each problem is in one pair of either kind, and "
            "the problems of a pair share no number but those of the template. By max_ap: word counts 0.51, tf-idf "
            "0.50, word n-grams 0.51, character n-grams 0.51, random vectors 0.55, all-MiniLM-L6-v2 0.49."
        ),
        dataset={
            "path": "st-reasoning/GSMSymbolicSameTemplateAnswerPC",
            "revision": "47448d1411f9cdd24d84b2685590fd8ffcadfb54d660acf73e681aeaef374238",
        },
        type="PairClassification",
        category="t2t",
        main_score="max_ap",
        task_subtypes=[],
        prompt="Retrieve math word problems that have the same answer as the given one.",
        **ABOUT_GSM,
    )

    def draw(self) -> dict[str, list[dict[str, str | int]]]:
        """Draw the pairs: four of every four problems."""
        pairs = []
        for ring in answer_rings():
            for quad in ring:
                low, high = quad.first
                other_low, other_high = quad.second
                pairs += crossed((low.question, high.question), (other_low.question, other_high.question))
        return {"test": pair_rows(pairs)}
