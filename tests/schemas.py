"""What tests of documented JSON share: the keys that a SCHEMA.md names, and those of a record."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def documented(document: Path) -> set[str]:
    """Keys of the first column; one that begins with a dot stands in place of the last part of the one before."""
    keys: list[str] = []
    for line in document.read_text(encoding="utf-8").splitlines():
        for key in re.findall(r"`([^`]+)`", line.split("|")[1]) if line.startswith("| `") else ():
            keys.append(keys[-1].rsplit(".", 1)[0] + key if key.startswith(".") else key)
    return set(keys)


def keys_of(value: Any, path: str = "") -> Iterator[str]:
    """Addresses of all values of a record; ``[]`` stands for any place in a list of mappings."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from keys_of(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for item in value:
            yield from keys_of(item, f"{path}[]")
    else:
        yield path
