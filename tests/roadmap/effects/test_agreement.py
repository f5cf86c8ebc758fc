"""Rank correlations of gains: equal to scipy's, with intervals that hold the truth as often as they say."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.simulations import agreement as simulated
from roadmap.effects.agreement import Reading, ceiling, over_noise, over_steps, rank_correlation

pytestmark = pytest.mark.numeric


def test_rank_correlation_equals_scipy_and_rounding_makes_no_order():
    random = np.random.default_rng(1)
    a, b = random.integers(0, 5, 12) / 10, random.random(12)
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert rank_correlation(a + 1e-12 * random.standard_normal(12), b) == rank_correlation(a, b)
    assert math.isnan(rank_correlation(np.ones(3), np.arange(3.0)))
    assert rank_correlation(np.stack([b, -b]), b) == pytest.approx([1, -1])


def test_the_interval_over_steps_covers():
    random = np.random.default_rng(1)
    rho = 6 / math.pi * math.asin(0.6 / 2)  # Spearman's of a bivariate normal with correlation 0.6
    x, other = random.standard_normal((2, 2000, 15))
    found = [over_steps(float(one), 15) for one in rank_correlation(x, 0.6 * x + 0.8 * other)]
    assert 0.93 <= np.mean([low <= rho <= high for low, high in found]) <= 0.97
    assert np.isnan(over_steps(0.5, 4)).all()


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("noise", [0.1, 0.6])
def test_the_interval_over_noise_holds_the_noise_free_rho(alike, noise):
    random = np.random.default_rng(0)
    weights = simulated.gains_of_levels()
    root = np.linalg.cholesky(weights @ weights.T / 3)
    held = []
    for i in range(60):
        theirs, other = 0.8 * random.standard_normal((2, 15))
        ours = alike * theirs + math.sqrt(1 - alike**2) * other
        readings = [
            Reading(truth + sigma * root @ random.standard_normal(15), sigma**2 * root @ root.T)
            for truth, sigma in ((ours, noise), (theirs, 0.094))
        ]
        low, high = over_noise(*readings, seed=i)
        held.append(low - 1e-9 <= rank_correlation(ours, theirs) <= high + 1e-9)
    assert np.mean(held) >= 0.88  # 95 % less what 60 draws leave open


def test_the_ceiling_is_one_without_noise_and_nothing_where_noise_is_all():
    gains = np.linspace(-1, 1, 15)
    none, all_of_it = np.zeros((15, 15)), np.eye(15)
    assert ceiling(Reading(gains, none), Reading(gains[::-1].copy(), none)) == pytest.approx((1, 1, 1))
    mean, low, high = ceiling(Reading(gains, all_of_it), Reading(gains, none))
    assert abs(mean) < 0.05 and low < 0 < high
    unknown = Reading(gains, np.full((15, 15), math.nan))
    assert np.isnan(ceiling(unknown, Reading(gains, none))).all()
    assert np.isnan(over_noise(unknown, Reading(gains, none))).all()
