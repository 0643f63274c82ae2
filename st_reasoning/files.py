"""Files and folders that are either complete or absent, and hashes of what they hold."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from st_reasoning.errors import InputError


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that would lose something; also worth calling before long work.

    Raises:
        InputError: if ``path`` is a file, or a non-empty folder and ``overwrite`` is false.
    """
    if path.is_file():
        raise InputError(f"the output {path} is a file; expected a folder that does not exist yet")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise InputError(f"the output folder {path} is not empty; name another one or pass --overwrite")


def refuse_existing_file(path: Path, *, overwrite: bool) -> None:
    """Refuse an output file that would replace something; also worth calling before long work.

    Raises:
        InputError: if ``path`` is a folder, or a file and ``overwrite`` is false.
    """
    if path.is_dir():
        raise InputError(f"the output {path} is a folder; expected a file")
    if path.exists() and not overwrite:
        raise InputError(f"the output {path} is there already; name another one or pass --overwrite")


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty scratch folder beside ``path`` that becomes ``path`` only if the block ends well.

    Args:
        path: The folder to make. Its parents are created.
        overwrite: Whether an existing, non-empty ``path`` is replaced.

    Raises:
        InputError: if ``path`` is a file, or a non-empty folder and ``overwrite`` is false.
    """
    refuse_existing(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left_over in path.parent.glob(f".{path.name}.*.partial"):
        shutil.rmtree(left_over, ignore_errors=True)  # of a process that was killed
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    # mkdtemp makes the folder private to the user; what is published follows the umask like any other folder.
    umask = os.umask(0)
    os.umask(umask)
    scratch.chmod(0o777 & ~umask)
    try:
        yield scratch
        if path.exists():
            shutil.rmtree(path)
        scratch.rename(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield the name of a scratch file beside ``path`` that becomes ``path`` only if the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` through a temporary file and a rename, so that no reader sees half of it."""
    with new_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON; NaN and infinities are refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON, naming the file when it is missing or malformed.

    Raises:
        InputError: if there is no such file or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a JSON object per line; empty lines are skipped.

    Raises:
        InputError: if the file is missing, a line is not a JSON object (named by number), or there is none.
    """
    if not path.is_file():
        raise InputError(f"no such file: {path}; expected a JSONL file, one JSON object per line")
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}, line {number}: not JSON ({error})") from None
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: expected a JSON object, got {type(row).__name__}")
            rows.append(row)
    if not rows:
        raise InputError(f"{path} is empty; expected one JSON object per line")
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object per line, complete or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def file_hash(path: Path) -> str:
    """Return the SHA-256, in hex, of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_hash(path: Path) -> str:
    """Return the SHA-256, in hex, of the names and contents of all files below ``path``.

    Caches are keyed by it: two folders with the same name and different weights never share an entry.
    """
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        digest.update(bytes.fromhex(file_hash(file)))
    return digest.hexdigest()


def content_hash(value: Any) -> str:
    """Return the SHA-256, in hex, of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
