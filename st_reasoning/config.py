"""Recipes: YAML in, frozen dataclasses between, resolved YAML out.

A recipe is a plain ``@dataclass(frozen=True)`` whose fields have types and defaults. Types are checked by pydantic;
an unknown key is answered with the keys it may have meant.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from st_reasoning.errors import InputError, unknown_name
from st_reasoning.files import write_text

T = TypeVar("T")

RECORDED = (
    "st-reasoning", "torch", "transformers", "sentence-transformers", "mteb", "peft", "torchmetrics", "trl",
    "reasoning-gym", "numpy", "scipy", "datasets", "accelerate", "tokenizers", "gguf",
)  # fmt: skip


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        InputError: if the file is missing, not YAML, or not a mapping.
    """
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no such file: {path}; expected a recipe in YAML") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}; expected a recipe in YAML") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a mapping of recipe keys, got {type(value).__name__}")
    return value


def parse(cls: type[T], value: dict[str, Any], *, where: str) -> T:
    """Build the frozen dataclass ``cls`` from a mapping read from ``where``.

    Raises:
        InputError: for an unknown key (with close matches), a missing one or a value of the wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    _refuse_unknown_keys(cls, value, where)
    try:
        return TypeAdapter(cls).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        got = "" if first["type"] == "missing" else f", got {first['input']!r}"
        # What a dataclass itself refused comes as "Value error, ...", and says what it got.
        ours = isinstance(first.get("ctx", {}).get("error"), InputError)
        said = str(first["ctx"]["error"]) if ours else first["msg"][:1].lower() + first["msg"][1:] + got
        raise InputError(f"{where}, {key}: {said}" if key else f"{where}: {said}") from None


def _refuse_unknown_keys(cls: type[Any], value: Any, where: str) -> None:
    """Walk nested dataclasses, and lists and mappings of them, beside the mapping they will be built from."""
    if not (dataclasses.is_dataclass(cls) and isinstance(value, dict)):
        return
    hints = get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls) if field.init}
    for key, item in value.items():
        if key not in names:
            raise unknown_name("key", str(key), names, where=where)
        if get_origin(hints[key]) is Mapping and isinstance(item, dict):
            for name, entry in item.items():
                _refuse_unknown_keys(get_args(hints[key])[1], entry, f"{where}, {key}, {name}")
            continue
        for part in (hints[key], *get_args(hints[key])):
            for entry in item if isinstance(item, list) else [item]:
                _refuse_unknown_keys(part, entry, f"{where}, {key}")


def to_mapping(recipe: Any) -> dict[str, Any]:
    """Return a recipe as plain YAML values: nested mappings, lists, texts and numbers."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    mapping: dict[str, Any] = plain(dataclasses.asdict(recipe))
    return mapping


def write_resolved(path: Path, recipe: Any, **facts: Any) -> None:
    """Write the recipe with every default filled in, the versions it ran under, and further facts."""
    import yaml

    value = {"recipe": to_mapping(recipe), **facts, "versions": versions()}
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def versions() -> dict[str, str]:
    """Return the installed version of Python and of every package that can change a result."""
    return dict(_versions())


@functools.cache  # reading them takes as long as loading the weights of a small model
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
