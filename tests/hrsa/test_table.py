"""The invariances each measure claims, asserted where true and refuted where false."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from st_reasoning.hrsa.measures import TABLE, Measure

N, D = 400, 24
EVERY_MEASURE = pytest.mark.parametrize("measure", TABLE, ids=lambda measure: measure.name)


def representations() -> tuple[Tensor, Tensor, list[int]]:
    """Two related representations in float64, four classes apart, no direction or column like another."""
    generator = torch.Generator().manual_seed(0)
    labels = [number % 4 for number in range(N)]
    x = torch.randn(N, D, generator=generator, dtype=torch.float64) @ torch.randn(D, D, generator=generator).double()
    x += 8 * torch.randn(4, D, generator=generator).double().repeat(N // 4, 1) + torch.randn(D, generator=generator)
    return x, x + 2 * torch.randn(N, D, generator=generator), labels


def change(name: str, y: Tensor) -> Tensor:
    rng = np.random.default_rng(0)
    if name == "shift":
        return y + 3 * y.std() * torch.from_numpy(rng.normal(size=D))
    if name == "scale":
        return 7 * y
    if name == "column_scale":
        return y * torch.from_numpy(np.exp(rng.normal(size=D)))
    matrix = (
        np.eye(D)[rng.permutation(D)] if name == "permutation" else scipy.stats.ortho_group.rvs(D, random_state=rng)
    )
    return y @ torch.from_numpy(matrix)


CLAIMS = [(measure, name) for measure in TABLE for name in sorted(measure.invariant_to | measure.varies_under)]


@pytest.mark.parametrize(("measure", "name"), CLAIMS, ids=lambda part: getattr(part, "name", part))
def test_invariance_and_its_absence(measure: Measure, name):
    x, y, labels = representations()
    before, after = measure.value(x, y, labels), measure.value(x, change(name, y), labels)
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
    x, _, labels = representations()
    best = 0 if measure.name.endswith("residual") else 1
    assert measure.value(x, x.clone(), labels) == pytest.approx(best, abs=1e-9)


@EVERY_MEASURE
def test_range(measure: Measure):
    generator = torch.Generator().manual_seed(1)
    x, y, labels = representations()
    low, high = measure.range
    for other in (y, -x, torch.randn(N, D, generator=generator, dtype=torch.float64)):
        assert low - 1e-9 <= measure.value(x, other, labels) <= high + 1e-9


@pytest.mark.parametrize("measure", [m for m in TABLE if m.level != "function" and "procrustes" not in m.name])
def test_order_of_tokens_does_not_matter_where_nothing_is_split(measure: Measure):
    x, y, labels = representations()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    shuffled = measure.value(x[order], y[order], [labels[number] for number in order])
    assert shuffled == pytest.approx(measure.value(x, y, labels), abs=1e-9)


@EVERY_MEASURE
def test_called_twice_and_input_untouched(measure: Measure):
    x, y, labels = representations()
    x, y = x.bfloat16(), y.bfloat16()
    copies = x.clone(), y.clone()
    assert measure.value(x, y, labels) == measure.value(x, y, labels)
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])


@EVERY_MEASURE
def test_bfloat16_input_is_computed_as_float32(measure: Measure):
    x, y, labels = representations()
    x, y = x.bfloat16(), y.bfloat16()
    # A bfloat16 value is a float32 value: only how the work is done could differ. Measured: equal.
    assert measure.value(x, y, labels) == pytest.approx(measure.value(x.float(), y.float(), labels), abs=1e-9)
    assert measure.value(x, y, labels) == pytest.approx(measure.value(x.double(), y.double(), labels), abs=1e-3)
