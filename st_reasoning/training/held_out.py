"""Examples that are kept out of training, and the searches that are run on them meanwhile."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from st_reasoning.backbone import format_instruction
from st_reasoning.errors import InputError
from st_reasoning.training.data import TrainingData

if TYPE_CHECKING:
    from datasets import Dataset

    from st_reasoning.training.recipe import HeldOut

SPLIT_SEED = 0


def split(data: TrainingData, held_out: HeldOut | None) -> tuple[TrainingData, dict[str, Dataset]]:
    """Take the held-out examples out of each data set: the same ones for every training seed and model.

    Returns:
        The data that is left, with the hash of all of it, and the held-out examples by data set.

    Raises:
        InputError: if a data set has too few examples.
    """
    if held_out is None:
        return data, {}
    left, out = {}, {}
    for name, dataset in data.datasets.items():
        if len(dataset) <= held_out.examples:
            raise InputError(
                f"held_out: the data set {name!r} has {len(dataset)} examples, of which {held_out.examples} were to be "
                "held out"
            )
        parts = dataset.train_test_split(test_size=held_out.examples, seed=SPLIT_SEED)
        left[name], out[name] = parts["train"], parts["test"]
    return replace(data, datasets=left), out


def evaluators(held_out: dict[str, Dataset], template: str) -> list[Any]:
    """Return, for each data set, the search of its held-out queries among its held-out documents.

    All queries of a set carry its most frequent instruction: an evaluator of sentence-transformers knows one prompt.
    """
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    found = []
    for name, dataset in held_out.items():
        columns = [column for column in dataset.column_names if column not in ("instruction", "query")]
        documents = dict.fromkeys(text for column in columns for text in dataset[column])
        numbers = {text: str(number) for number, text in enumerate(documents)}
        instruction = Counter(dataset["instruction"]).most_common(1)[0][0]
        found.append(
            InformationRetrievalEvaluator(
                queries={str(number): text for number, text in enumerate(dataset["query"])},
                corpus={number: text for text, number in numbers.items()},
                relevant_docs={str(number): {numbers[text]} for number, text in enumerate(dataset["positive"])},
                name=name,
                query_prompt=format_instruction(template, instruction) or None,
                show_progress_bar=False,
                write_csv=False,
            )
        )
    return found
