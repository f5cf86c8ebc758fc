"""How large is a gain, and could it be noise? Everything here is a function of arrays.

A run's top-1 is modelled as step + seed + noise. The noise variance is pooled over the whole ladder, because two or
three seeds say little about one step alone: with 17 steps and 3 seeds the residual has 32 degrees of freedom, not 2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests

Array = NDArray[np.float64]

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
POWER = 0.8
NO_SPREAD = 1e-6  # points: less is the rounding of equal values
MOST_SEEDS = 1000  # more is reported as "more than this"


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval, in the unit of the data (percentage points for top-1)."""

    estimate: float
    low: float
    high: float
    p: float = math.nan  # two-sided, of "the true value is 0"

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Means:
    """Estimated cell means and their noise: covariance = sigma**2 * `unscaled`, sigma on `df` degrees of freedom.

    `mean` is (..., K), `unscaled` (K, K), `sigma` (...): a leading axis carries many data sets at once.
    """

    mean: Array
    unscaled: Array
    sigma: Array
    df: int

    def contrast(self, weights: Array) -> tuple[Array, Array]:
        """Value and standard error, (..., C), of the C weighted sums of means in `weights` (C, K)."""
        scale = np.sqrt(np.einsum("ck,kl,cl->c", weights, self.unscaled, weights))
        return self.mean @ weights.T, np.asarray(self.sigma)[..., None] * scale

    def intervals(self, weights: Array, confidence: float = CONFIDENCE) -> tuple[Array, Array, Array, Array]:
        """Estimate, low, high and two-sided p-value, each (..., C). NaN where the noise cannot be estimated."""
        value, error = self.contrast(weights)
        if self.df < 1:
            nothing = np.full_like(value, np.nan)
            return value, nothing, nothing, nothing
        # no spread at all is a sign of copied runs or of a coarse test set, not of certainty
        error = np.where(error > 0, error, np.nan)
        half = stats.t.ppf((1 + confidence) / 2, self.df) * error
        return value, value - half, value + half, 2 * stats.t.sf(np.abs(value) / error, self.df)


class AdditiveModel:
    """Least squares for value = cell + block + noise (cell: a step; block: a seed), any number of runs per pair.

    The design is factorised once, so that `fit` handles one data set (N,) or many (M, N). Where seeds do not link all
    cells (a step that shares no seed with the others), blocks are left out and `blocked` is False.
    """

    def __init__(self, cells: Sequence[int], blocks: Sequence[int]) -> None:
        cell_columns = _dummies(cells)
        block_columns = _dummies(blocks)
        self.cells = cell_columns.shape[1]
        # effect coding: a cell's coefficient is its mean over equally weighted blocks
        coded = block_columns[:, :-1] - block_columns[:, -1:]
        full = np.hstack([cell_columns, coded])
        self.blocked = bool(coded.shape[1]) and np.linalg.matrix_rank(full) == full.shape[1]
        self.design = full if self.blocked else cell_columns
        self.df = self.design.shape[0] - self.design.shape[1]

    @cached_property
    def _inverse(self) -> Array:
        inverse: Array = np.asarray(np.linalg.pinv(self.design), dtype=np.float64)
        return inverse

    def fit(self, values: Array) -> Means:
        """Means of all cells from `values` (..., N), in the order of the constructor's labels."""
        values = np.asarray(values, dtype=np.float64)
        beta = values @ self._inverse.T
        residual = values - beta @ self.design.T
        variance = (residual**2).sum(-1) / self.df if self.df > 0 else np.full(values.shape[:-1], np.nan)
        sigma = np.where(variance < NO_SPREAD**2, 0.0, np.sqrt(variance))
        unscaled = (self._inverse @ self._inverse.T)[: self.cells, : self.cells]
        return Means(beta[..., : self.cells], unscaled, sigma, self.df)


def _dummies(labels: Sequence[int]) -> Array:
    """One-hot columns (N, number of distinct labels) in the labels' sorted order."""
    _, index = np.unique(np.asarray(labels), return_inverse=True)
    return np.eye(int(index.max()) + 1 if len(index) else 0)[index]


def means_from_summary(mean: Sequence[float], std: Sequence[float], n: Sequence[float]) -> Means:
    """The same estimates from published means and standard deviations: no seeds are shared, the variance is pooled.

    Cells whose std is not given (NaN, or n below 2) lend nothing to the variance.
    """
    std_, n_ = np.asarray(std, dtype=np.float64), np.asarray(n, dtype=np.float64)
    known = np.isfinite(std_) & (n_ >= 2)
    df = int((n_[known] - 1).sum())
    variance = float((std_[known] ** 2 * (n_[known] - 1)).sum() / df) if df else math.nan
    return Means(
        np.asarray(mean, dtype=np.float64), np.diag(1 / np.maximum(n_, 1)), np.asarray(math.sqrt(variance)), df
    )


