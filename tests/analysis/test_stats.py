"""The statistics against known answers: simulated ladders, scipy and statsmodels on the same data."""

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from analysis import stats
from analysis.simulations import moderated, variance
from roadmap import STEPS
from roadmap.effects import testing
from roadmap.effects.noise import AdditiveModel

pytestmark = pytest.mark.numeric

NAMES = [step.name for step in STEPS]
PAIRS = [(i, NAMES.index(step.parent)) for i, step in enumerate(STEPS) if step.parent]
WEIGHTS = np.zeros((len(PAIRS), len(NAMES)))
for row, (child, parent) in enumerate(PAIRS):
    WEIGHTS[row, child], WEIGHTS[row, parent] = 1, -1


def simulate(simulations, means, seeds=3, noise=0.1, seed_effect=0.2, rng=0):
    """Labels and top-1s (simulations, steps * seeds) of ladders with known means."""
    random = np.random.default_rng(rng)
    cells = np.repeat(np.arange(len(means)), seeds)
    blocks = np.tile(np.arange(seeds), len(means))
    values = np.asarray(means)[cells] + seed_effect * random.standard_normal((simulations, seeds))[:, blocks]
    return cells, blocks, values + noise * random.standard_normal(values.shape)


TRUE = 80 + np.cumsum(np.linspace(-0.4, 0.6, len(NAMES)))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_cover_known_gains_and_are_hardly_wider_than_exact(seeds):
    cells, blocks, values = simulate(2000, TRUE, seeds)
    gain, low, high, _ = AdditiveModel(cells, blocks).fit(values).intervals(WEIGHTS)
    true = WEIGHTS @ TRUE
    covered = ((low <= true) & (true <= high)).mean(axis=0)
    assert covered.min() >= 0.93
    assert covered.max() <= 0.97
    exact = 2 * scipy_stats.norm.ppf(0.975) * 0.1 * math.sqrt(2 / seeds)
    assert np.median(high - low) <= 1.3 * exact
    assert np.abs(gain.mean(axis=0) - true).max() < 0.01


def test_intervals_cover_when_runs_are_missing():
    cells, blocks, values = simulate(2000, TRUE, seeds=4, rng=1)
    kept = np.random.default_rng(3).permutation(len(cells))[: int(0.8 * len(cells))]
    model = AdditiveModel(cells[kept], blocks[kept])
    assert model.blocked
    _, low, high, _ = model.fit(values[:, kept]).intervals(WEIGHTS)
    true = WEIGHTS @ TRUE
    covered = ((low <= true) & (true <= high)).mean(axis=0)
    assert covered.min() >= 0.93
    assert covered.max() <= 0.97


def test_holm_keeps_false_positives_below_five_per_cent():
    cells, blocks, values = simulate(20000, np.full(len(NAMES), 80.0), rng=2)
    p = AdditiveModel(cells, blocks).fit(values).intervals(WEIGHTS)[3]
    rejected = p.min(axis=1) * len(PAIRS) < 0.05  # Holm's first step decides whether anything is rejected
    for i in [*np.flatnonzero(rejected)[:5], *np.flatnonzero(~rejected)[:5]]:
        assert (testing.holm(p[i]) < 0.05).any() == rejected[i]
    assert rejected.mean() <= 0.05
    assert (p < 0.05).any(axis=1).mean() > 0.2  # without the correction it would not hold


def test_power_at_the_minimum_detectable_effect_is_what_it_says():
    error = 0.1 * math.sqrt(2 / 3)
    effect = testing.detectable(error, df=32)
    means = np.full(len(NAMES), 80.0)
    means[-1] += effect
    cells, blocks, values = simulate(4000, means, rng=4)
    p = AdditiveModel(cells, blocks).fit(values).intervals(WEIGHTS)[3][:, -1]
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.02)


def test_power_and_verdict_are_of_the_same_test():
    """What is said to be found with 80 % power is so by the verdicts, which are Holm's over all gains."""
    error, tests = 0.1 * math.sqrt(2 / 3), len(PAIRS)
    effect = testing.detectable(error, 32, tests)
    assert effect > 1.35 * testing.detectable(error, 32)
    means = np.full(len(NAMES), 80.0)
    means[-1] += effect
    cells, blocks, values = simulate(3000, means, rng=4)
    p = AdditiveModel(cells, blocks).fit(values).intervals(WEIGHTS)[3]
    assert np.mean([testing.holm(one)[-1] < 0.05 for one in p]) == pytest.approx(0.8, abs=0.025)


