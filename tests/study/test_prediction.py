"""Does drift predict score: which values are asked, over which pairs, and what is said where they are too few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats

from st_reasoning.stats import holm
from st_reasoning.study.prediction import drifts, predict, scatter

CKA, GUARDED = "linear_cka.debiased", "sensitivity.linear_cka_without_sinks.debiased"


def value(address: str, name: str, number: float | None, *, guarded: bool, change: float = 0.0) -> dict[str, Any]:
    return {
        "level": "global geometry", "address": address, "name": name, "guarded": guarded,
        "backbones": {"value": number}, "change": {"value": None if number is None else change},
    }  # fmt: skip


def pairs(x: list[float], y: list[float | None], *, bases: list[str] | None = None) -> list[dict[str, Any]]:
    """Pairs whose guarded value is x, and whose raw one is the other way round."""
    return [
        {
            "name": f"pair-{place}",
            "base": bases[place] if bases else f"base-{place}",
            "difference": score,
            "mechanism": {
                "values": [
                    value(GUARDED, "CKA", number, guarded=True, change=number**2),
                    value(CKA, "CKA", -number, guarded=False, change=number**2),
                ]
            },
        }
        for place, (number, score) in enumerate(zip(x, y, strict=True))
    ]


def test_every_value_is_correlated_over_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 10))
    found = predict(pairs([*x], [*y]))
    rows = {(row["source"], row["guarded"]): row for row in found["values"]}
    # The change is the same raw and guarded for all pairs: asked once.
    assert rows.keys() == {("backbones", True), ("backbones", False), ("change", True)}
    assert rows["backbones", True]["spearman"] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert rows["backbones", False]["spearman"] == pytest.approx(-scipy.stats.spearmanr(x, y).statistic)
    assert rows["change", True]["kendall"] == pytest.approx(scipy.stats.kendalltau(x**2, y).statistic)
    raw = [row["spearman_p"] for row in found["values"]]
    assert [row["spearman_p_holm"] for row in found["values"]] == pytest.approx(list(holm(raw)))
    assert found["tests"] == 3
    assert found["sentence"].startswith("Over 10 pairs no value is shown to go with the score difference.")
    assert "pairs would be needed" in found["sentence"]


def test_what_is_there_is_found():
    x = [float(n) for n in range(8)]
    found = predict(pairs(x, [2 * n + 0.1 for n in x]))
    assert found["sentence"].startswith("Over 8 pairs, 3 of 3 values go with the score difference: CKA, without sink")
    assert found["values"][0]["spearman_p_holm"] < 0.05


def test_too_few_pairs_are_said_to_be_too_few():
    found = predict(pairs([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]))
    least = found["least_pairs"]
    assert least > 4
    assert found["sentence"].startswith("Not decided, and with 4 pairs it cannot be")
    assert f"with {least} pairs at least" in found["sentence"]
    two = predict(pairs([1.0, 2.0], [1.0, 2.0]))
    assert two["sentence"] == "Nothing can be said: 2 pairs, too few for a correlation, which needs 3."
    assert two["values"][0]["spearman"] is None
    assert predict(pairs([1.0], [1.0]))["sentence"].startswith("Nothing can be said: 1 pair with both")
    alike = predict(pairs([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]))
    assert "alike in their values or in their scores" in alike["sentence"]


def test_pairs_without_a_score_or_a_value_do_not_count():
    made = pairs([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, None, 2.0, 5.0, 4.0])
    made[0]["mechanism"]["values"] = []
    found = predict(made)
    assert found["pairs"].keys() == {"pair-0", "pair-2", "pair-3", "pair-4"}
    assert all(row["pairs"] == 3 for row in found["values"])


def test_a_pair_without_sinks_stands_with_its_raw_value_among_the_guarded_ones():
    made = pairs([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    made[2]["mechanism"]["values"] = [value(CKA, "CKA", 7.0, guarded=True)]
    by_kind = {(each.source, each.guarded): each.by_pair for each in drifts(made)}
    assert by_kind["backbones", True] == {"pair-0": 1.0, "pair-1": 2.0, "pair-2": 7.0}
    assert by_kind["backbones", False] == {"pair-0": -1.0, "pair-1": -2.0, "pair-2": 7.0}


def test_a_shared_base_is_a_reservation():
    made = pairs([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], bases=["a", "a", "b"])
    assert any(note.startswith("2 pairs share their base") for note in predict(made)["notes"])
    assert len(predict(pairs([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]))["notes"]) == 1


def test_what_is_drawn_is_chosen_beforehand():
    (row,) = scatter(predict(pairs([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])))
    assert (row["source"], row["guarded"]) == ("backbones", True)
