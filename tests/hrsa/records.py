"""Records of schema 3 made up without a model: smooth curves, some values undefined, names as hostile as one likes."""

from __future__ import annotations

from typing import Any

import numpy as np

HOSTILE = ('<script>alert("one")</script>', "\"onload='alert(2)' x=\"&amp;{{ 7 * 7 }}")
BLOCKS = 8


class Maker:
    """Numbers with intervals, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def number(self, depth: float, start: float, end: float, noise: float = 0.015) -> float:
        return float(start + (end - start) * depth + noise * self.generator.standard_normal())

    def values(self, width: float = 0.02, /, **values: float | None) -> dict[str, Any]:
        """Return each value with its interval beside it."""
        found: dict[str, Any] = {}
        for key, value in values.items():
            found[key] = value
            found[f"{key}_interval"] = None if value is None else [value - width, value + 1.2 * width]
        return found


def record(
    *,
    layers: tuple[int, int] = (30, 30),
    widths: tuple[int, int] = (576, 576),
    names: tuple[str, str] = ("first", "second"),
    seed: int = 0,
    gaps: bool = False,
    ceiling: bool = False,
    pooled: bool = False,
    probe: bool = True,
    sinks: int = 504,
) -> dict[str, Any]:
    """Return a record of schema 3, without ``reading``.

    Args:
        layers: Transformer layers of both models; hidden states are one more.
        widths: Unequal ones leave out what pairs dimensions.
        names: What the models are called.
        seed: Of the numbers.
        gaps: Whether values are undefined: all at layer 1, some intervals, a row of a matrix.
        ceiling: Whether there is one.
        pooled: Whether there is a part for one vector per text.
        probe: Whether labels were given.
        sinks: Sink tokens.
    """
    make = Maker(seed)
    compared = _compared(make, layers, widths, names, probe=probe, sinks=sinks)
    if gaps:
        _forget(compared)
    made = {
        "schema": 3,
        "models": [
            {
                "name": name,
                "source": f"runs/{name}",
                "architecture": "LlamaModel",
                "attention": "causal",
                "attention_implementation": "sdpa",
                "dtype": "float32",
                "device": "cpu",
                "max_seq_length": 512,
                "layers": depth,
                "width": width,
            }
            for name, depth, width in zip(names, layers, widths, strict=True)
        ],
        "corpus": {
            "texts": 500,
            "tokens": 13_370,
            "distinct_tokens": 812,
            "longest": 64,
            "hash": "0" * 64,
            "alignment": {
                "method": "ids",
                "tokens": 13_370,
                "cut": 0,
                "share_a": 1.0,
                "share_b": 1.0,
                "same_span": 1.0,
            },
        },
        "settings": {"k": [5, 10, 50], "seed": seed, "sink_ratio": 10.0, "estimator": "fast", "labels": None},
        "intervals": {
            "level": 0.95,
            "method": "sentence-block jackknife",
            "blocks": BLOCKS,
            "marked": {"procrustes.inverse_row_entropy": "fewer fitted rows than four times the width"},
        },
        **compared,
        "ceiling": None,
        "pooled": None,
        "runtime": {"seconds": {"forward": 12.5, "linear_cka": 3.25}, "threads": 2},
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
    }
    if ceiling:
        near = _compared(
            Maker(seed + 1), (layers[0], layers[0]), (widths[0], widths[0]), names, probe=probe, sinks=sinks
        )
        made["ceiling"] = {"precision": "bfloat16", "layers": near["layers"], "sensitivity": near["sensitivity"]}
    if pooled:
        made["pooled"] = _compared(Maker(seed + 2), layers, widths, names, probe=False, sinks=0)
    else:
        made["omitted"]["pooled"] = "needs two embedders and more texts than the smallest k"
    return made


def reading(word: str = "stable") -> dict[str, Any]:
    """Return words for each level, as reading.py writes them."""
    levels = {
        "coordinate basis": (["dimension_correlation.value", "procrustes.inverse_row_entropy"], "the bases agree"),
        "global geometry": (["linear_cka.debiased"], "the shape of the cloud is kept"),
        "local geometry": (["knn_overlap.10.value"], "half of the neighbours are new"),
        "linear readout": (["linear_probe.difference"], "a classifier loses 2 points"),
    }
    return {
        "levels": [
            {
                "level": level,
                "word": word,
                "rule": "preserved if the interval at the last layer lies above 0.9",
                "sentence": f"At the last layer {said}.",
                "values": addresses,
            }
            for level, (addresses, said) in levels.items()
        ],
        "warnings": ["At 17 of 31 layers one dimension holds more than half of the variance."],
        "answer": ["Both models place tokens in the same overall shape, and give them other neighbours."],
    }


def full(**changes: Any) -> dict[str, Any]:
    """Return a record with everything a page can show; ``changes`` are those of :func:`record`."""
    made = record(**{"ceiling": True, "pooled": True, **changes})
    made["reading"] = reading()
    if made["pooled"] is not None:
        made["pooled"]["reading"] = reading("distorted")
    return made


def realignment(layers: int = 31) -> dict[str, Any]:
    """Return changes of two values at each layer, one of them without interval at layer 1."""
    make = Maker(5)
    changes = []
    for address, size in (("linear_cka.debiased", 0.08), ("knn_overlap.10.value", -0.02)):
        for layer in range(layers):
            before, change = make.number(layer / layers, 0.8, 0.7), make.number(layer / layers, size / 2, size)
            interval = None if layer == 1 else [change - 0.03, change + 0.03]
            changes.append({
                "address": address, "layer": layer, "before": before, "after": before + change, "change": change,
                "interval": interval,
            })  # fmt: skip
    level = {"level": "global geometry", "word": "realigned", "rule": "above zero", "sentence": "CKA rose by 0.08."}
    return {"levels": [level], "changes": changes}


def _compared(
    make: Maker, layers: tuple[int, int], widths: tuple[int, int], names: tuple[str, str], *, probe: bool, sinks: int
) -> dict[str, Any]:
    same = widths[0] == widths[1]
    states = layers[0] + 1, layers[1] + 1
    layer_entries, sensitivity = [], []
    for number in range(states[0]):
        depth = number / layers[0]
        other = round(number * layers[1] / layers[0])
        layer_entries.append(_layer(make, number, other, depth, names, same=same, probe=probe and same))
        sensitivity.append(_guards(make, number, depth, names, same=same, sinks=sinks))
    omitted = {}
    if not probe:
        omitted["linear_probe"] = "no labels were given"
    if not same:
        reason = f"widths differ: {widths[0]} and {widths[1]}"
        omitted |= dict.fromkeys(("dimension_correlation", "procrustes", "linear_probe"), reason)
    matrices: dict[str, Any] = {}
    for key, low in (("linear_cka", 0.3), ("linear_cka_debiased", 0.2), ("dimension_correlation", -0.2)):
        paired = same or key != "dimension_correlation"
        matrices[key] = _matrix(make, states, low) if paired else None
        matrices[f"{key}_without_sinks"] = _matrix(make, states, low) if paired else None
        matrices[f"{key}_half_width"] = (
            [[0.01 + 0.0001 * (a + b) for b in range(states[1])] for a in range(states[0])] if paired else None
        )
    return {
        "layers": layer_entries,
        "matrices": matrices,
        "sensitivity": sensitivity,
        "sinks_left_out": sinks,
        "sinks": {"tokens": sinks, "positions": {"0": sinks - 4, "3": 3, "17": 1} if sinks else {}},
        "sample": {"tokens_seen": 13_370, "tokens": 13_370, "queries": 2048},
        "jackknife": {"weights": [1671.25] * BLOCKS, "left_out": {}},
        "omitted": omitted,
    }


def _layer(
    make: Maker, number: int, other: int, depth: float, names: tuple[str, str], *, same: bool, probe: bool
) -> dict[str, Any]:
    cka = make.values(
        biased=min(1.0, make.number(depth, 0.99, 0.95)), debiased=min(1.0, make.number(depth, 0.98, 0.93))
    )
    own, moved = make.number(depth, 0.7, 0.92), make.number(depth, 0.68, 0.9)
    return {
        "layer": number,
        "matched_layer": other,
        "dimension_correlation": {
            **make.values(value=make.number(depth, 0.97, 0.85)),
            "chance": 0.0,
            "constant_columns": dict.fromkeys(names, 0),
        }
        if same
        else None,
        "procrustes": _rotation(make, depth, determined=number != 2) if same else None,
        "linear_cka": {
            **cka,
            "chance": make.number(depth, 0.12, 0.3, 0.0),
            "debiased_chance": make.number(depth, 0.05, 0.02, 0.0),
            "chance_exchangeable": 0.004,
            "chance_isotropic": 0.041,
        },
        "knn_overlap": {
            k: {
                **make.values(
                    0.01, value=make.number(depth, 0.9, end), value_other_types=make.number(depth, 0.8, end - 0.1)
                ),
                "chance": 0.08,
                "chance_other_types": 0.03,
                "chance_independent": 0.002,
            }
            for k, end in (("5", 0.45), ("10", 0.5), ("50", 0.6))
        },
        "linear_probe": {
            **make.values(own=own, transferred=moved, difference=moved - own),
            "chance": 0.18,
            "difference_chance": 0.18 - own,
            "classes": 6,
            "train_rows": 400,
            "test_rows": 100,
            "converged": True,
        }
        if probe
        else None,
    }


def _guards(
    make: Maker, number: int, depth: float, names: tuple[str, str], *, same: bool, sinks: int
) -> dict[str, Any]:
    def named(start: float, end: float) -> dict[str, float]:
        return {name: make.number(depth, start, end) for name in names}

    def cka(end: float) -> dict[str, Any]:
        values = make.values(biased=make.number(depth, 0.95, end), debiased=make.number(depth, 0.94, end - 0.02))
        return values | {"chance": 0.05, "debiased_chance": 0.01}

    def overlap(end: float) -> dict[str, Any]:
        return {k: make.values(0.01, value=make.number(depth, 0.85, end)) | {"chance": 0.05} for k in ("5", "10", "50")}

    return {
        "layer": number,
        "top_dimension_share": named(0.05, 0.9),
        "effective_rank": named(60.0, 3.0),
        "sink_tokens": {**dict.fromkeys(names, sinks), "either": sinks},
        "hubness": named(0.4, 3.2),
        "same_type_share": named(0.95, 0.3),
        "linear_cka_without_sinks": cka(0.8),
        "linear_cka_standardised": cka(0.75),
        "dimension_correlation_without_sinks": make.values(value=make.number(depth, 0.96, 0.8)) | {"chance": 0.0}
        if same
        else None,
        "procrustes_without_sinks": _rotation(make, depth) if same else None,
        "procrustes_standardised": _rotation(make, depth) if same else None,
        "knn_overlap_without_sinks": overlap(0.4),
        "knn_overlap_standardised": overlap(0.38),
    }


def _rotation(make: Maker, depth: float, *, determined: bool = True) -> dict[str, Any]:
    values = make.values(0.04, inverse_row_entropy=make.number(depth, 0.9, 0.6), residual=make.number(depth, 0.1, 0.35))
    if not determined:
        values["inverse_row_entropy_interval"] = None
    return {
        **values, "chance": 0.115, "scale": 1.0, "rank": 570, "determined": determined, "train_rows": 10_700,
        "test_rows": 2670,
    }  # fmt: skip


def _matrix(make: Maker, states: tuple[int, int], low: float) -> list[list[float | None]]:
    rows = np.arange(states[0])[:, None] / max(1, states[0] - 1)
    columns = np.arange(states[1])[None] / max(1, states[1] - 1)
    values = low + (1 - low) * np.exp(-12 * (rows - columns) ** 2) + 0.01 * make.generator.standard_normal(states)
    return np.minimum(values, 1.0).tolist()


def _forget(compared: dict[str, Any]) -> None:
    """Make undefined: every value at layer 1, the interval of debiased CKA at layer 3, a row of each matrix."""
    for section in ("layers", "sensitivity"):
        entry = compared[section][1]
        for key, value in entry.items():
            if isinstance(value, dict):
                entry[key] = _undefined(value)
    compared["layers"][3]["linear_cka"]["debiased_interval"] = None
    for matrix in compared["matrices"].values():
        if matrix is not None:
            matrix[1] = [None] * len(matrix[1])


def _undefined(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _undefined(value) if isinstance(value, dict) else value if isinstance(value, bool) else None
        for key, value in values.items()
    }