def test_simultaneous_intervals_hold_all_gains_at_once_and_never_contradict_a_verdict():
    cells, blocks, values = simulate(3000, TRUE, rng=7)
    means = AdditiveModel(cells, blocks).fit(values)
    p = means.intervals(WEIGHTS)[3]
    _, low, high, _ = means.intervals(WEIGHTS, testing.simultaneous(len(PAIRS)))
    true = WEIGHTS @ TRUE
    assert 0.94 <= ((low <= true) & (true <= high)).all(axis=1).mean() <= 0.99
    verdicts = np.array([testing.holm(one) < 0.05 for one in p])
    assert not ((low > 0) | (high < 0))[~verdicts].any()


def test_model_equals_statsmodels_on_unbalanced_data():
    cells, blocks, values = simulate(1, TRUE, rng=5)
    kept = np.delete(np.arange(len(cells)), [0, 7, 20, 21])
    frame = pd.DataFrame({"y": values[0][kept], "cell": cells[kept].astype(str), "block": blocks[kept].astype(str)})
    expected = smf.ols("y ~ 0 + C(cell) + C(block)", frame).fit()
    fit = AdditiveModel(cells[kept], blocks[kept]).fit(frame["y"].to_numpy())
    assert fit.df == expected.df_resid
    assert float(fit.sigma) == pytest.approx(math.sqrt(expected.mse_resid))
    gain, low, high, p = fit.intervals(WEIGHTS)
    for row, (child, parent) in enumerate(PAIRS):
        test = expected.t_test(f"C(cell)[{child}] - C(cell)[{parent}] = 0")
        assert gain[row] == pytest.approx(test.effect.item())
        assert (low[row], high[row]) == pytest.approx(tuple(test.conf_int()[0]))
        assert p[row] == pytest.approx(test.pvalue.item(), rel=1e-6)


def test_balanced_means_are_plain_means():
    cells, blocks, values = simulate(3, TRUE, rng=6)
    fit = AdditiveModel(cells, blocks).fit(values)
    assert np.allclose(fit.mean, values.reshape(3, len(NAMES), 3).mean(axis=2))


def test_seeds_that_do_not_link_the_steps_leave_the_seed_effect_out():
    model = AdditiveModel([0, 0, 1, 1], [0, 1, 2, 3])
    assert not model.blocked
    assert model.df == 2


def test_one_run_per_step_gives_no_interval():
    fit = AdditiveModel([0, 1], [0, 0]).fit(np.array([80.0, 81.0]))
    gain, low, high, p = fit.intervals(np.array([[-1.0, 1.0]]))
    assert gain[0] == pytest.approx(1)
    assert np.isnan([low[0], high[0], p[0]]).all()


@pytest.mark.parametrize("spread, known", [(0, False), (1e-7, False), (1e-5, True)])
def test_no_spread_at_all_is_no_certainty(spread, known):
    """What rounding makes of equal values is no spread either; an image more in a million is one."""
    a, b = [80.0, 80.0 + spread], [81.0, 81.0 - spread]
    fit = AdditiveModel([0, 0, 1, 1], [0, 1, 0, 1]).fit(np.array([*a, *b]))
    assert (float(fit.sigma) > 0) == known
    for low in (fit.intervals(np.array([[-1.0, 1.0]]))[1], stats.paired(a, b).low, stats.two_sample(a, b).low):
        assert np.isfinite(low).all() == known


def test_published_summary_gives_the_t_test_of_scipy():
    means = stats.means_from_summary([80.0, 81.0], [0.2, 0.3], [3, 3])
    gain, low, high, p = means.intervals(np.array([[-1.0, 1.0]]))
    expected = scipy_stats.ttest_ind_from_stats(81.0, 0.3, 3, 80.0, 0.2, 3)
    assert p[0] == pytest.approx(expected.pvalue)
    assert high[0] - gain[0] == pytest.approx(gain[0] - low[0])


def test_holm_equals_statsmodels_and_skips_untested():
    p = [0.01, math.nan, 0.04, 0.03]
    expected = multipletests([0.01, 0.04, 0.03], method="holm")[1]
    assert testing.holm(p)[[0, 2, 3]] == pytest.approx(expected)
    assert math.isnan(testing.holm(p)[1])
    assert np.isnan(testing.holm([math.nan])).all()


@pytest.mark.parametrize("n", [3, 5, 20])
def test_detectable_effect_equals_statsmodels(n):
    expected = TTestPower().solve_power(effect_size=None, nobs=n, alpha=0.05, power=0.8)
    assert testing.detectable(1 / math.sqrt(n), n - 1) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("steps, tests", [(2, 1), (3, 2), (17, 16)])
