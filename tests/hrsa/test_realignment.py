"""The change between two panels: its interval, its words and what cannot be compared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from st_reasoning.errors import InputError
from st_reasoning.hrsa.realignment import realignment, summary
from st_reasoning.stats import interval
from tests.hrsa.constructed import layer, record, without


def words(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [level["word"] for level in realignment(record(layer(**before)), record(layer(**after)))["levels"]]


UNRELATED = {"correlation": 0.0, "entropy": 0.2, "residual": 1.0, "cka": 0.015, "overlap": 0.003, "transferred": 0.25}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {}, ["preserved"] * 4),
        # The paper's last table for SFT: all but the neighbours come back.
        (
            {"correlation": 0.4, "entropy": 0.2, "cka": 0.5, "overlap": 0.1, "transferred": 0.5},
            {"overlap": 0.1},
            ["realigned", "realigned", "irreversible", "realigned"],
        ),
        ({}, UNRELATED, ["drifted", "drifted", "reorganised", "drifted"]),
        (UNRELATED, UNRELATED, ["irreversible"] * 4),
        # Still kept, but clearly lower: 0.85 of a limit of 0.75.
        ({}, {"correlation": 0.85, "entropy": 0.5}, ["drifted", "preserved", "preserved", "preserved"]),
        ({}, {"correlation": 0.98}, ["preserved"] * 4),
        # Risen and still low is neither realigned nor irreversible.
        ({"cka": 0.3}, {"cka": 0.6}, ["preserved", "undecided", "preserved", "preserved"]),
        ({"cka": 0.6}, {"cka": 0.3}, ["preserved", "irreversible", "preserved", "preserved"]),
        # An interval that spans its limit after a fall that is certain, and after none.
        ({}, {"cka": 0.9}, ["preserved", "drifted", "preserved", "preserved"]),
        ({"cka": 0.9}, {"cka": 0.9}, ["preserved", "undecided", "preserved", "preserved"]),
    ],
)
def test_words_of_a_change(before: dict[str, float], after: dict[str, float], expected: list[str]):
    assert words(before, after) == expected


def test_the_interval_is_paired():
    old, new = record(layer(cka=0.5, half=0.2), seed=1), record(layer(cka=0.52, half=0.2), seed=1)
    (change,) = [c for c in realignment(old, new)["changes"] if c["address"] == "linear_cka.debiased"]
    # What the sentences do to both values alike cancels: each alone is known to 0.2 only.
    assert change["change"] == pytest.approx(0.02)
    assert change["interval"] == pytest.approx([0.02, 0.02], abs=1e-9)
    assert change["shown"] is True
    # Panels that move apart with the sentences: as the jackknife of the differences says.
    other = record(layer(cka=0.52, half=0.2), seed=2)
    (change,) = [c for c in realignment(old, other)["changes"] if c["address"] == "linear_cka.debiased"]
    rows = [np.array(r["jackknife"]["left_out"]["linear_cka.debiased"][0]) for r in (old, other)]
    expected = interval(0.02, rows[1] - rows[0], old["jackknife"]["weights"])
    assert change["interval"] == pytest.approx([expected.low, expected.high])
    assert change["shown"] is False


def test_a_change_of_a_probe_is_not_certain_because_every_block_shows_the_same():
    old, new = record(layer(), seed=1), record(layer(), seed=1)
    # Without sink tokens fewer texts are left, in one of the panels fewer still.
    for panel, tested in ((old, 40), (new, 30)):
        panel["sensitivity"][0]["linear_probe_without_sinks"]["test_rows"] = tested
    changes = {change["address"]: change for change in realignment(old, new)["changes"]}
    for address, tested in (("linear_probe", 100), ("sensitivity.linear_probe_without_sinks", 30)):
        # Agresti and Min (2005): no text of n on which two probes differ, half a text more of either. A difference of
        # two accuracies has twice that variance when it is subtracted from another one.
        half = norm.ppf(0.975) / (tested + 2)
        for name, expected in (("own", half), ("transferred", half), ("difference", math.sqrt(2) * half)):
            assert changes[f"{address}.{name}"]["interval"] == pytest.approx([-expected, expected])
            assert changes[f"{address}.{name}"]["shown"] is False
    # What is no share of a few texts is as sure as its blocks say.
    assert changes["linear_cka.debiased"]["interval"] == [0, 0]


def test_every_value_of_every_layer_is_there():
    old, new = record(layer(cka=0.5), layer()), record(layer(cka=0.7), layer(determined=False))
    found = realignment(old, new)
    assert len(found["changes"]) == 2 * len(old["jackknife"]["left_out"])
    by_place = {(c["address"], c["layer"]): c for c in found["changes"]}
    assert by_place["linear_cka.biased", 0]["change"] == pytest.approx(0.2)
    # Values that the tokens do not determine have no interval, so nothing is shown.
    undetermined = by_place["procrustes.inverse_row_entropy", 1]
    assert (undetermined["interval"], undetermined["shown"]) == (None, None)
    assert [level["word"] for level in found["levels"]] == ["preserved"] * 4


def test_words_stand_beside_their_rule_and_numbers():
    old, new = record(layer(overlap=0.1)), record(layer(overlap=0.12))
    new["models"][0]["attention"] = new["models"][1]["attention"] = "bidirectional"
    new["jackknife"]["weights"][0] += 5
    found = realignment(old, new)
    local = found["levels"][2]
    assert (local["before"], local["after"], local["word"]) == ("reorganised", "reorganised", "undecided")
    assert local["sentence"].startswith("Reorganised before (0.100 [0.090, 0.110]), reorganised after (0.120 [")
    assert "the change is +0.020 [+0.020, +0.020]." in local["sentence"]
    assert "still not kept" in local["rule"]
    attention, tokens = found["notes"]
    assert "run with attention causal, the embedders with bidirectional: the change includes that" in attention
    assert "different numbers of tokens" in tokens
    shown = summary(found)
    assert "a and b -> a and b, layer 0" in shown
    assert "local geometry    reorganised  reorganised  +0.020 [+0.020, +0.020]  undecided" in shown
    assert local["rule"] in shown


def test_what_one_panel_lacks_is_not_measured():
    new = without(record(layer()), "linear_probe", "no labels were given")
    level = realignment(record(layer()), new)["levels"][3]
    assert (level["word"], level["sentence"], level["change"]) == ("not measured", "No labels were given.", None)


def test_other_panels_are_refused():
    good = record(layer(), layer())

    def changed(path: str, value: Any) -> dict[str, Any]:
        found = record(layer(), layer())
        *keys, last = path.split(".")
        place: Any = found
        for key in keys:
            place = place[int(key) if key.isdecimal() else key]
        place[last] = value
        return found

    for panel, said in (
        (changed("corpus.hash", "1" * 64), r"same texts \(corpus hash\) in both, got 000000000000 .* and 111111111111"),
        (changed("settings.seed", 1), "same seed in both, got 0 for the backbones and 1 for the embedders"),
        (changed("settings.k", [5]), "same k in both"),
        (changed("jackknife.weights", [1.0, 2.0]), "same number of blocks in both, got 32 .* and 2"),
        (changed("models.1.width", 128), r"same width of the models in both, got \[64, 64\] .* and \[64, 128\]"),
        (record(layer()), "same layers compared in both, got 2 for the backbones and 1 for the embedders"),
        (changed("schema", 2), "embedders: expected a panel of schema 3, which has intervals, got schema 2"),
    ):
        with pytest.raises(InputError, match=said):
            realignment(good, panel)
