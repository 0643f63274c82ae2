"""Tasks made of the rows of a data set on the Hugging Face hub, at a pinned revision."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from mteb.abstasks.retrieval import AbsTaskRetrieval

from st_reasoning.errors import InputError

Row = dict[str, Any]


class HubRows:
    """A task that builds its data from the rows of one split, which ``metadata.dataset`` names; a mixin.

    mteb's own loaders expect a repository of mteb's layout. These data sets have their own.
    """

    metadata: Any
    columns: tuple[str, ...]
    data_loaded: bool = False

    def build(self, rows: list[Row]) -> None:
        """Put ``rows``, which have ``columns`` and whose texts are stripped, where the mteb base class looks."""
        raise NotImplementedError

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Load the split and build the task's data.

        Raises:
            InputError: if the data set has not the columns that the task was written for.
        """
        from datasets import load_dataset

        if self.data_loaded:
            return
        data = load_dataset(**self.metadata.dataset, num_proc=num_proc)
        if missing := set(self.columns) - set(data.column_names):
            raise InputError(
                f"{self.metadata.dataset['path']} has no column {', '.join(sorted(missing))}; expected "
                f"{', '.join(self.columns)}, got {', '.join(data.column_names)}"
            )
        rows = self.select(data).select_columns(list(self.columns))
        self.build([{name: _stripped(value) for name, value in row.items()} for row in rows])
        self.data_loaded = True

    def select(self, data: Any) -> Any:
        """Return the rows of a ``datasets.Dataset`` that the task uses: all of them, unless overridden."""
        return data


class HubPairRetrieval(HubRows, AbsTaskRetrieval):  # type: ignore[misc]
    """Retrieval of the documents that belong to a query.

    Equal texts are one query or one document: a document that several rows share is relevant to the queries of all
    of them, and a query that occurs twice has the documents of both.
    """

    def set_pairs(self, pairs: Iterable[tuple[str, str]], distractors: Iterable[str] = ()) -> None:
        """Make the data of (query, relevant document) pairs and of further documents; empty texts are left out."""
        from datasets import Dataset

        relevant: dict[str, dict[str, None]] = {}
        documents: dict[str, None] = {}
        for query, document in pairs:
            if query and document:
                relevant.setdefault(query, {})[document] = None
                documents[document] = None
        documents.update(dict.fromkeys(filter(None, distractors)))
        number = {text: f"d{place}" for place, text in enumerate(documents)}
        self.dataset = {
            "default": {
                "test": {
                    "queries": Dataset.from_list([{"id": f"q{i}", "text": text} for i, text in enumerate(relevant)]),
                    "corpus": Dataset.from_list(
                        [{"id": id_, "title": "", "text": text} for text, id_ in number.items()]
                    ),
                    "relevant_docs": {
                        f"q{i}": {number[text]: 1 for text in texts} for i, texts in enumerate(relevant.values())
                    },
                    "top_ranked": None,
                }
            }
        }


def drawn(rows: Iterable[Row], *, by: str, count: int | None = None) -> list[Row]:
    """Return ``count`` rows, or all, in the order of the SHA-256 of one column: at random, and always the same.

    Rows whose text in that column occurred before are left out.
    """
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row[by], row)
    ordered = sorted(first, key=lambda text: hashlib.sha256(text.encode()).digest())
    return [first[text] for text in ordered[:count]]


def split_by_label(rows: list[Row], *, label: str, per_label: int) -> tuple[list[Row], list[Row]]:
    """Return the first ``per_label`` rows of each label, and the others, both in the order given."""
    seen: dict[str, int] = {}
    train: list[Row] = []
    test: list[Row] = []
    for row in rows:
        seen[row[label]] = seen.get(row[label], 0) + 1
        (train if seen[row[label]] <= per_label else test).append(row)
    return train, test


def _stripped(value: Any) -> Any:
    if isinstance(value, list):
        return [_stripped(each) for each in value]
    return value.strip() if isinstance(value, str) else value
