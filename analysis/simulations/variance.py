"""One noise level for a ladder, one per step (Welch), or one in between (moderated): which test keeps its word?"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from scipy import stats

from analysis.simulations.agreement import gains_of_levels
from analysis.simulations.moderated import moderated
from analysis.stats import equal_variance
from roadmap.effects.noise import AdditiveModel, Array, quantile
from roadmap.effects.testing import ALPHA, detectable, holm

HEAD = (
    "noise of the steps",
    "seeds",
    "method",
    "holds the gain",
    "at least",
    "family error",
    "power",
    "Brown-Forsythe",
    "Bartlett",
)
MOST_TESTED = 200  # data sets per row for the test of equal variance, which is slow
SEEDS = (2, 3, 5, 10)
STEPS = 17
GAINED = (1, 5, 9, 13)  # gains that are there when the power is counted
NOISES: Mapping[str, Callable[[np.random.Generator], Array]] = {
    "equal": lambda random: np.ones(STEPS),
    "four at three times": lambda random: np.where(np.isin(np.arange(STEPS), (3, 7, 11, 14)), 3.0, 1.0),
    "rising fivefold": lambda random: np.linspace(0.5, 2.5, STEPS),
    "drawn at random": lambda random: np.sqrt(4 / random.chisquare(4, STEPS)),
}
Tested = tuple[Array, Array]  # standard errors and degrees of freedom (M, gains)


def rows(count: int) -> Iterator[tuple[str, ...]]:
    """A row per kind of noise, number of seeds and method."""
    weights = gains_of_levels()
    for kind, sigmas in NOISES.items():
        for seeds in SEEDS:
            random = np.random.default_rng(0)
            cells, blocks = np.divmod(np.arange(STEPS * seeds), seeds)
            own = np.array([sigmas(random) for _ in range(count)])
            noise = own[:, :, None] * random.standard_normal((count, STEPS, seeds))
            values = (noise + random.standard_normal((count, 1, seeds))).reshape(count, -1)
            model = AdditiveModel(cells.tolist(), blocks.tolist())
            left = model.residuals(values[:MOST_TESTED]).reshape(-1, STEPS, seeds)
            tests = np.array([equal_variance(one) for one in left])
            seen = ["–" if np.isnan(one).all() else f"{np.mean(one < ALPHA):.0%}" for one in tests.T]
            gain = model.fit(values).mean @ weights.T
            typical = float(np.sqrt((own**2).mean()))
            effect = typical * detectable(np.sqrt(2 / seeds), model.df, len(weights))
            for name, (error, df) in methods(values, seeds, model, weights).items():
                covered = np.abs(gain) <= quantile(df) * error
                wrong = _found(gain, error, df).any(axis=1)
                there = np.isin(np.arange(len(weights)), GAINED)
                right = _found(gain + effect * there, error, df)[:, there]
                shares = (covered.mean(), covered.mean(axis=0).min(), wrong.mean(), right.mean())
                yield kind, str(seeds), name, *(f"{share:.1%}" for share in shares), *seen


def methods(values: Array, seeds: int, model: AdditiveModel, weights: Array) -> dict[str, Tested]:
    """The gains' standard errors and degrees of freedom by each method."""
    count = len(values)
    shape = (count, len(weights))
    means = model.fit(values)
    step, parent = np.argmax(weights, axis=1), np.argmin(weights, axis=1)

    def joined(variance: Array, df: Array) -> Tested:
        first, second = variance[:, step] / seeds, variance[:, parent] / seeds
        df = np.broadcast_to(df, variance.shape)
        return np.sqrt(first + second), (first + second) ** 2 / (first**2 / df[:, step] + second**2 / df[:, parent])

    by_step = values.reshape(count, STEPS, seeds)
    plain = by_step.var(axis=2, ddof=1)
    rest = by_step - by_step.mean(axis=1, keepdims=True)
    within = np.maximum(rest.var(axis=2, ddof=1) * STEPS / (STEPS - 1), 1e-12)  # without what all steps of a seed share
    df = np.full(STEPS, float(seeds - 1))
    drawn, drawn_df = moderated(within, df)
    error, joint = joined(drawn, drawn_df)
    return {
        "pooled": (means.contrast(weights)[1], np.full(shape, float(means.df))),
        "Welch": joined(plain, df),
        "moderated": (error, np.minimum(joint, model.df)),
        "moderated, one step's df": (error, np.minimum(drawn_df[:, :1] + 0 * error, model.df)),
    }


def _found(gain: Array, error: Array, df: Array) -> Array:
    p = 2 * stats.t.sf(np.abs(gain) / error, df)
    return np.array([holm(one) < ALPHA for one in p])
