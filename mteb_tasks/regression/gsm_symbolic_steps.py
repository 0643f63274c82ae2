"""Word problems and how many steps their solution takes."""

from __future__ import annotations

from mteb.abstasks.regression import AbsTaskRegression
from sklearn.linear_model import RidgeCV

from mteb_tasks.about import ABOUT_GSM
from mteb_tasks.frozen import FrozenData, OwnMetadata
from st_reasoning.problems import gsm_problems, gsm_templates, held_out_templates

SEED = 20_250_607
TRAIN_PER_TEMPLATE = 2
TEST_PER_TEMPLATE = 6
TEST_TEMPLATES = 18


class GSMSymbolicStepsRegression(FrozenData, AbsTaskRegression):  # type: ignore[misc]
    """Predict from a word problem how many steps its worked solution takes.

    The training problems come from other templates than the test problems, so that knowing a template again is
    of no use. The number of steps belongs to the template: the 108 test problems hold 18 different tasks, and
    differences between models should be judged by template.
    """

    # Fewer texts than dimensions: least squares without a penalty would fit the training texts exactly.
    evaluator_model = RidgeCV(alphas=(0.01, 0.1, 1.0, 10.0, 100.0))
    # Those of a template, for intervals over examples, which results take by template.
    origins_in_turn = TEST_TEMPLATES
    n_experiments = 1  # all the training texts are used, so that a second experiment would repeat the first

    metadata = OwnMetadata(
        name="GSMSymbolicStepsRegression",
        description=(
            "Given a grade-school math word problem, predict the number of calculations in its worked solution, two "
            "to seven. 134 problems of 67 GSM-Symbolic templates to learn from, 108 of 18 other templates to test "
            "with. By kendalltau: word counts 0.35, tf-idf 0.12, word n-grams -0.01, character n-grams -0.12, random "
            "vectors 0.07, all-MiniLM-L6-v2 -0.07."
        ),
        dataset={
            "path": "st-reasoning/GSMSymbolicStepsRegression",
            "revision": "2fdd24c2387253338d02d7b45c5deb9525e73a0c4fbdd7928396d1e946118f89",
        },
        type="Regression",
        category="t2c",
        main_score="kendalltau",
        task_subtypes=[],
        prompt="Predict how many steps it takes to solve the given math word problem.",
        **ABOUT_GSM,
    )

    def draw(self) -> dict[str, list[dict[str, str | float]]]:
        """Draw the questions of both splits; the value is the number of equality signs in the solution."""
        held_out = held_out_templates()
        return {
            split: [
                {"text": problem.question, "value": float(problem.solution.count("="))}
                for problem in gsm_problems(per_template, seed=SEED, templates=templates)
            ]
            for split, per_template, templates in (
                ("train", TRAIN_PER_TEMPLATE, set(gsm_templates()) - held_out),
                ("test", TEST_PER_TEMPLATE, held_out),
            )
        }
