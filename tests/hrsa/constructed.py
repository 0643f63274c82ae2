"""Records of schema 3 from a few numbers, for what reads records: no model, no states."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

BLOCKS = 32


def layer(**values: Any) -> dict[str, float]:
    """The values of one layer: a model with itself, unless told otherwise; ``half`` is that of all intervals."""
    known = {
        "correlation": 1.0,
        "entropy": 1.0,
        "residual": 0.0,
        "cka": 1.0,
        "overlap": 1.0,
        "own": 0.9,
        "transferred": 0.9,
        "standardised": 1.0,
        "top": 0.1,
        "hubs": 0.5,
        "half": 0.01,
        "determined": True,
        "cka_chance": 0.01,
    }
    assert not values.keys() - {*known, "raw_cka", "raw_correlation", "others", "raw_overlap"}
    found = known | values
    for raw, guarded in (("raw_cka", "cka"), ("raw_correlation", "correlation"), ("raw_overlap", "overlap")):
        found.setdefault(raw, found[guarded])
    found.setdefault("others", found["overlap"])
    return found


def record(*layers: dict[str, Any], sinks: int = 0, texts: int = 500, seed: int = 0) -> dict[str, Any]:
    """A panel of two models of width 64 with k = 5, 10, 50."""
    entries, guards = [], []
    left_out: dict[str, list[list[float] | None]] = {}
    rng = np.random.default_rng(seed)

    def given(value: float | None, half: float, name: str = "value") -> dict[str, Any]:
        ends = None if value is None else [value - half, value + half]
        return {name: value, f"{name}_interval": ends}

    for number, v in enumerate(layers):
        half = v["half"]

        def both(prefix: str, v: dict[str, Any] = v, half: float = half) -> dict[str, Any]:
            cka = v["raw_cka" if prefix == "raw" else "standardised" if prefix == "standardised" else "cka"]
            found = given(cka, half, "debiased") | given(cka, half, "biased")
            # Chance without sinks is not that with them.
            return found | dict.fromkeys(
                ("chance", "debiased_chance"), v["cka_chance"] if prefix == "raw" or not sinks else 0.0
            )

        fit = (
            given(v["entropy"], half, "inverse_row_entropy")
            | given(v["residual"], half, "residual")
            | {"chance": 0.17, "determined": v["determined"], "rank": 64}
        )
        if not v["determined"]:
            fit |= {"inverse_row_entropy_interval": None, "residual_interval": None}
        probe = (
            given(v["own"], half, "own")
            | given(v["transferred"], half, "transferred")
            | given(v["transferred"] - v["own"], half, "difference")
            | {"chance": 0.25, "difference_chance": 0.25 - v["own"], "converged": True, "test_rows": 100}
        )
        entries.append({
            "layer": number,
            "matched_layer": number,
            "dimension_correlation": given(v["raw_correlation"], half) | {"chance": 0.0},
            "procrustes": fit,
            "linear_cka": both("raw") | {"chance": v["cka_chance"], "debiased_chance": v["cka_chance"]},
            "knn_overlap": {
                str(k): given(v["raw_overlap"], half)
                | given(v["others"], half, "value_other_types")
                | {"chance": 0.002, "chance_other_types": 0.002}
                for k in (5, 10, 50)
            },
            "linear_probe": probe,
        })  # fmt: skip
        guards.append({
            "layer": number,
            "top_dimension_share": {"a": v["top"], "b": 0.1},
            "hubness": {"a": 0.3, "b": v["hubs"]},
            "sink_tokens": {"a": sinks, "b": sinks, "either": sinks},
            "linear_cka_without_sinks": both("guarded"),
            "linear_cka_standardised": both("standardised"),
            "dimension_correlation_without_sinks": given(v["correlation"], half) | {"chance": 0.0},
            "procrustes_without_sinks": copy.deepcopy(fit),
            "knn_overlap_without_sinks": {str(k): given(v["overlap"], half) | {"chance": 0.002} for k in (5, 10, 50)},
            "linear_probe_without_sinks": copy.deepcopy(probe),
        })  # fmt: skip
    noise = rng.normal(size=BLOCKS)

    def leave_out(entry: dict[str, Any], address: str, number: int) -> None:
        for name, item in entry.items():
            if isinstance(item, dict):
                leave_out(item, f"{address}{name}.", number)
            elif f"{name}_interval" in entry:
                rows = left_out.setdefault(f"{address}{name}", [None] * len(layers))
                # All values move with the sentences alike; of the width of their intervals it is about right.
                undefined = item is None or entry[f"{name}_interval"] is None
                rows[number] = None if undefined else (item + 0.1 * layers[number]["half"] * noise).tolist()

    for number, (entry, guard) in enumerate(zip(entries, guards, strict=True)):
        leave_out(entry, "", number)
        leave_out(guard, "sensitivity.", number)
    names = ("a", "b")
    return {
        "schema": 3,
        "models": [
            {"name": name, "layers": len(layers) - 1, "width": 64, "attention": "causal", "dtype": "float32",
             "architecture": "LlamaModel"}
            for name in names
        ],
        "corpus": {"texts": texts, "tokens": 20 * texts, "hash": "0" * 64},
        "settings": {"k": [5, 10, 50], "seed": 0, "estimator": "fast", "sink_ratio": 10.0, "test_share": 0.2,
                     "probe": "logistic", "labels": None},
        "intervals": {"level": 0.95, "method": "sentence-block jackknife", "blocks": BLOCKS, "marked": {}},
        "layers": entries,
        "sensitivity": guards,
        "sinks": {"tokens": sinks, "positions": {"0": sinks} if sinks else {}},
        "ceiling": None,
        "jackknife": {"weights": [100.0 + i for i in range(BLOCKS)], "left_out": left_out},
        "omitted": {},
    }  # fmt: skip


def without(found: dict[str, Any], measure: str, reason: str) -> dict[str, Any]:
    """The record as it is where a measure was omitted."""
    for entry in found["layers"]:
        entry[measure] = None
    found["omitted"][measure] = reason
    return found
