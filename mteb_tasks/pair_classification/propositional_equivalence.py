"""Pairs of propositional formulas that mean the same, or not."""

from __future__ import annotations

from mteb.abstasks.pair_classification import AbsTaskPairClassification

from mteb_tasks.about import ABOUT_GYM
from mteb_tasks.drawn import SEED, crossed, pair_rows
from mteb_tasks.frozen import FrozenData, OwnMetadata
from st_reasoning.problems import formula_quads

QUADS = 48


class PropositionalEquivalencePC(FrozenData, AbsTaskPairClassification):  # type: ignore[misc]
    """Tell whether two propositional formulas are logically equivalent.

    Every formula is in one pair with an equivalent formula and in one with a formula that is not; those two
    others are made of the same words in another order, so that word counts are the same in both kinds of pair,
    and the formulas are chosen so that sequences of two and three words are shared as often.
    """

    metadata = OwnMetadata(
        name="PropositionalEquivalencePC",
        description=(
            "Given two formulas of propositional logic in three variables, written with and, or, implies, iff and "
            "not, tell whether they are logically equivalent. 192 pairs of 192 formulas, half of them alike; each "
            "formula is in one pair of either kind, and the two formulas it is paired with are equal as bags of "
            "words. By max_ap: word counts 0.50, tf-idf 0.50, word n-grams 0.52, character n-grams 0.51, random "
            "vectors 0.52, all-MiniLM-L6-v2 0.54."
        ),
        dataset={
            "path": "st-reasoning/PropositionalEquivalencePC",
            "revision": "324113fa9e18b7a7cb30ead9078ef025a51f82e05694dd1c737c647da5b9246b",
        },
        type="PairClassification",
        category="t2t",
        main_score="max_ap",
        task_subtypes=["Textual Entailment"],
        prompt="Retrieve propositional formulas that are logically equivalent to the given one.",
        **ABOUT_GYM,
    )

    def draw(self) -> dict[str, list[dict[str, str | int]]]:
        """Draw the pairs: four of every four formulas."""
        return {
            "test": pair_rows(
                [pair for quad in formula_quads(QUADS, seed=SEED) for pair in crossed(quad.first, quad.second)]
            )
        }