@pytest.mark.parametrize("effect", np.linspace(0.06, 0.4, 9))
def test_seeds_needed_reaches_the_power_and_one_less_does_not(effect, steps, tests):
    """With the degrees of freedom that a ladder of so many steps and seeds has when it is judged."""
    sigma = 0.1

    def power(seeds):
        cells, blocks = np.divmod(np.arange(steps * seeds), seeds)
        return testing.power_of(effect, sigma * math.sqrt(2 / seeds), AdditiveModel(cells, blocks).df, 0.05 / tests)

    n = int(testing.seeds_needed(effect, sigma, steps, tests))
    assert power(n) >= 0.8
    assert n == 2 or power(n - 1) < 0.8


def test_seeds_needed_at_the_ends():
    assert math.isinf(testing.seeds_needed(1e-6, 0.1, 17))
    assert testing.seeds_needed(5.0, 0.1, 17) == 2
    assert math.isnan(testing.seeds_needed(0.1, math.nan, 17))


def test_paired_and_two_sample_equal_scipy():
    a, b = [81.0, 81.3, 81.1], [80.5, 80.9, 80.4]
    paired = scipy_stats.ttest_rel(a, b)
    assert (stats.paired(a, b).low, stats.paired(a, b).high) == pytest.approx(tuple(paired.confidence_interval(0.95)))
    welch = scipy_stats.ttest_ind(a, b, equal_var=False)
    assert stats.two_sample(a, b).p == pytest.approx(welch.pvalue)
    assert math.isnan(stats.paired([81.0], [80.0]).low)
    assert math.isnan(stats.two_sample([81.0], [80.0, 80.1]).low)


def test_two_samples_of_which_one_is_constant_give_an_interval_without_a_warning(recwarn):
    found = stats.two_sample([86.79, 86.79], [86.76, 86.71])
    assert found.estimate == pytest.approx(0.055)
    assert found.low < found.estimate < found.high
    assert not recwarn.list


def test_tests_of_equal_variance_equal_scipy_and_leave_out_what_cannot_tell():
    random = np.random.default_rng(3)
    groups = [scale * random.standard_normal(5) for scale in (1, 1, 4)]
    found = stats.equal_variance([*groups, np.ones(1)])
    assert found.brown_forsythe == pytest.approx(scipy_stats.levene(*groups, center="median").pvalue)
    assert found.bartlett == pytest.approx(scipy_stats.bartlett(*groups).pvalue)
    pairs = stats.equal_variance([group[:2] for group in groups])
    assert math.isnan(pairs.brown_forsythe) and 0 < pairs.bartlett < 1
    assert np.isnan(stats.equal_variance([[1.0, 1.0, 1.0]] * 2)).all()


def test_moderated_variances_know_their_prior_and_follow_the_data():
    random = np.random.default_rng(0)
    df = np.full(2000, 4.0)
    true = 3.0 * 10 / random.chisquare(10, 2000)
    common, prior = moderated.prior_of(true * random.chisquare(4, 2000) / 4, df)
    assert common == pytest.approx(3.0, rel=0.1) and prior == pytest.approx(10, rel=0.3)
    equal = 3.0 * random.chisquare(4, (200, 2000)) / 4
    drawn, drawn_df = moderated.moderated(equal, df)
    assert np.median(drawn) == pytest.approx(3.0, rel=0.05)
    assert np.median(drawn_df) > 50


def test_one_noise_level_does_not_keep_its_word_where_four_steps_are_restless():
    """The figures of docs/studies.md in small: the family error of the pooled test, with 3 seeds, and of Welch's."""
    found = {(row[0], row[1], row[2]): float(row[5].rstrip("%")) for row in variance.rows(300)}
    assert found["equal", "3", "pooled"] < 8
    assert found["four at three times", "3", "pooled"] > 12
    assert found["four at three times", "3", "Welch"] < 5
    assert found["four at three times", "10", "moderated, one step's df"] < 9


def test_sampling_error_is_binomial_and_the_bound_holds():
    assert stats.sampling_error(80.0, 10000) == pytest.approx(0.4)
    random = np.random.default_rng(0)
    images, gains = 1000, []
    for _ in range(2000):
        hard = random.random(images)
        gains.append(100 * ((hard < 0.85).mean() - ((hard + 0.05 * random.random(images)) < 0.83).mean()))
    assert np.std(gains) <= stats.sampling_error_of_gain(85, 80.5, images)
