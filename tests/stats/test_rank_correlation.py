"""Rank correlations against scipy, counting by hand, and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from st_reasoning.errors import InputError
from st_reasoning.stats import least_units, rank_correlation, units_needed


@pytest.mark.parametrize("n", [3, 5, 8, 9, 30])
@pytest.mark.parametrize("ties", [False, True])
def test_values_are_scipys(n: int, ties: bool):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(2, n))
    if ties:
        x, y = np.round(x), np.round(2 * y) / 2
        x[:2], y[:2] = 7, (0, 9)
    found = rank_correlation(x, y, draws=200)
    assert found is not None
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert found.kendall == pytest.approx(scipy.stats.kendalltau(x, y).statistic)
    assert found.units == n


@pytest.mark.parametrize("ties", [False, True])
def test_p_values_of_few_units_are_counted_over_all_orders(ties: bool):
    x, y = np.array([1.0, 4, 2, 5, 3, 6]), np.array([2.0, 3, 1, 6, 5, 4])
    if ties:
        x[1] = x[2]
    found = rank_correlation(x, y)
    assert found is not None
    orders = [np.array(order) for order in itertools.permutations(x)]
    for ours, statistic in ((found.spearman_p, scipy.stats.spearmanr), (found.kendall_p, scipy.stats.kendalltau)):
        seen = abs(statistic(x, y).statistic)
        counted = np.mean([abs(statistic(order, y).statistic) >= seen - 1e-9 for order in orders])
        assert ours == pytest.approx(counted)


def test_drawn_orders_give_scipys_exact_p_value_of_kendall():
    rng = np.random.default_rng(3)
    x = rng.normal(size=12)
    y = 0.6 * x + rng.normal(size=12)
    found = rank_correlation(x, y)
    assert found is not None
    assert found.kendall_p == pytest.approx(scipy.stats.kendalltau(x, y, method="exact").pvalue, abs=0.01)
    assert found == rank_correlation(x, y)  # the same draw


def test_intervals_by_the_book():
    x, y = np.arange(10.0), np.array([0.0, 2, 1, 3, 5, 4, 6, 9, 8, 7])
    found = rank_correlation(x, y)
    assert found is not None
    for value, ends, variance in (
        (found.spearman, found.spearman_interval, (1 + found.spearman**2 / 2) / 7),
        (found.kendall, found.kendall_interval, 0.437 / 6),
    ):
        half = 1.959963984540054 * math.sqrt(variance)
        assert ends == pytest.approx((math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)))


@pytest.mark.parametrize(("rho", "n"), [(0.0, 8), (0.6, 12)])
def test_intervals_hold_the_true_value(rho: float, n: int):
    """Normal data: the true Spearman correlation is 6/pi arcsin(rho/2), Kendall's 2/pi arcsin(rho)."""
    rng = np.random.default_rng(0)
    true = (6 / math.pi * math.asin(rho / 2), 2 / math.pi * math.asin(rho))
    held, repeats = np.zeros(2), 300
    for _ in range(repeats):
        x = rng.normal(size=n)
        y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=n)
        # Above 8 units one drawn order: p-values are not asked for here.
        found = rank_correlation(x, y, draws=1) if n > 8 else rank_correlation([*x], [*y])
        assert found is not None
        for place, ends in enumerate((found.spearman_interval, found.kendall_interval)):
            held[place] += ends is None or ends[0] <= true[place] <= ends[1]
    assert ((held / repeats >= 0.91) & (held / repeats <= 1.0)).all(), held / repeats


def test_p_values_are_uniform_where_nothing_is_there():
    rng = np.random.default_rng(1)
    found = [rank_correlation(*rng.normal(size=(2, 5))) for _ in range(300)]
    below = np.mean([each.spearman_p <= 0.1 for each in found if each is not None])
    assert below == pytest.approx(0.1, abs=0.05)


def test_what_is_undefined():
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None
    perfect = rank_correlation([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])
    assert perfect is not None
    assert perfect.spearman == pytest.approx(1)
    assert perfect.spearman_interval is perfect.kendall_interval is None
    assert perfect.spearman_p == pytest.approx(2 / math.factorial(6))
    few = rank_correlation([1, 2, 3, 4], [1, 3, 2, 4])
    assert few is not None
    assert few.spearman_interval is None
    with pytest.raises(InputError, match="expected finite values"):
        rank_correlation([1, math.nan, 2], [1, 2, 3])
    with pytest.raises(InputError, match="same n"):
        rank_correlation([1, 2, 3], [1, 2])


def test_with_how_many_units_anything_can_be_found():
    for tests in (1, 18, 30):
        n = least_units(0.05, tests)
        assert 2 / math.factorial(n) * tests < 0.05 <= 2 / math.factorial(n - 1) * tests
    assert least_units(0.05) == 5


def test_needed_units_have_the_power_that_was_asked_for():
    rho = 0.75
    true = 6 / math.pi * math.asin(rho / 2)
    n = units_needed(true, alpha=0.05, power=0.8)
    assert n is not None
    rng, found = np.random.default_rng(2), 0
    for _ in range(600):
        x = rng.normal(size=n)
        found += scipy.stats.spearmanr(x, rho * x + math.sqrt(1 - rho**2) * rng.normal(size=n)).pvalue < 0.05
    assert found / 600 == pytest.approx(0.8, abs=0.07)
    assert units_needed(0.0) is None
    assert units_needed(1.0, tests=30) == least_units(0.05, 30)
    assert units_needed(0.001, largest=1000) is None
