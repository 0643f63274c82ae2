"""Conditions on a panel for continuous integration: ``linear_cka.final<0.95`` fails where it holds."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from st_reasoning.errors import InputError, unknown_name
from st_reasoning.hrsa.addresses import Value, Values
from st_reasoning.hrsa.probing import least_half_width
from st_reasoning.stats import interval

_COMPARE = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
_PLACES = ("final", "first", "min", "max", "mean")
_GRAMMAR = re.compile(r"([\w.]+)\.(\w+)\s*(<=|>=|<|>)\s*(\S+)")
_EXAMPLE = 'expected ADDRESS.LAYER, one of < <= > >=, and a number, e.g. "linear_cka.final<0.95"'

# What a measure holds; the first is meant where none is named.
_CKA, _CORRELATION = ("debiased", "biased"), ("value",)
_PROCRUSTES = ("inverse_row_entropy", "residual")
_PROBE = ("transferred", "own", "difference")
_MEASURES = {
    "dimension_correlation": _CORRELATION,
    "procrustes": _PROCRUSTES,
    "linear_cka": _CKA,
    "knn_overlap": ("value", "value_other_types"),
    "linear_probe": _PROBE,
    "sensitivity.linear_cka_without_sinks": _CKA,
    "sensitivity.linear_cka_standardised": _CKA,
    "sensitivity.dimension_correlation_without_sinks": _CORRELATION,
    "sensitivity.procrustes_without_sinks": _PROCRUSTES,
    "sensitivity.procrustes_standardised": _PROCRUSTES,
    "sensitivity.knn_overlap_without_sinks": ("value",),
    "sensitivity.knn_overlap_standardised": ("value",),
    "sensitivity.linear_probe_without_sinks": _PROBE,
    "sensitivity.linear_probe_standardised": _PROBE,
}


@dataclass(frozen=True)
class Condition:
    """What must not hold.

    Attributes:
        text: As it was written.
        address: Of the value, in full.
        place: final, first, min, max, mean (of all layers), or a number.
        sign: One of < <= > >=.
        limit: What the value is compared with.
    """

    text: str
    address: str
    place: str
    sign: str
    limit: float

    def failure(self, record: dict[str, Any]) -> str | None:
        """Return what failed, with the value, its interval and its layer; None where the condition does not hold.

        A value that is undefined counts as failing: nothing was shown.

        Raises:
            InputError: for a layer that the record does not have.
        """
        values = Values(record)
        where = f"at layer {self._number(values)}" if self.place not in ("min", "max", "mean") else "over the layers"
        if self.address not in values:
            reason = record.get("omitted", {}).get(_measure(self.address).removeprefix("sensitivity."))
            return f"{self.text}: {self.address} was not measured" + (f" ({reason})" if reason else "")
        if self.place in ("min", "max", "mean"):
            undefined = [n for n in range(values.layers) if values.at(self.address, n).value is None]
            if undefined:
                return f"{self.text}: {self.address} is undefined at layer {', '.join(map(str, undefined))}"
            value, where = self._over_layers(values)
        else:
            value = values.at(self.address, self._number(values))
            if value.value is None:
                return f"{self.text}: {self.address} is undefined {where}"
        assert value.value is not None
        if not _COMPARE[self.sign](value.value, self.limit):
            return None
        return f"{self.text}: {self.address} is {value} {where}"

    def _number(self, values: Values) -> int:
        number = {"final": values.layers - 1, "first": 0}.get(self.place)
        number = int(self.place) if number is None else number
        if number >= values.layers:
            raise InputError(f"--fail-if {self.text!r}: expected a layer from 0 to {values.layers - 1}, got {number}")
        return number

    def _over_layers(self, values: Values) -> tuple[Value, str]:
        """Return the lowest, highest or mean value of all layers, and where it is."""
        found = [values.at(self.address, layer) for layer in range(values.layers)]
        numbers = [value.value for value in found if value.value is not None]
        if self.place != "mean":
            extreme = min(numbers) if self.place == "min" else max(numbers)
            layer = numbers.index(extreme)
            return found[layer], f"at layer {layer}, the {'lowest' if self.place == 'min' else 'highest'}"
        mean = math.fsum(numbers) / len(numbers)
        without = [values.left_out(self.address, layer) for layer in range(values.layers)]
        rows = [row for row in without if row is not None]
        ends = None
        if len(rows) == len(without):
            means = [math.fsum(row) / len(rows) for row in zip(*rows, strict=True)]
            jackknife, level = values.record["jackknife"], values.record.get("intervals", {}).get("level", 0.95)
            least = least_half_width(((values, self.address, layer) for layer in range(values.layers)), change=False)
            around = interval(mean, means, jackknife["weights"], level, least=least)
            ends = (around.low, around.high)
        return Value(mean, ends), f"on average over {len(numbers)} layers"


def parse(text: str, k: Sequence[int]) -> Condition:
    """Return a condition, its address in full.

    Of a measure alone the value meant is: of ``linear_cka`` the debiased one, of ``knn_overlap`` that of the middle k,
    of ``procrustes`` the inverse row entropy, of ``linear_probe`` the transferred accuracy. ``sensitivity.`` may be
    left out.

    Args:
        text: ADDRESS.LAYER SIGN NUMBER, e.g. ``knn_overlap.10.min<=0.5``.
        k: The numbers of neighbours that will be measured.

    Raises:
        InputError: for anything else, or a name that is not known.
    """
    match = _GRAMMAR.fullmatch(text.strip())
    if match is None:
        raise InputError(f"--fail-if {text!r}: {_EXAMPLE}")
    name, place, sign, number = match.groups()
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise InputError(f"--fail-if {text!r}: {_EXAMPLE}; got {number!r} as the number")
    where = f"--fail-if {text!r}"
    if place not in _PLACES and not place.isdecimal():
        raise unknown_name("layer", place, (*_PLACES, "a number"), where=where)
    return Condition(text.strip(), _full(name, sorted(set(k)), where), place, sign, limit)


def _full(name: str, k: list[int], where: str) -> str:
    """Return the address that a name, perhaps a short one, stands for."""
    short = {measure.removeprefix("sensitivity."): measure for measure in _MEASURES}
    known: dict[str, str] = {}
    for measure, leaves in _MEASURES.items():
        middle = f".{k[len(k) // 2]}" if "knn_overlap" in measure else ""
        known[measure] = f"{measure}{middle}.{leaves[0]}"
        for size in (f".{number}" for number in k) if middle else ("",):
            known |= {f"{measure}{size}.{leaf}": f"{measure}{size}.{leaf}" for leaf in leaves}
            known.setdefault(f"{measure}{size}", f"{measure}{size}.{leaves[0]}")
    measure, _, rest = name.partition(".")
    wanted = name if name in known or measure not in short else short[measure] + ("." + rest if rest else "")
    if wanted not in known:
        raise unknown_name("value", name, known, where=where)
    return known[wanted]


def _measure(address: str) -> str:
    """Return an address without what it names of its measure."""
    return next(measure for measure in _MEASURES if address.startswith(f"{measure}."))
