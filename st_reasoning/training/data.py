"""Examples for contrastive training: generated or read, in one form.

What is read is kept as Arrow files in the cache of ``datasets`` (``HF_DATASETS_CACHE``, by default
``~/.cache/huggingface/datasets``) under the hash of its content, and mapped from there: memory does not grow with the
number of examples, and the next run reads nothing but the hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_reasoning.errors import InputError
from st_reasoning.files import content_hash, read_json, write_json
from st_reasoning.problems import gsm_problems, gsm_templates, held_out_templates
from st_reasoning.training.formats import BadRow, Example, Form, recognise
from st_reasoning.training.sources import Source, open_source

if TYPE_CHECKING:
    from datasets import Dataset

    from st_reasoning.training.recipe import DataSet, Generated, TrainingRecipe

logger = logging.getLogger(__name__)

# Of the cached examples; raise it when rows are read otherwise.
CACHE_FORMAT = 1
NAMED_ROWS = 5


@dataclass(frozen=True)
class TrainingData:
    """All examples of a recipe.

    Attributes:
        datasets: By name; columns ``instruction`` (the row's own, else its data set's; ``""`` is none), ``query``,
            ``positive``, ``negative_1`` ... ``negative_n``, all of them texts.
        hash: SHA-256 of all examples, however they are stored; two arms of a study must have the same.
        bad_rows: How many rows were dropped because they are no examples.
        bad_row_names: The first of them, by file and line, with what was wrong.
    """

    datasets: dict[str, Dataset]
    hash: str
    bad_rows: int = 0
    bad_row_names: tuple[str, ...] = ()

    @property
    def examples(self) -> int:
        """Number of examples over all data sets."""
        return sum(len(dataset) for dataset in self.datasets.values())


@dataclass
class BadRows:
    """Counts the rows that are dropped, and stops the run when they are too many.

    Attributes:
        limit: How many may be dropped, those ``before`` included.
        before: How many were dropped from other data sets.
        count: How many were dropped here.
        names: The first of them.
    """

    limit: int
    before: int = 0
    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, names: list[str], count: int = 1) -> None:
        """Count further rows.

        Raises:
            InputError: if they are more than the limit.
        """
        self.count += count
        self.names = (self.names + names)[:NAMED_ROWS]
        if self.before + self.count > self.limit:
            earlier = f" (and {self.before} in other data sets)" if self.before else ""
            raise InputError(f"{self.describe()}{earlier}; max_bad_rows allows {self.limit}")

    def describe(self) -> str:
        """Say how many there are, and name the first."""
        more = f"; and {self.count - len(self.names)} more" if self.count > len(self.names) else ""
        return f"{self.count} bad row{'s' if self.count > 1 else ''}: {'; '.join(self.names)}{more}"


def load_data(recipe: TrainingRecipe) -> TrainingData:
    """Generate or read every data set of a recipe.

    Raises:
        InputError: for a missing file, a data set without examples, or more bad rows than the recipe allows (named by
            file and line).
    """
    bad = BadRows(recipe.max_bad_rows)
    datasets = {}
    for data in recipe.data:
        if data.generated is not None:
            datasets[data.name] = _generated(data.generated, recipe.hard_negatives, data.instruction)
        else:
            datasets[data.name] = read_examples(data, recipe.hard_negatives, bad)
    if bad.count:
        logger.warning("dropped %s", bad.describe())
    return TrainingData(datasets, examples_hash(datasets), bad.count, tuple(bad.names))


def columns_of(hard_negatives: int) -> list[str]:
    """Return the columns of examples with so many negatives."""
    return ["instruction", "query", "positive", *(f"negative_{k}" for k in range(1, hard_negatives + 1))]


def examples_hash(datasets: Mapping[str, Dataset]) -> str:
    """Return the SHA-256, in hex, of data sets by name: of their texts, not of how and where these are stored."""
    digest = hashlib.sha256()
    for name, dataset in datasets.items():
        digest.update(json.dumps([name, dataset.column_names, len(dataset)]).encode())
        # All batches but the last have the same size, whatever the chunks on disk.
        for batch in dataset.with_format("arrow").iter(batch_size=1000):
            for column in dataset.column_names:
                for part in _lengths_and_bytes(batch.column(column)):
                    digest.update(part)
    return digest.hexdigest()


def _lengths_and_bytes(texts: Any) -> Iterator[bytes | memoryview]:
    """Yield what tells a column of texts from all others: their lengths in bytes, and the bytes one after the other.

    Straight from Arrow's memory; as Python texts, a million examples would take minutes.
    """
    import pyarrow
    from pyarrow import compute

    column = texts.combine_chunks().cast(pyarrow.large_binary())
    yield compute.binary_length(column).cast(pyarrow.int64()).to_numpy().tobytes()
    _, offsets, content = column.buffers()
    if content is not None:
        first, last = (memoryview(offsets).cast("q")[column.offset + k] for k in (0, len(column)))
        yield memoryview(content)[first:last]


def read_examples(data: DataSet, hard_negatives: int | None, bad: BadRows) -> Dataset:
    """Read a data set from files or the hub, through the cache of ``datasets``.

    Args:
        data: The data set.
        hard_negatives: How many negatives each example has; None gives all of them, as lists in a column ``negatives``.
        bad: Where bad rows are counted.

    Raises:
        InputError: for a missing or broken file, a data set without examples, or too many bad rows.
    """
    import datasets

    source = open_source(data)
    key = content_hash([CACHE_FORMAT, source.identity, hard_negatives, data.instruction])
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    # Written when the last row was read, before the examples are complete: with them there are always these.
    facts = cache / "st_reasoning" / f"{key}.json"

    def examples() -> Iterator[dict[str, Any]]:
        found = BadRows(bad.limit, before=bad.before + bad.count)
        count = 0
        for example in _examples(source, hard_negatives, found, data.name):
            count += 1
            yield _row(example, hard_negatives, data.instruction)
        if not count:
            reasons = f" ({found.describe()})" if found.count else ""
            raise InputError(f"the data set {data.name!r} has no example in it{reasons}")
        write_json(facts, {"bad_rows": found.count, "names": found.names})

    with _without_bars():
        try:
            dataset = datasets.Dataset.from_generator(
                examples, features=_features(hard_negatives), cache_dir=str(cache), fingerprint=key
            )
        except datasets.exceptions.DatasetGenerationError as error:
            raise _own(error) from None
    if not facts.is_file():  # someone cleaned up here, but not there
        for _ in examples():
            pass
    known = read_json(facts)
    # In these words the limit also stops what was cached under a wider one.
    BadRows(bad.limit, before=bad.before + bad.count).add(known["names"], known["bad_rows"])
    bad.add(known["names"], known["bad_rows"])
    return dataset


def _examples(source: Source, hard_negatives: int | None, bad: BadRows, name: str) -> Iterator[Example]:
    from tqdm import tqdm

    form: Form | None = None
    # Files that are read in no time show no bar.
    for place, number, row in tqdm(source.rows(), desc=f"Reading {name}", unit=" rows", delay=5):
        try:
            if isinstance(row, BadRow):
                raise row
            # The first row with columns that are known decides for all.
            form = form or recognise(row)
            yield form.read(row, hard_negatives)
        except BadRow as reason:
            of_form = f" (form: {form.description})" if form else ""
            bad.add([f"{place} {number}: {reason}{of_form}"])


def _row(example: Example, hard_negatives: int | None, instruction: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "instruction": instruction if example.instruction is None else example.instruction,
        "query": example.query,
        "positive": example.positive,
    }
    if hard_negatives is None:
        return {**row, "negatives": example.negatives}
    for k, negative in enumerate(example.negatives, start=1):
        row[f"negative_{k}"] = negative
    return row


def _features(hard_negatives: int | None) -> Any:
    from datasets import Features, List, Value

    features = Features({column: Value("string") for column in columns_of(hard_negatives or 0)})
    if hard_negatives is None:
        features["negatives"] = List(Value("string"))
    return features


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Keep the bars of ``datasets`` away from small files; ours waits for large ones."""
    import datasets

    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def _own(error: BaseException) -> BaseException:
    """Return our error out of the one that ``datasets`` wrapped around it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    return cause or error


def _generated(generated: Generated, hard_negatives: int, instruction: str) -> Dataset:
    from datasets import Dataset

    rows = [{"instruction": instruction, **row} for row in _generated_rows(generated, hard_negatives)]
    return Dataset.from_list(rows, features=_features(hard_negatives))


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
