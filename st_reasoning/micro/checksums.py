"""A SHA-256 for each file of the micro models, as ``sha256sum --check`` reads them."""

from __future__ import annotations

from pathlib import Path

from st_reasoning.errors import InputError
from st_reasoning.files import file_hash, write_text
from st_reasoning.micro import CARD, CHECKSUMS, FIGURES, MODELS


def shipped_files(folder: Path) -> list[Path]:
    """Return the files of the models, of their card and of their figures, in order."""
    inside = (path for model in MODELS for path in sorted((folder / model).rglob("*")) if path.is_file())
    return [*inside, folder / FIGURES, folder / CARD]


def write_checksums(folder: Path) -> None:
    """Write the checksums of everything that is shipped."""
    lines = [f"{file_hash(path)}  {path.relative_to(folder).as_posix()}\n" for path in shipped_files(folder)]
    write_text(folder / CHECKSUMS, "".join(lines))


def check_files(folder: Path) -> None:
    """Refuse models that are not the ones the figures are of.

    Raises:
        InputError: naming each file that is missing, changed, or not listed.
    """
    listed = folder / CHECKSUMS
    if not listed.is_file():
        raise InputError(f"{folder} has no {CHECKSUMS}; expected a folder that `st-reasoning variants micro` wrote")
    lines = (line.split("  ", 1) for line in listed.read_text(encoding="utf-8").splitlines())
    expected = {name: digest for digest, name in lines}
    found = {path.relative_to(folder).as_posix(): file_hash(path) for path in shipped_files(folder) if path.is_file()}
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if wrong:
        raise InputError(f"{folder}: not what its {CHECKSUMS} says: {', '.join(wrong)}; install the package anew")
