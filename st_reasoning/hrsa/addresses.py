"""The values of a record by address: ``linear_cka.debiased``, ``sensitivity.knn_overlap_without_sinks.10.value``.

A value is whatever has an interval beside it. An address is its path below a layer's entry in ``layers``, or, with
``sensitivity.`` in front, below the one in ``sensitivity``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from st_reasoning.errors import InputError, unknown_name

_INTERVAL = "_interval"
# A value and what its chance level is called; that of a residual is 1 and no lower end of a scale.
_CHANCE = {
    "debiased": "debiased_chance",
    "value_other_types": "chance_other_types",
    "difference": "difference_chance",
} | dict.fromkeys(("biased", "value", "inverse_row_entropy", "own", "transferred"), "chance")


@dataclass(frozen=True)
class Value:
    """A number of a record and what it is to be read beside.

    Attributes:
        value: None where it is undefined.
        interval: Its ends, None where it has none.
        chance: What unrelated models give, None where that was not found out.
        ceiling: What the first model gives against itself at lower precision, None where that was not asked for.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    chance: float | None = None
    ceiling: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "undefined"
        return f"{self.value:z.3f}" + ("" if self.interval is None else " [{:z.3f}, {:z.3f}]".format(*self.interval))

    def to_mapping(self) -> dict[str, Any]:
        """Return the value as JSON holds it."""
        interval = None if self.interval is None else list(self.interval)
        return {"value": self.value, "interval": interval, "chance": self.chance, "ceiling": self.ceiling}


class Values:
    """The values of a record by address and layer.

    Args:
        record: A panel of schema 3, or its ``pooled`` part.
        unit: What a row of the compared states is, for sentences about them.
    """

    def __init__(self, record: dict[str, Any], unit: str = "token") -> None:
        self.record, self.unit = record, unit
        self.layers = len(record["layers"])
        self._paths: dict[str, tuple[str, ...]] = {}
        for section, prefix in (("layers", ""), ("sensitivity", "sensitivity.")):
            for entry in record[section]:
                self._paths |= {prefix + ".".join(path): (section, *path) for path in _leaves(entry)}

    def __iter__(self) -> Iterator[str]:
        """Go over the addresses."""
        return iter(self._paths)

    def __contains__(self, address: str) -> bool:
        return address in self._paths

    def at(self, address: str, layer: int) -> Value:
        """Return the value at an address and a layer, which counts from 0, or from the last one as -1.

        Raises:
            InputError: for an address or a layer that the record does not have.
        """
        if address not in self._paths:
            raise unknown_name("address", address, self._paths)
        if not -self.layers <= layer < self.layers:
            raise InputError(f"layer: expected 0 to {self.layers - 1}, got {layer}")
        section, *path, name = self._paths[address]
        entry = _follow(self.record[section][layer], path)
        if entry is None or entry.get(name) is None:
            return Value(None)
        interval = entry.get(name + _INTERVAL)
        ceiling = (self.record.get("ceiling") or {}).get(section)
        highest = None if ceiling is None else _follow(ceiling[layer], path)
        return Value(
            value=entry[name],
            interval=None if interval is None else (interval[0], interval[1]),
            chance=entry.get(_CHANCE.get(name, "")),
            ceiling=None if highest is None else highest.get(name),
        )

    def left_out(self, address: str, layer: int) -> list[float] | None:
        """Return the value without each block, None where that is undefined."""
        by_layer = self.record.get("jackknife", {}).get("left_out", {}).get(address)
        found: list[float] | None = None if by_layer is None else by_layer[layer]
        return None if found is None or None in found else found

    def fact(self, address: str, layer: int) -> Any:
        """Return anything below a layer's entry, e.g. ``sensitivity.sink_tokens``; None where it is not."""
        section = "sensitivity" if address.startswith("sensitivity.") else "layers"
        return _follow(self.record[section][layer], address.removeprefix("sensitivity.").split("."))

    @property
    def sinks(self) -> int:
        """Tokens that are a sink at some layer of either model."""
        return int((self.record.get("sinks") or {}).get("tokens") or 0)


def _leaves(entry: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, item in entry.items():
        if isinstance(item, dict):
            yield from _leaves(item, (*path, key))
        elif key + _INTERVAL in entry:
            yield (*path, key)


def _follow(entry: Any, path: list[str]) -> Any:
    for key in path:
        entry = entry.get(key) if isinstance(entry, dict) else None
    return entry
