"""The invariances each measure claims, asserted where true and refuted where false."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from st_reasoning.errors import InputError
from st_reasoning.hrsa.measures import TABLE, Measure, register
from st_reasoning.hrsa.measures.table import CHECK_SHAPE, changed, check_set

N, D = CHECK_SHAPE
EVERY_MEASURE = pytest.mark.parametrize("measure", TABLE, ids=lambda measure: measure.name)


@pytest.fixture
def table() -> Iterator[list[Measure]]:
    """The table, as it was before afterwards."""
    before = list(TABLE)
    yield TABLE
    TABLE[:] = before


CLAIMS = [(measure, name) for measure in TABLE for name in sorted(measure.invariant_to | measure.varies_under)]


@pytest.mark.parametrize(("measure", "name"), CLAIMS, ids=lambda part: getattr(part, "name", part))
def test_invariance_and_its_absence(measure: Measure, name):
    x, y, labels = check_set()
    before, after = measure.value(x, y, labels), measure.value(x, changed(name, y), labels)
    if name in measure.invariant_to:
        # float64 throughout; the loosest is the SVD inside Procrustes.
        assert after == pytest.approx(before, abs=1e-9)
    else:
        assert abs(after - before) > 0.02


@EVERY_MEASURE
def test_every_change_is_claimed_one_way_at_most(measure: Measure):
    assert not measure.invariant_to & measure.varies_under
    assert measure.varies_under


@EVERY_MEASURE
def test_same_representation_is_a_perfect_match(measure: Measure):
    x, _, labels = check_set()
    best = 0 if measure.name.endswith("residual") else 1
    assert measure.value(x, x.clone(), labels) == pytest.approx(best, abs=1e-9)


@EVERY_MEASURE
def test_range(measure: Measure):
    generator = torch.Generator().manual_seed(1)
    x, y, labels = check_set()
    low, high = measure.range
    for other in (y, -x, torch.randn(N, D, generator=generator, dtype=torch.float64)):
        assert low - 1e-9 <= measure.value(x, other, labels) <= high + 1e-9


@pytest.mark.parametrize("measure", [m for m in TABLE if m.level != "function" and "procrustes" not in m.name])
def test_order_of_tokens_does_not_matter_where_nothing_is_split(measure: Measure):
    x, y, labels = check_set()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    shuffled = measure.value(x[order], y[order], [labels[number] for number in order])
    assert shuffled == pytest.approx(measure.value(x, y, labels), abs=1e-9)


@EVERY_MEASURE
def test_called_twice_and_input_untouched(measure: Measure):
    x, y, labels = check_set()
    x, y = x.bfloat16(), y.bfloat16()
    copies = x.clone(), y.clone()
    assert measure.value(x, y, labels) == measure.value(x, y, labels)
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])


@EVERY_MEASURE
def test_bfloat16_input_is_computed_as_float32(measure: Measure):
    x, y, labels = check_set()
    x, y = x.bfloat16(), y.bfloat16()
    # A bfloat16 value is a float32 value: only how the work is done could differ. Measured: equal.
    assert measure.value(x, y, labels) == pytest.approx(measure.value(x.float(), y.float(), labels), abs=1e-9)
    assert measure.value(x, y, labels) == pytest.approx(measure.value(x.double(), y.double(), labels), abs=1e-3)


@pytest.mark.parametrize("measure", [m for m in TABLE if m.chance is not None], ids=lambda measure: measure.name)
def test_chance_is_what_unrelated_data_give(measure: Measure):
    assert measure.chance is not None
    values = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        x, y = (torch.randn(N, D, generator=generator, dtype=torch.float64) for _ in range(2))
        values.append(measure.value(x, y, []))
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    # Four standard errors, and half a percent for the ratio of expectations that biased CKA's is.
    assert mean == pytest.approx(measure.chance(N, D), abs=4 * spread / math.sqrt(len(values)), rel=0.005)


def rbf_cka(x: Tensor, y: Tensor) -> float:
    """Biased CKA (Kornblith et al. 2019) with a Gaussian kernel as wide as the median distance."""

    def kernel(rows: Tensor) -> Tensor:
        distances = torch.cdist(rows, rows)
        gram = torch.exp(-distances.square() / (2 * distances[distances > 0].median() ** 2))
        return gram - gram.mean(0, keepdim=True) - gram.mean(1, keepdim=True) + gram.mean()

    k, other = kernel(x), kernel(y)
    return float((k * other).sum() / (k.norm() * other.norm()))


RBF_CKA = Measure(
    name="rbf_cka",
    level="global geometry",
    invariant_to=frozenset({"shift", "scale", "permutation", "rotation"}),
    varies_under=frozenset({"column_scale"}),
    range=(0.0, 1.0),
    value=lambda x, y, _: rbf_cka(x, y),
)


def test_a_measure_of_ones_own_joins_the_table(table):
    register(RBF_CKA)
    assert table[-1] is RBF_CKA
    with pytest.raises(InputError, match="rbf_cka: expected a new name"):
        register(RBF_CKA)


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"invariant_to": frozenset({"column_scale"}), "varies_under": frozenset({"shift"})},
         "invariance to column_scale"),
        ({"invariant_to": frozenset(), "varies_under": frozenset({"rotation"})}, "vary under rotation"),
        ({"range": (0.0, 0.5)}, "a value from 0.0 to 0.5"),
        ({"varies_under": frozenset({"shift"})}, "both for shift"),
        ({"varies_under": frozenset()}, "none that moves it"),
        # A kernel as wide as one, whatever the data: the commonest mistake.
        ({"value": lambda x, y, _: rbf_cka(x, torch.exp(-y.square()))}, "invariance to"),
    ],
)  # fmt: skip
def test_a_measure_that_is_not_what_it_claims_is_refused(table, claims, message):
    before = list(table)
    with pytest.raises(InputError, match=f"measure rbf_cka: .*{message}"):
        register(dataclasses.replace(RBF_CKA, **claims))
    assert table == before
