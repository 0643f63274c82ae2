"""Examples for contrastive training: generated or read, in one form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_reasoning.errors import InputError
from st_reasoning.files import content_hash, read_jsonl
from st_reasoning.problems import gsm_problems, gsm_templates, held_out_templates

if TYPE_CHECKING:
    from datasets import Dataset

    from st_reasoning.training.recipe import DataSet, Generated, TrainingRecipe


@dataclass(frozen=True)
class TrainingData:
    """All examples of a recipe.

    Attributes:
        datasets: By name; columns ``query``, ``positive``, ``negative_1`` ... ``negative_n``.
        hash: SHA-256 of all examples; two arms of a study must have the same.
    """

    datasets: dict[str, Dataset]
    hash: str

    @property
    def examples(self) -> int:
        """Number of examples over all data sets."""
        return sum(len(dataset) for dataset in self.datasets.values())


def load_data(recipe: TrainingRecipe) -> TrainingData:
    """Generate or read every data set of a recipe.

    Raises:
        InputError: for a missing file, a row without a needed column, or too few negatives (file and line named).
    """
    from datasets import Dataset

    rows = {data.name: _rows(data, recipe.hard_negatives) for data in recipe.data}
    return TrainingData({name: Dataset.from_list(r) for name, r in rows.items()}, content_hash(rows))


def _rows(data: DataSet, hard_negatives: int) -> list[dict[str, str]]:
    if data.generated is not None:
        return _generated_rows(data.generated, hard_negatives)
    return _read_rows(Path(str(data.path)), hard_negatives)


def _generated_rows(generated: Generated, hard_negatives: int) -> list[dict[str, str]]:
    """Pair each question with its solution; its negatives solve other problems of the same template."""
    templates = set(gsm_templates()) - held_out_templates()
    rounds = -(-generated.examples // len(templates))
    # One draw more than negatives needs, so that a problem is never its own negative.
    draws = max(rounds, hard_negatives + 1)
    problems = gsm_problems(draws, seed=generated.seed, templates=templates)
    solutions: dict[int, list[str]] = {}
    for problem in problems:
        solutions.setdefault(problem.template, []).append(problem.solution)
    rows = []
    for index, problem in enumerate(problems[: generated.examples]):
        draw = index // len(templates)
        row = {"query": problem.question, "positive": problem.solution}
        for k in range(1, hard_negatives + 1):
            row[f"negative_{k}"] = solutions[problem.template][(draw + k) % draws]
        rows.append(row)
    return rows


def _read_rows(path: Path, hard_negatives: int) -> list[dict[str, str]]:
    columns = ["query", "positive", *(f"negative_{k}" for k in range(1, hard_negatives + 1))]
    rows = []
    for number, row in enumerate(read_jsonl(path), start=1):
        rows.append({column: _text(row, column, f"{path}, example {number}") for column in columns})
    return rows


def _text(row: dict[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        got = "nothing" if value is None else repr(value)[:60]
        raise InputError(f"{where}: expected a text in the column {column!r}, got {got}")
    return value
