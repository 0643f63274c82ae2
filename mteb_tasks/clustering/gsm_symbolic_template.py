"""Word problems by the template they were drawn from."""

from __future__ import annotations

from mteb.abstasks.clustering import AbsTaskClustering

from mteb_tasks.about import ABOUT_GSM
from mteb_tasks.frozen import FrozenData, OwnMetadata
from mteb_tasks.retrieval.gsm_symbolic import held_out_problems


class GSMSymbolicTemplateClustering(FrozenData, AbsTaskClustering):  # type: ignore[misc]
    """Group word problems by their template: those of a template differ in names and numbers only.

    The questions of ``GSMSymbolicSolutionRetrieval``. A control: wording alone solves it, and an embedding that
    does badly here has lost the wording.
    """

    max_fraction_of_documents_to_embed = None
    max_documents_per_cluster = 1024

    metadata = OwnMetadata(
        name="GSMSymbolicTemplateClustering",
        description=(
            "Group 80 grade-school math word problems by the one of ten GSM-Symbolic templates they come from; "
            "problems of a template differ in names and numbers only. A control, which wording alone solves. By "
            "v_measure: word counts 0.96, tf-idf 0.98, word n-grams 0.98, character n-grams 0.97, random vectors "
            "0.25, all-MiniLM-L6-v2 0.98."
        ),
        dataset={
            "path": "st-reasoning/GSMSymbolicTemplateClustering",
            "revision": "ef4f1b4409d79feb001a74c1b33fc50cc533209f5f9dd09771c5c37c3ce28bda",
        },
        type="Clustering",
        category="t2c",
        main_score="v_measure",
        task_subtypes=["Thematic clustering"],
        prompt="Identify the kind of problem that the given math word problem is.",
        **ABOUT_GSM,
    )

    def draw(self) -> dict[str, list[dict[str, str]]]:
        """Draw the questions, each with its template."""
        return {
            "test": [
                {"sentences": problem.question, "labels": f"template {problem.template}"}
                for problem in held_out_problems()
            ]
        }
