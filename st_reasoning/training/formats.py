"""One row, as people store their training data, to one example.

A data set has one of two forms, told by its columns:

1. ``query``, ``positive``, ``negative_1`` ... ``negative_n``: one text each;
2. ``query``, ``pos``, ``neg``, as the paper's authors, GritLM and BGE write it: the query is ``[instruction, text]`` or
   a text, ``pos`` and ``neg`` are lists of documents, each a text or a pair ``["", text]``.

Either may have a column ``instruction``. Of several positives the first is used, of the negatives the first n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class BadRow(Exception):  # noqa: N818 - it is counted, or named in an error of ours; it ends nothing by itself
    """Why a row is no example."""


class Example(NamedTuple):
    """One example; its instruction is None where the row says nothing of it, and ``""`` where it says there is none."""

    instruction: str | None
    query: str
    positive: str
    negatives: list[str]


@dataclass(frozen=True)
class Form:
    """A form of rows: what it looks like, and how a row and a number of negatives (None: all) become an example."""

    description: str
    read: Callable[[Mapping[str, Any], int | None], Example]


def recognise(columns: Iterable[str]) -> Form:
    """Return the form that a row with these columns has.

    Raises:
        BadRow: if it is neither.
    """
    names = set(columns)
    for column, form in FORMS.items():
        if column in names:
            return form
    known = " or ".join(form.description for form in FORMS.values())
    raise BadRow(f"expected the columns {known}, got {', '.join(sorted(map(repr, names))) or 'none'}")


def relevant(columns: Iterable[str]) -> list[str]:
    """Return those columns that an example is made of."""
    return [c for c in columns if c in ("instruction", "query", *FORMS, "neg") or c.startswith("negative_")]


def _read_columns(row: Mapping[str, Any], hard_negatives: int | None) -> Example:
    if hard_negatives is None:
        numbers = sorted(int(c[9:]) for c in row if c.startswith("negative_") and c[9:].isdecimal())
        columns = [f"negative_{k}" for k in numbers if row[f"negative_{k}"] is not None]
    else:
        columns = [f"negative_{k}" for k in range(1, hard_negatives + 1)]
    return Example(
        _instruction(row.get("instruction"), "instruction"),
        _text(row.get("query"), "query"),
        _text(row.get("positive"), "positive"),
        [_text(row.get(column), column) for column in columns],
    )


def _read_lists(row: Mapping[str, Any], hard_negatives: int | None) -> Example:
    query = row.get("query")
    instruction = _instruction(row.get("instruction"), "instruction")
    if isinstance(query, list):
        if len(query) != 2:
            raise BadRow(f"expected [instruction, text] or a text in 'query', got {_shown(query)}")
        of_query, query = query
        # A row that says it twice is believed where it says more: in the query itself.
        instruction = instruction if of_query is None else _instruction(of_query, "query")
    positives, negatives = (_list(row.get(column), column) for column in ("pos", "neg"))
    if not positives:
        raise BadRow("expected at least one document in 'pos', got an empty list")
    if hard_negatives is not None:
        if len(negatives) < hard_negatives:
            raise BadRow(f"expected at least {hard_negatives} documents in 'neg', got {len(negatives)}")
        negatives = negatives[:hard_negatives]
    return Example(
        instruction, _text(query, "query"), _document(positives[0], "pos"), [_document(d, "neg") for d in negatives]
    )


# By the column that tells them.
FORMS = {
    "positive": Form("query, positive, negative_1 ... negative_n", _read_columns),
    "pos": Form("query, pos, neg", _read_lists),
}


def _list(value: Any, column: str) -> list[Any]:
    if value is None and column == "neg":
        return []
    if not isinstance(value, list):
        raise BadRow(f"expected a list of documents in {column!r}, got {_shown(value)}")
    return value


def _document(value: Any, column: str) -> str:
    if isinstance(value, list):
        if len(value) != 2:
            raise BadRow(f"expected texts or pairs ['', text] in {column!r}, got {_shown(value)}")
        if value[0]:
            raise BadRow(f"expected documents without an instruction in {column!r}, got {_shown(value)}")
        value = value[1]
    return _text(value, column)


def _instruction(value: Any, column: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadRow(f"expected a text as the instruction in {column!r}, got {_shown(value)}")
    return _text(value, column) if value.strip() else ""


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRow(f"expected a text in {column!r}, got {_shown(value)}")
    try:
        value.isascii() or value.encode()
    except UnicodeEncodeError:
        # JSON can spell half of a character ("\ud83d"); neither Arrow nor a tokenizer takes it.
        raise BadRow(f"expected a text in {column!r}, got one with half a surrogate pair: {_shown(value)}") from None
    return value


def _shown(value: Any) -> str:
    # ascii: the value may be what cannot be printed.
    return "nothing" if value is None else ascii(value)[:60]
