"""Chance levels in closed form against simulation, within four standard errors of the simulated mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from st_reasoning.errors import InputError
from st_reasoning.hrsa import measures


def within_error(values: list[float], expected: float) -> bool:
    return abs(np.mean(values) - expected) < 4 * np.std(values) / math.sqrt(len(values))


def gaussians(seed: int, n: int, d_x: int, d_y: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d_x, generator=generator), torch.randn(n, d_y, generator=generator)


@pytest.mark.parametrize("shape", [(100, 60, 60), (100, 200, 20), (30, 100, 100)])
def test_biased_cka_of_independent_gaussians(shape):
    n, d_x, d_y = shape
    expected = measures.linear_cka_chance(n, d_x, d_y)
    if d_x == d_y:
        assert expected == pytest.approx(d_x / (n + d_x))
    values = [measures.linear_cka(*gaussians(seed, *shape)) for seed in range(40)]
    # The closed form is a ratio of expectations; it is off the mean ratio by O(1/n^2), 0.1 % measured.
    assert np.mean(values) == pytest.approx(expected, rel=0.005)


def test_debiased_cka_of_independent_gaussians_is_zero():
    values = [measures.linear_cka(*gaussians(seed, 100, 200, 50), estimator="debiased") for seed in range(60)]
    assert within_error(values, 0)
    assert measures.linear_cka(*gaussians(0, 100, 200, 50)) > 0.4  # which the biased estimator does not see


def test_biased_cka_over_row_permutations():
    x, y = gaussians(0, 60, 20, 30)
    x[:, 0] *= 10  # far from isotropic
    y = y + x[:, :1]
    expected = measures.linear_cka_permutation_chance(60, measures.effective_rank(x), measures.effective_rank(y))
    rng = np.random.default_rng(0)
    values = [measures.linear_cka(x, y[rng.permutation(60)]) for _ in range(400)]
    assert within_error(values, expected)
    assert measures.linear_cka(x, y) > 3 * expected


@pytest.mark.parametrize(("n", "k"), [(100, 5), (100, 50), (40, 39), (3, 1)])
def test_knn_overlap_of_independent_clouds(n, k):
    expected = measures.knn_overlap_chance(n, k)
    if n == 100:
        assert expected == pytest.approx(k / (2 * (n - 1) - k), rel=0.15)  # the usual approximation, low for small k
    values = [measures.knn_overlap(*gaussians(seed, n, 16, 16), k=k)[k] for seed in range(60)]
    assert within_error(values, expected) or np.mean(values) == pytest.approx(expected, abs=1e-9)
    with pytest.raises(InputError, match="k: expected"):
        measures.knn_overlap_chance(n, n)


@pytest.mark.parametrize("d", [2, 8, 200])
def test_inverse_row_entropy_of_random_rotations(d):
    values = [
        measures.inverse_row_entropy(torch.from_numpy(scipy.stats.ortho_group.rvs(d, random_state=seed)))
        for seed in range(30 if d > 100 else 300)
    ]
    expected = measures.inverse_row_entropy_chance(d)
    assert within_error(values, expected)
    if d > 100:
        assert expected == pytest.approx(0.73 / math.log(d), rel=0.02)
    assert measures.inverse_row_entropy(torch.eye(d)[torch.randperm(d)]) == 1
