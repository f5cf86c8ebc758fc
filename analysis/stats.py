"""How large is a gain, and could it be noise? Functions of arrays; noise and verdicts: `roadmap.effects`."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from roadmap.effects.noise import CONFIDENCE, NO_SPREAD, Array, Means, pooled


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


def means_from_summary(mean: Sequence[float], std: Sequence[float], n: Sequence[float]) -> Means:
    """The same estimates from published means and standard deviations: no seeds are shared, the variance is pooled.

    Cells whose std is not given (NaN, or n below 2) lend nothing to the variance.
    """
    sigma, df = pooled(std, n)
    runs = np.maximum(np.asarray(n, dtype=np.float64), 1)
    return Means(np.asarray(mean, dtype=np.float64), np.diag(1 / runs), np.asarray(sigma), df)


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
    with warnings.catch_warnings():  # one of the two may be constant: a few runs can have the very same top-1
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        test = stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(confidence)
    return Interval(estimate, float(low), float(high), float(test.pvalue))


class EqualVariance(NamedTuple):
    """p of "all groups have one variance" by two tests; NaN where one cannot tell."""

    brown_forsythe: float  # 1974; from the medians, whatever the distribution, blind below four values or so per group
    bartlett: float  # 1937; from the variances, sees more in few values but takes long tails for unequal variances


UNTESTED = EqualVariance(math.nan, math.nan)


def equal_variance(groups: Sequence[Sequence[float]] | Array) -> EqualVariance:
    """Test groups of values of mean 0 or any other; groups that are too small for a test are left out of it.

    Two values lie as far from their median as each other: they say nothing to Brown and Forsythe.
    """

    def p_of(test: Callable[..., Any], least: int) -> float:
        enough = [group for group in groups if len(group) >= least]
        if len(enough) < 2 or max(np.ptp(group) for group in enough) < NO_SPREAD:
            return math.nan
        with np.errstate(divide="ignore", invalid="ignore"):  # a group may be constant
            return float(test(*enough).pvalue)

    return EqualVariance(p_of(partial(stats.levene, center="median"), 3), p_of(stats.bartlett, 2))


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
