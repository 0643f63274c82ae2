"""Worked solutions without their words, by the template of the problem."""

from __future__ import annotations

import re

from mteb.abstasks.clustering import AbsTaskClustering

from mteb_tasks.about import ABOUT_GSM
from mteb_tasks.frozen import FrozenData, OwnMetadata
from mteb_tasks.retrieval.gsm_symbolic import held_out_problems


class GSMSymbolicCalculationClustering(FrozenData, AbsTaskClustering):  # type: ignore[misc]
    """Group calculations by the template of the word problem that they solve.

    The solutions of ``GSMSymbolicSolutionRetrieval`` with everything but numbers and operators taken away
    ("90 / 15 = 6; 90 / 45 = 2; 2 * 9 = 18; 18 + 6 = 24"): those of a template share the order of operations
    and which result goes into which step, and hardly any number.
    """

    max_fraction_of_documents_to_embed = None
    max_documents_per_cluster = 1024

    metadata = OwnMetadata(
        name="GSMSymbolicCalculationClustering",
        description=(
            "Group the calculations that solve 80 grade-school math word problems by the one of ten GSM-Symbolic "
            "templates they belong to. Words are taken away: what calculations of a template share is the order of "
            "operations and which result goes into which step. By v_measure: word counts 0.46, tf-idf 0.41, word "
            "n-grams 0.41, character n-grams 0.50, random vectors 0.28, all-MiniLM-L6-v2 0.72."
        ),
        dataset={
            "path": "st-reasoning/GSMSymbolicCalculationClustering",
            "revision": "e1ab2a0c1f98ea31b8c283f7e325cbd15b3b0b72e625b63c1bfcf97dbe4daa18",
        },
        type="Clustering",
        category="t2c",
        main_score="v_measure",
        task_subtypes=["Thematic clustering"],
        prompt="Identify the order of operations in the given calculation.",
        **ABOUT_GSM,
    )

    def draw(self) -> dict[str, list[dict[str, str]]]:
        """Draw the calculations, each with the template of its problem."""
        return {
            "test": [
                {"sentences": calculation(problem.solution), "labels": f"template {problem.template}"}
                for problem in held_out_problems()
            ]
        }


def calculation(solution: str) -> str:
    """Return the numbers, operators and equality signs of a worked solution, step by step, without its answer line.

    "60 carrots / 15 carrots/minute = 4 minutes" becomes "60 / 15 = 4": an operator counts between two numbers
    and is taken once.
    """
    steps = []
    for line in solution.splitlines()[:-1]:
        parts = re.findall(r"\d+(?:[.,]\d+)*|(?<![a-z])[-+*/x×÷=](?![a-z])", line)  # noqa: RUF001
        kept: list[str] = []
        for part in parts:
            operator = not part[0].isdigit()
            if operator and (not kept or not kept[-1][0].isdigit()):
                continue
            if not operator and kept and kept[-1][0].isdigit():
                kept = []  # a number in the words before the calculation
            kept.append({"x": "*", "×": "*", "÷": "/"}.get(part, part))  # noqa: RUF001
        if "=" in kept:
            steps.append(" ".join(kept))
    return "; ".join(steps)
