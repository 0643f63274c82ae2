"""Conditions on a panel: what they mean, what fails them and what cannot be asked."""

from __future__ import annotations

import math

import pytest
from scipy.stats import norm

from st_reasoning.errors import InputError
from st_reasoning.hrsa.gate import parse
from tests.hrsa.constructed import layer, record, without

K = (50, 5, 10)
PANEL = record(layer(cka=0.8, overlap=0.3), layer(cka=0.6, overlap=0.5, raw_cka=0.99), layer(cka=0.94), sinks=4)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("linear_cka.final<0.95", "linear_cka.debiased"),
        ("linear_cka.biased.final<0.95", "linear_cka.biased"),
        ("knn_overlap.min <= 0.5", "knn_overlap.10.value"),
        ("knn_overlap.50.min <= 0.5", "knn_overlap.50.value"),
        ("knn_overlap.5.value_other_types.3>.1", "knn_overlap.5.value_other_types"),
        ("procrustes.mean>=1e-1", "procrustes.inverse_row_entropy"),
        ("dimension_correlation.first<1", "dimension_correlation.value"),
        ("linear_probe.final < 0.5", "linear_probe.transferred"),
        ("linear_probe.difference.final < -0.1", "linear_probe.difference"),
        ("linear_cka_without_sinks.final<0.9", "sensitivity.linear_cka_without_sinks.debiased"),
        ("sensitivity.knn_overlap_without_sinks.5.final<0.9", "sensitivity.knn_overlap_without_sinks.5.value"),
        ("sensitivity.procrustes_standardised.residual.max>1", "sensitivity.procrustes_standardised.residual"),
    ],
)
def test_short_forms(text: str, address: str):
    assert parse(text, K).address == address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("linear_cka.final<0.95", "linear_cka.debiased is 0.940 [0.930, 0.950] at layer 2"),
        ("linear_cka.final<0.93", None),
        ("linear_cka.final<0.94", None),
        ("linear_cka.final<=0.94", "is 0.940"),
        ("linear_cka.0>0.7", "linear_cka.debiased is 0.800 [0.790, 0.810] at layer 0"),
        ("linear_cka.first>=0.9", None),
        ("linear_cka_without_sinks.min<0.7", "is 0.600 [0.590, 0.610] at layer 1, the lowest"),
        ("linear_cka.max>0.98", "is 0.990 [0.980, 1.000] at layer 1, the highest"),
        ("knn_overlap.mean<0.7", "knn_overlap.10.value is 0.600 ["),
        ("knn_overlap.mean<0.6", None),
    ],
)
def test_conditions(text: str, said: str | None):
    found = parse(text, K).failure(PANEL)
    if said is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(f"{text}: ")
        assert said in found


def test_a_mean_over_layers_is_no_surer_than_few_texts_make_a_probe():
    found = parse("linear_probe.own.mean<2", K).failure(record(layer(own=0.9, half=0), layer(own=0.9, half=0)))
    # Agresti and Coull (1998): no error in 100 texts, two texts more of either kind added.
    half = norm.ppf(0.975) * math.sqrt(2 / 104 * 102 / 104 / 104)
    assert found is not None
    assert f"is 0.900 [{0.9 - half:.3f}, {0.9 + half:.3f}] on average over 2 layers" in found


def test_what_is_undefined_fails_and_says_so():
    found = record(layer(), layer())
    found["layers"][1]["linear_cka"]["debiased"] = None
    assert parse("linear_cka.final<0.1", K).failure(found) == (
        "linear_cka.final<0.1: linear_cka.debiased is undefined at layer 1"
    )
    assert parse("linear_cka.first<0.1", K).failure(found) is None
    assert "linear_cka.debiased is undefined at layer 1" in (parse("linear_cka.max>2", K).failure(found) or "")
    bare = without(record(layer()), "linear_probe", "no labels were given")
    assert parse("linear_probe.final<0", K).failure(bare) == (
        "linear_probe.final<0: linear_probe.transferred was not measured (no labels were given)"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("linear_cka", "expected ADDRESS.LAYER"),
        ("linear_cka.final=0.9", "expected ADDRESS.LAYER"),
        ("linear_cka.final<much", "got 'much' as the number"),
        ("linear_cka.final<nan", "got 'nan' as the number"),
        ("linear_cka.last<1", "unknown layer 'last'.*expected one of"),
        ("linear_cka.debiased<1", "unknown layer 'debiased'"),
        ("linear_cak.final<1", "unknown value 'linear_cak'.*did you mean 'linear_cka'"),
        ("knn_overlap.7.final<1", "unknown value 'knn_overlap.7'.*did you mean 'knn_overlap"),
        ("linear_cka_without_sinks.value.final<1", "unknown value 'linear_cka_without_sinks.value'"),
    ],
)
def test_wrong_conditions_are_refused(text: str, said: str):
    with pytest.raises(InputError, match=said):
        parse(text, K)


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="expected a layer from 0 to 2, got 40"):
        parse("linear_cka.40<1", K).failure(PANEL)
