"""Problems by the family of reasoning they ask for."""

from __future__ import annotations

from mteb.abstasks.clustering import AbsTaskClustering

from mteb_tasks.about import ABOUT_GYM
from mteb_tasks.drawn import family_texts
from mteb_tasks.frozen import FrozenData, OwnMetadata


class ReasoningGymFamilyClustering(FrozenData, AbsTaskClustering):  # type: ignore[misc]
    """Group problems whose instructions were taken away by their reasoning-gym family.

    The test texts of ``ReasoningGymFamilyClassification``.
    """

    max_fraction_of_documents_to_embed = None
    max_documents_per_cluster = 1024

    metadata = OwnMetadata(
        name="ReasoningGymFamilyClustering",
        description=(
            "Group 140 problems by the one of 14 reasoning-gym families they come from: formulas and lists of "
            "numbers, relations between people, and garbled sentences of one novel. Instructions, which name the "
            "family, are taken away, and all is in lower case. By v_measure: word counts 0.57, tf-idf 0.66, word "
            "n-grams 0.60, character n-grams 0.74, random vectors 0.25, all-MiniLM-L6-v2 0.84."
        ),
        dataset={
            "path": "st-reasoning/ReasoningGymFamilyClustering",
            "revision": "fd85a97d7306076740ea0d03770c6740eb9c9f521d4634c1cfcc346a01f2ed0d",
        },
        type="Clustering",
        category="t2c",
        main_score="v_measure",
        task_subtypes=["Thematic clustering"],
        prompt="Identify the kind of reasoning that the given problem asks for.",
        **ABOUT_GYM,
    )

    def draw(self) -> dict[str, list[dict[str, str]]]:
        """Draw the texts, each with its family."""
        return {"test": [{"sentences": text, "labels": family} for text, family in family_texts()["test"]]}
