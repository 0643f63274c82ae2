"""Words from numbers: what a record says, by hand-built records. What real states say: test_truth.py."""

from __future__ import annotations

from typing import Any

import pytest

from st_reasoning.errors import InputError
from st_reasoning.hrsa.addresses import Values
from st_reasoning.hrsa.reading import read
from tests.hrsa.constructed import layer, record, without


def words(found: dict[str, Any]) -> list[str]:
    return [level["word"] for level in read(found)["levels"]]


def sentence(found: dict[str, Any], level: int) -> str:
    said: str = read(found)["levels"][level]["sentence"]
    return said


SAME = ["preserved", "stable", "kept", "transferred"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, SAME),
        ({"correlation": 0.02, "entropy": 0.2}, ["drifted", *SAME[1:]]),
        ({"correlation": 0.02}, ["permuted", *SAME[1:]]),
        ({"cka": 0.6}, ["preserved", "distorted", "kept", "transferred"]),
        ({"overlap": 0.4}, ["preserved", "stable", "reorganised", "transferred"]),
        ({"transferred": 0.7}, ["preserved", "stable", "kept", "degraded"]),
        (
            {"correlation": 0.0, "entropy": 0.2, "residual": 1.0, "cka": 0.015, "overlap": 0.003, "transferred": 0.25},
            ["at chance"] * 4,
        ),
        # Too few tokens for a narrow interval; that the rotation explains nothing is plain all the same.
        ({"half": 0.05, "correlation": 0.04, "entropy": 0.3, "residual": 1.0}, ["at chance", *SAME[1:]]),
        ({"half": 0.05, "correlation": 0.04, "entropy": 0.3, "residual": 0.5}, ["drifted", *SAME[1:]]),
        # Intervals that span their limits.
        ({"half": 0.3, "correlation": 1.2}, ["preserved", "undecided", "undecided", "undecided"]),
        ({"correlation": 0.75}, ["undecided", *SAME[1:]]),
        ({"correlation": 0.2, "entropy": 0.8}, ["undecided", *SAME[1:]]),
        ({"own": 0.25, "transferred": 0.25}, [*SAME[:3], "undecided"]),
    ],
)
def test_words_of_one_pair(values: dict[str, float], expected: list[str]):
    assert words(record(layer(**{"half": 0.03, **values}))) == expected


def test_a_word_comes_from_the_guarded_value_and_says_where_the_raw_one_parts():
    found = record(layer(), layer(raw_cka=0.999, cka=0.02, standardised=0.02), sinks=24)
    result = read(found)
    assert result["levels"][1]["word"] == "at chance"
    assert "0.020 [0.010, 0.030] without sink tokens, chance 0.000; with them 0.999" in result["levels"][1]["sentence"]
    (said,) = [w for w in result["warnings"] if "sink" in w]
    assert said == (
        "Raw linear CKA is 1.00 at layer 1, but 0.02 without sink tokens: sink tokens alone make the raw value; "
        "do not read it."
    )
    assert result["levels"][1]["values"]["linear_cka.debiased"]["value"] == 0.999
    assert result["levels"][1]["same_word_layers"] == 1
    assert "The word is the same at 1 of 2 layers." in result["answer"][1]


def test_limits_stand_between_chance_and_the_ceiling():
    found = record(layer(cka=0.88))
    assert words(found)[1] == "distorted"
    found["ceiling"] = {"layers": [{}], "sensitivity": [{"linear_cka_without_sinks": {"debiased": 0.92}}]}
    assert words(found)[1] == "stable"  # the model itself at that precision is at 0.92
    assert "the ceiling" in read(found)["levels"][1]["rule"]
    # Chance that high leaves nothing to read.
    high = record(layer(cka=0.99, cka_chance=0.9))
    assert words(high)[1] == "undecided"
    assert "chance alone gives 0.900" in sentence(high, 1)


def test_the_rule_beside_a_word_names_its_limit():
    rule = read(record(layer()))["levels"][1]["rule"]
    assert "above 0.90 of the way from chance to 1, here 0.901" in rule


def test_one_dimension_does_not_make_geometry_stable():
    assert words(record(layer(top=0.98)))[1] == "stable"  # the other dimensions agree
    found = record(layer(top=0.98, standardised=0.4))
    assert words(found)[1] == "undecided"
    assert "one dimension holds 98% of the variance, and of standardised dimensions it is 0.400" in sentence(found, 1)
    assert words(record(layer(top=0.3, standardised=0.4)))[1] == "stable"  # as a rotated copy is
    assert words(record(layer(top=0.98, cka=0.5)))[1] == "distorted"
    assert words(record(layer(top=0.98, standardised=0.4), sinks=5))[1] == "stable"  # the share is the sinks'
    assert any("One dimension holds 98% of the variance at layer 0" in w for w in read(found)["warnings"])


