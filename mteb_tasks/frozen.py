"""Data sets that are drawn on the spot and must never change under their name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mteb.abstasks.task_metadata import TaskMetadata

from st_reasoning.config import versions
from st_reasoning.errors import InputError
from st_reasoning.files import content_hash

STATISTICS = Path(__file__).with_name("descriptive_stats")


class OwnMetadata(TaskMetadata):  # type: ignore[misc]
    """Task metadata whose descriptive statistics are read from this package, not from mteb's."""

    @property
    def descriptive_stat_path(self) -> Path:
        """Where the statistics shipped with this package stand; the file is optional."""
        return STATISTICS / str(self.type) / f"{self.name}.json"


class FrozenData:
    """A task whose data are drawn by :meth:`draw` and pinned by their hash; a mixin.

    The hash stands as ``metadata.dataset["revision"]``, so that it is written beside every score. mteb does
    not rerun a cached task whose revision changed: data that differ are an error, and need a task of another
    name.
    """

    metadata: TaskMetadata
    data_loaded: bool = False

    def draw(self) -> Any:
        """Return the content of the task as a JSON value: everything a model reads and is scored by."""
        raise NotImplementedError

    def build(self, content: Any) -> None:
        """Put the drawn content where the mteb base class looks for it; here, rows by split."""
        self.dataset = as_splits(content)

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Draw the data, compare them with the pinned hash, and build the data set.

        Raises:
            InputError: if the content is not the pinned one.
            MissingExtraError: without the package that draws it.
        """
        if self.data_loaded:
            return
        content = self.draw()
        found, pinned = content_hash(content), self.metadata.revision
        if found != pinned:
            source = versions().get("reasoning-gym", "unknown")
            raise InputError(
                f"the data of {self.metadata.name} have changed: expected SHA-256 {pinned}, got {found} "
                f"(reasoning-gym {source}). Scores on them would not compare with earlier ones; changed data "
                "need a task of a new name"
            )
        self.build(content)
        self.data_loaded = True

    def calculate_descriptive_statistics(
        self, overwrite_results: bool = False, num_proc: int | None = None
    ) -> dict[str, Any]:
        """Return the statistics of each split and write nothing; mteb itself writes into its package."""
        self.load_data(num_proc=num_proc)
        return {
            split: self._calculate_descriptive_statistics_from_split(split, num_proc=num_proc)  # type: ignore[attr-defined]
            for split in self.metadata.eval_splits
        }


def one_to_one(content: list[dict[str, str]]) -> dict[str, Any]:
    """Make a retrieval data set of rows with a question and a solution, which is relevant to its question only."""
    from datasets import Dataset

    ids = [f"{number:0{len(str(len(content) - 1))}d}" for number in range(len(content))]
    queries = [{"id": f"q{i}", "text": row["question"]} for i, row in zip(ids, content, strict=True)]
    corpus = [{"id": f"d{i}", "title": "", "text": row["solution"]} for i, row in zip(ids, content, strict=True)]
    return {
        "default": {
            "test": {
                "queries": Dataset.from_list(queries),
                "corpus": Dataset.from_list(corpus),
                "relevant_docs": {f"q{i}": {f"d{i}": 1} for i in ids},
                "top_ranked": None,
            }
        }
    }


def as_splits(content: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Make a data set of rows by split."""
    from datasets import Dataset, DatasetDict

    splits: dict[str, Any] = DatasetDict({split: Dataset.from_list(rows) for split, rows in content.items()})
    return splits
