"""Pairs of word problems from two templates that have the same answer, or not."""

from __future__ import annotations

from mteb.abstasks.pair_classification import AbsTaskPairClassification

from mteb_tasks.about import ABOUT_GSM
from mteb_tasks.drawn import answer_rings, crossed, pair_rows
from mteb_tasks.frozen import FrozenData, OwnMetadata


class GSMSymbolicCrossTemplateAnswerPC(FrozenData, AbsTaskPairClassification):  # type: ignore[misc]
    """Tell whether two word problems that tell different stories have the same answer.

    The problems of ``GSMSymbolicSameTemplateAnswerPC``, paired across templates: every problem is in one pair
    with the same answer and in one with an answer up to a fifth away, both with the same other template. The
    problems of a pair share no number, and no problem contains its answer.
    """

    metadata = OwnMetadata(
        name="GSMSymbolicCrossTemplateAnswerPC",
        description=(
            "Given grade-school math word problems of two GSM-Symbolic templates, tell whether their answers are "
            "equal. 160 pairs of 160 problems, half of them alike; each problem is in one pair of either kind, with "
            "the same other template, and the problems of a pair share no number but those of the templates. By "
            "max_ap: word counts 0.51, tf-idf 0.51, word n-grams 0.51, character n-grams 0.51, random vectors 0.55, "
            "all-MiniLM-L6-v2 0.50."
        ),
        dataset={
            "path": "st-reasoning/GSMSymbolicCrossTemplateAnswerPC",
            "revision": "c9d7b4859a5396527410308ea84040863d6a14be5b519f34a86ed4b9a8fd2404",
        },
        type="PairClassification",
        category="t2t",
        main_score="max_ap",
        task_subtypes=[],
        prompt="Retrieve math word problems that have the same answer as the given one.",
        **ABOUT_GSM,
    )

    def draw(self) -> dict[str, list[dict[str, str | int]]]:
        """Draw the pairs: the first problems of each quad of a ring with the second ones of the next."""
        pairs = []
        for ring in answer_rings():
            for place, quad in enumerate(ring):
                low, high = ring[place - 1].first
                other_low, other_high = quad.second
                pairs += crossed((low.question, high.question), (other_low.question, other_high.question))
        return {"test": pair_rows(pairs)}