def test_neighbours_of_the_same_type_alone_are_not_kept():
    found = record(layer(others=0.1))
    assert words(found)[2] == "undecided"
    assert "but among tokens of other types 0.100" in sentence(found, 2)
    assert any("tokens with others of their own type" in w for w in read(found)["warnings"])


def test_an_undetermined_rotation_decides_nothing():
    found = record(layer(correlation=0.1, determined=False), layer(correlation=0.1, determined=False))
    assert words(found)[0] == "undecided"
    assert "the tokens are too few to tell" in sentence(found, 0)
    assert any("do not determine the rotation at layers 0 and 1" in w for w in read(found)["warnings"])
    assert words(record(layer(determined=False)))[0] == "preserved"  # the correlation alone says it


def test_what_was_not_measured_is_said():
    found = without(record(layer()), "linear_probe", "no labels were given")
    level = read(found)["levels"][3]
    assert (level["word"], level["sentence"], level["of_layers"]) == ("not measured", "No labels were given.", 0)
    found = without(record(layer()), "dimension_correlation", "widths differ: 64 and 32")
    found = without(found, "procrustes", "widths differ: 64 and 32")
    found["sensitivity"][0] |= {"procrustes_without_sinks": None, "dimension_correlation_without_sinks": None}
    assert words(found) == ["not measured", *SAME[1:]]
    # Guards that could not be had leave the level undecided, not to the raw value.
    found = record(layer(), sinks=9000)
    found["sensitivity"][0]["linear_cka_without_sinks"] = None
    found["omitted"]["linear_cka_without_sinks"] = "nearly every token is a sink at some layer"
    assert words(found)[1] == "undecided"
    assert "nearly every token is a sink" in sentence(found, 1)
    found["sinks"]["tokens"] = 0  # without sinks the raw value is the guarded one
    assert words(found)[1] == "stable"
    found["layers"][0]["linear_cka"]["debiased_interval"] = None
    assert "it has no interval" in sentence(found, 1)


def test_warnings_name_layers():
    found = record(*(layer(top=0.9 if 2 <= n <= 5 or n == 7 else 0.1, hubs=3 if n == 4 else 0) for n in range(9)))
    found["corpus"]["texts"] = 40
    found["intervals"]["marked"] = {
        "knn_overlap.10.value": "of these queries",
        "knn_overlap.50.value": "of these queries",
        "linear_probe.own": "of this probe",
        "linear_probe.difference": "of this probe",
        "sensitivity.linear_cka_standardised.no_such_value": "of nothing",
    }
    said = "\n".join(read(found)["warnings"])
    assert "at layer 2: raw linear CKA is about that dimension (so too at layers 3 to 5 and 7)" in said
    assert "neighbours of very many others at layer 4 (skewness up to 3.0)" in said
    assert "Only 40 texts" in said
    assert "Intervals of k-NN overlaps and the probe hold the value not in 95 % of cases" in said
    assert read(record(layer()))["warnings"] == []
    (near,) = [w for w in read(record(layer(cka=0.95, cka_chance=0.9)))["warnings"] if "chance" in w]
    assert near.startswith("Linear CKA (biased) is 0.95 at layer 0, where chance is 0.90: it says little")


def test_values_by_address():
    found = record(layer(cka=0.5), layer(cka=0.7, raw_cka=0.9), sinks=3)
    found["ceiling"] = {"layers": [{}, {"linear_cka": {"debiased": 0.99}}], "sensitivity": [{}, {}]}
    values = Values(found)
    assert {"linear_cka.debiased", "knn_overlap.50.value_other_types", "linear_probe.difference"} <= set(values)
    assert "sensitivity.knn_overlap_without_sinks.10.value" in values
    assert set(values) == set(found["jackknife"]["left_out"])
    value = values.at("linear_cka.debiased", -1)
    assert (value.value, value.chance, value.ceiling) == (0.9, 0.01, 0.99)
    assert value.interval == pytest.approx((0.89, 0.91))
    # The chance of a guarded value is its own.
    assert values.at("sensitivity.linear_cka_without_sinks.debiased", 1).chance == 0.0
    assert values.at("knn_overlap.10.value_other_types", 1).chance == 0.002
    assert values.at("sensitivity.knn_overlap_without_sinks.10.value", 1).chance == 0.002
    assert values.at("linear_probe.difference", 1).chance == pytest.approx(0.25 - 0.9)
    assert values.at("procrustes.residual", 0).chance is None
    with pytest.raises(InputError, match=r"did you mean 'linear_cka\.debiased'"):
        values.at("linear_cka.debiasd", 0)
    with pytest.raises(InputError, match="expected 0 to 1, got 2"):
        values.at("linear_cka.debiased", 2)


def test_one_vector_per_text_is_read_as_texts():
    found = record(layer(cka=0.02, raw_cka=0.9), sinks=3)
    said = str(read(found, unit="text"))
    assert "without sink texts" in said
    assert "token" not in said
