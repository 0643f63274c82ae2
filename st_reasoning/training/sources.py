"""Rows out of files and hub data sets, one after the other, each with its place."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from st_reasoning.errors import InputError
from st_reasoning.files import file_hash, folder_hash
from st_reasoning.training.formats import BadRow, relevant

if TYPE_CHECKING:
    from datasets import Dataset

    from st_reasoning.training.recipe import DataSet, Hub

JSON_LINES = (".jsonl", ".jsonl.gz", ".json.gz")
SUFFIXES = (*JSON_LINES, ".parquet")

# A row's place ("train.jsonl, line 7" in two parts) and the row, or why there is none.
Row = tuple[str, int, dict[str, Any] | BadRow]


class Source(Protocol):
    """Where the rows of a data set come from.

    Attributes:
        identity: JSON value that changes when the rows do.
    """

    @property
    def identity(self) -> Any:
        """See above."""

    def rows(self) -> Iterator[Row]:
        """Yield every row, in order."""


def open_source(data: DataSet) -> Source:
    """Open a data set that is read from files or the hub.

    Raises:
        InputError: if there is nothing to read.
    """
    if data.hub is not None:
        return open_hub(data.hub)
    return Files(files_of(Path(str(data.path)).expanduser()))


def files_of(path: Path) -> list[Path]:
    """Return ``path`` itself, or the data files in a folder and its subfolders, sorted.

    Raises:
        InputError: if there is no such file or folder, or none that can be read.
    """
    expected = f"expected a file that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, or a folder of such files"
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise InputError(f"cannot read {path}: {expected}")
        return [path]
    if not path.is_dir():
        raise InputError(f"no such file: {path}; {expected}")
    below = (p for p in path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
    # What is hidden is a file half written, or a cache.
    files = sorted(p for p in below if not any(part.startswith(".") for part in p.relative_to(path).parts))
    if not files:
        raise InputError(f"the folder {path} has no data in it; {expected}")
    return files


@dataclass(frozen=True)
class Files:
    """JSON lines, compressed or not, and parquet; of that only ``columns``, by default those of examples."""

    files: list[Path]
    columns: tuple[str, ...] = ()

    @property
    def identity(self) -> Any:
        """The names, since bad rows are named by them, and the contents."""
        return [[str(file), file_hash(file)] for file in self.files]

    def rows(self) -> Iterator[Row]:
        """Yield every row of every file.

        Raises:
            InputError: for a file that is not what its name says.
        """
        for file in self.files:
            if file.name.endswith(JSON_LINES):
                yield from _json_rows(file)
            else:
                yield from _parquet_rows(file, self.columns)


@dataclass(frozen=True)
class HubRows:
    """The rows of a data set that ``datasets`` has loaded; ``content`` is the hash of a local folder."""

    hub: Hub
    dataset: Dataset
    content: str | None

    @property
    def identity(self) -> Any:
        """What was asked for, and which commit or content it was."""
        asked = [self.hub.name, self.hub.config, self.hub.split, self.hub.revision]
        return [*asked, self.dataset._fingerprint, self.content]

    def rows(self) -> Iterator[Row]:
        """Yield every row."""
        dataset, place = self.dataset, f"{self.hub.name} ({self.hub.split}), row"
        dataset = dataset.select_columns(relevant(dataset.column_names) or dataset.column_names)
        number = 0
        for batch in dataset.with_format("arrow").iter(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield place, number, row


def open_hub(hub: Hub) -> HubRows:
    """Load a data set of the hub, or one in a local folder, with ``datasets``.

    Raises:
        InputError: if there is none of that name, configuration, split or revision, or it cannot be reached.
    """
    from datasets import config, load_dataset
    from datasets.exceptions import DatasetsError

    content = cache = None
    if Path(hub.name).is_dir():
        # datasets knows a local folder whose README lists configurations by that README alone: where only its files
        # changed, it would give the old rows.
        content = folder_hash(Path(hub.name))
        cache = str(Path(config.HF_DATASETS_CACHE) / "st_reasoning" / content)
    try:
        dataset = load_dataset(hub.name, hub.config, split=hub.split, revision=hub.revision, cache_dir=cache)
        return HubRows(hub, dataset, content)
    # A RuntimeError is how a data set that is a script is refused.
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:300]
        raise InputError(f"cannot load the data set {hub.name!r} with datasets.load_dataset: {said}") from error


def _json_rows(file: Path) -> Iterator[Row]:
    place = f"{file}, line"
    try:
        with _opened(file) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield place, number, _json_row(line)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {file}: {error}") from error


def _opened(file: Path) -> BinaryIO | gzip.GzipFile:
    # Bytes: only a line feed ends a line, and bytes that are not UTF-8 spoil one row, not the file.
    return gzip.open(file) if file.suffix == ".gz" else file.open("rb")


def _json_row(line: bytes) -> dict[str, Any] | BadRow:
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        return BadRow("not UTF-8")
    except (ValueError, RecursionError) as error:
        return BadRow(f"not JSON ({error})")
    return row if isinstance(row, dict) else BadRow(f"expected a JSON object, got {type(row).__name__}")


def _parquet_rows(file: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    place, number = f"{file}, row", 0
    try:
        with parquet.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            wanted = [name for name in names if name in columns] if columns else relevant(names)
            for batch in opened.iter_batches(batch_size=1000, columns=wanted or names):
                for row in batch.to_pylist():
                    number += 1
                    yield place, number, row
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"cannot read {file}: {' '.join(str(error).split())}") from error
