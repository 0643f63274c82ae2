"""The recipes that come with the package."""

from __future__ import annotations

from pathlib import Path

from st_reasoning.errors import unknown_name

DEFAULT = "micro"


def find_recipe(name: str) -> Path:
    """Return the file of a recipe: a path, or the name of one that comes with the package, without its suffix.

    Raises:
        InputError: for a name that is none of theirs; a missing file is left to whoever reads it.
    """
    path = Path(name)
    if path.suffix or len(path.parts) != 1 or path.is_file():
        return path
    known = {file.stem: file for folder in _folders() for file in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise unknown_name("recipe", name, known)
    return known[name]


def _folders() -> list[Path]:
    """Return where recipes lie: beside the package in a checkout, inside it when it is installed from a wheel."""
    package = Path(__file__).parents[1]
    return [folder for folder in (package / "recipes", package.parent / "recipes") if folder.is_dir()]