def holm(p_values: Sequence[float]) -> Array:
    """Holm's adjusted p-values; NaN entries (no test was made) stay NaN and do not count."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full_like(p, np.nan)
    tested = np.isfinite(p)
    if tested.any():
        adjusted[tested] = multipletests(p[tested], alpha=ALPHA, method="holm")[1]
    return adjusted


def power_of(effect: float | Array, error: float | Array, df: float | Array, alpha: float = ALPHA) -> Array:
    """Probability that a two-sided t-test at `alpha` finds a true `effect` estimated with standard error `error`."""
    shift = np.abs(np.asarray(effect, dtype=np.float64)) / error
    bound = stats.t.ppf(1 - alpha / 2, df)
    # the nct tail is NaN far out in the tail, where the power is 1
    return np.nan_to_num(stats.nct.sf(bound, df, shift) + stats.nct.cdf(-bound, df, shift), nan=1.0)


def detectable(error: float, df: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """Minimum detectable effect: the smallest true effect found with probability `power`; NaN without an error."""
    if not (df >= 1 and error > 0):
        return math.nan
    top = 4 * (stats.t.ppf(1 - alpha / 2, df) + stats.t.ppf(power, df))
    return error * float(optimize.brentq(lambda shift: power_of(shift, 1.0, df, alpha) - power, 1e-9, top))


def seeds_needed(effect: float, sigma: float, steps: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """Seeds per step (at least 2) that find a gain of `effect` with probability `power` in a ladder of `steps` steps.

    inf beyond MOST_SEEDS; NaN when the noise is unknown.
    """
    if not (sigma > 0 and steps >= 2 and math.isfinite(effect)):
        return math.nan
    n = np.arange(2.0, MOST_SEEDS + 1)
    enough = power_of(effect, sigma * np.sqrt(2 / n), (steps - 1) * (n - 1), alpha) >= power
    return float(n[np.argmax(enough)]) if enough.any() else math.inf


def paired(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean of a - b over runs of the same seed, by Student's t; NaN bounds below two pairs or without spread."""
    difference = np.subtract(a, b)
    estimate = float(difference.mean()) if len(difference) else math.nan
    if len(difference) < 2 or np.ptp(difference) < NO_SPREAD:
        return Interval(estimate, math.nan, math.nan)
    test = stats.ttest_rel(a, b)
    low, high = test.confidence_interval(confidence)
    return Interval(estimate, float(low), float(high), float(test.pvalue))


def two_sample(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """mean(a) - mean(b), unpaired, unequal variances (Welch); NaN bounds below two runs each or without spread."""
    estimate = float(np.mean(a) - np.mean(b)) if len(a) and len(b) else math.nan
    if min(len(a), len(b)) < 2 or max(np.ptp(a), np.ptp(b)) < NO_SPREAD:
        return Interval(estimate, math.nan, math.nan)
    test = stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(confidence)
    return Interval(estimate, float(low), float(high), float(test.pvalue))


def sampling_error(top1: float, images: int) -> float:
    """Binomial standard error, in points, of a top-1 in per cent measured on `images` test images."""
    share = top1 / 100
    return 100 * math.sqrt(share * (1 - share) / images)


def sampling_error_of_gain(top1: float, parent: float, images: int) -> float:
    """Largest standard error, in points, that the choice of test images can give to the difference of two top-1s.

    Both networks see the same images, so only those on which they disagree matter. How many these are is not recorded;
    at most every error of either network is one, which makes this an upper bound.
    """
    disagree = min(1.0, (100 - top1 + 100 - parent) / 100)
    return 100 * math.sqrt(max(0.0, disagree - ((top1 - parent) / 100) ** 2) / images)


def rank_correlation(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Spearman's rho with the interval of Bonett and Wright (2000); NaN bounds below five pairs."""
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return Interval(math.nan, math.nan, math.nan)
    test = stats.spearmanr(a, b)
    rho = float(test.statistic)
    if len(a) < 5:
        return Interval(rho, math.nan, math.nan)
    z = math.atanh(max(-0.9999999, min(0.9999999, rho)))
    half = stats.norm.ppf((1 + confidence) / 2) * math.sqrt((1 + rho**2 / 2) / (len(a) - 3))
    return Interval(rho, math.tanh(z - half), math.tanh(z + half), float(test.pvalue))


def share(successes: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """A proportion with its exact (Clopper-Pearson) interval; p is of a true share of one half."""
    if not trials:
        return Interval(math.nan, math.nan, math.nan)
    test = stats.binomtest(successes, trials)
    ci = test.proportion_ci(confidence, method="exact")
    return Interval(successes / trials, float(ci.low), float(ci.high), float(test.pvalue))
