"""Equivalence, its power and size, sample sizes and Holm: statsmodels' figures, definitions, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from st_reasoning.errors import InputError
from st_reasoning.stats import holm, needed, paired_t, power_of_difference, power_of_equivalence, tost


@pytest.mark.parametrize("shift", [-0.4, 0.0, 0.2, 0.7])
def test_tost_is_statsmodels(shift: float):
    data = np.random.default_rng(0).normal(shift, 1, 30)
    found = paired_t(data)
    theirs = DescrStatsW(data).ttost_mean(-0.5, 0.5)[0]
    ours = tost(found.difference, found.standard_error, found.df, 0.5)
    assert ours == pytest.approx(theirs, rel=1e-10)
    # The test at 5 % and the 90 % interval are one.
    narrow = paired_t(data, level=0.9)
    assert (ours < 0.05) == (max(-narrow.low, narrow.high) < 0.5)


def test_tost_without_spread():
    assert math.isnan(tost(0, 0, 2, 0.5))
    assert math.isnan(tost(0.1, 0, 2, 0.5))
    with pytest.raises(InputError, match="expected a positive number"):
        tost(0, 1, 2, 0)


def often(tries: int, low: float, high: float | None = None) -> tuple[float, float]:
    """How often something of probability low to high happens in so many tries; left once in 10,000 runs."""
    return scipy.stats.binom.ppf(5e-5, tries, low), scipy.stats.binom.ppf(1 - 5e-5, tries, high or low)


@pytest.mark.parametrize("n", [3, 10])
def test_size_at_the_margin_and_power_within_it(n: int):
    tries, margin, sd = 4000, 0.5, 0.25
    rng = np.random.default_rng(n)
    for true in (0.5, 0.0, 0.2):
        data = rng.normal(true, sd, (tries, n))
        means, errors = data.mean(axis=1), data.std(axis=1, ddof=1) / math.sqrt(n)
        found = sum(tost(m, s, n - 1, margin) < 0.05 for m, s in zip(means, errors, strict=True))
        power = power_of_equivalence(true, sd / math.sqrt(n), n - 1, margin)
        few, many = often(tries, power)
        assert few <= found <= many
        if true == margin:  # the size: never above the level
            assert power <= 0.05
        different = (np.abs(means) / errors > scipy.stats.t.ppf(0.975, n - 1)).sum()
        few, many = often(tries, power_of_difference(true, sd / math.sqrt(n), n - 1), 0.05 if true == 0 else None)
        assert few <= different <= many


@pytest.mark.parametrize(("effect", "n"), [(0.5, 20), (0.3, 8), (2.0, 3)])
def test_power_of_a_difference_is_statsmodels(effect: float, n: int):
    # One-sided at half the level: a finding of the wrong sign is none.
    theirs = TTestPower().power(effect, n, 0.025, alternative="larger")
    assert power_of_difference(-effect, 1 / math.sqrt(n), n - 1) == pytest.approx(theirs, abs=1e-9)


def test_power_of_equivalence_with_known_spread_is_the_closed_form():
    for true, error in ((0.0, 0.15), (0.3, 0.1), (0.0, 0.4)):
        bound = scipy.stats.norm.ppf(0.95)
        inside = scipy.stats.norm.cdf((0.5 - true) / error - bound) - scipy.stats.norm.cdf(
            (-0.5 - true) / error + bound
        )
        assert power_of_equivalence(true, error, 1e7, 0.5) == pytest.approx(max(0.0, inside), abs=1e-4)
    assert power_of_equivalence(0.1, 0, 3, 0.5) == 1
    assert power_of_equivalence(0.6, 0, 3, 0.5) == 0


def test_the_number_needed_is_the_least_with_the_power():
    def plan(n: int) -> tuple[float, float]:
        return 1 / math.sqrt(n), n - 1

    # Far outside the margin a difference is found first: statsmodels solves for n.
    found = needed(0.6, plan, margin=0.1)
    theirs = TTestPower().solve_power(0.6, power=0.8, alpha=0.025, alternative="larger")
    assert found == math.ceil(theirs)
    # Within it, equivalence.
    within = needed(0.0, plan, margin=0.5)
    assert power_of_equivalence(0.0, *plan(within), 0.5) >= 0.8 > power_of_equivalence(0.0, *plan(within - 1), 0.5)
    assert needed(0.0, plan, margin=0.5, alpha=0.01) > within
    assert needed(1e-9, plan, margin=1e-6) is None
    assert needed(5.0, lambda n: (0.01, n - 1), margin=0.5) == 2


def test_holm_is_statsmodels():
    rng = np.random.default_rng(1)
    for m in (1, 2, 7, 40):
        p = rng.uniform(0, 0.2, m) ** 2
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], rel=1e-12)
    assert holm([0.01, math.nan])[0] == pytest.approx(0.02)
    assert math.isnan(holm([0.01, math.nan])[1])
    assert holm([]).tolist() == []
    with pytest.raises(InputError, match="between 0 and 1"):
        holm([1.5])


def test_holm_keeps_the_error_over_all_tasks():
    tries, rng = 1000, np.random.default_rng(2)
    wrong = sum(float(holm(rng.uniform(size=10)).min()) < 0.05 for _ in range(tries))
    assert wrong <= often(tries, 0.05)[1]
