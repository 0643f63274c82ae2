"""Problems and the family of reasoning they ask for."""

from __future__ import annotations

from mteb.abstasks.classification import AbsTaskClassification

from mteb_tasks.about import ABOUT_GYM
from mteb_tasks.drawn import TRAIN_PER_FAMILY, family_texts
from mteb_tasks.frozen import FrozenData, OwnMetadata


class ReasoningGymFamilyClassification(FrozenData, AbsTaskClassification):  # type: ignore[misc]
    """Tell the reasoning-gym family of a problem whose instruction was taken away, six examples of each known.

    The families (``st_reasoning.problems.FAMILIES``) come from three worlds, and share their vocabulary with
    the others of theirs: sums of whole numbers and of decimals, products, equations, complex numbers,
    sequences, lists to sort and logical premises; family trees, knights and knaves, friends and colleagues;
    enciphered, jumbled and reordered sentences of one novel.
    """

    samples_per_label = TRAIN_PER_FAMILY
    n_experiments = 1  # all the training texts are used, so that a second experiment would repeat the first

    metadata = OwnMetadata(
        name="ReasoningGymFamilyClassification",
        description=(
            "Given a problem, tell the one of 14 reasoning-gym families it comes from: formulas and lists of "
            "numbers, relations between people, and garbled sentences of one novel. Instructions, which name the "
            "family, are taken away, and all is in lower case. 84 problems to learn from, 140 from other seeds to "
            "test with. By accuracy: word counts 0.56, tf-idf 0.59, word n-grams 0.59, character n-grams 0.89, "
            "random vectors 0.07, all-MiniLM-L6-v2 0.94."
        ),
        dataset={
            "path": "st-reasoning/ReasoningGymFamilyClassification",
            "revision": "71a9b768a6cfbac5a6f5a2236a735563f7080873ec460446c55bb725bb09460e",
        },
        type="Classification",
        category="t2c",
        main_score="accuracy",
        task_subtypes=["Topic classification"],
        prompt="Classify the given problem by the kind of reasoning that it asks for.",
        **ABOUT_GYM,
    )

    def draw(self) -> dict[str, list[dict[str, str]]]:
        """Draw the texts of both splits, each with its family."""
        return {
            split: [{"text": text, "label": family} for text, family in rows] for split, rows in family_texts().items()
        }
