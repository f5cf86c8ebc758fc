"""The test that gives a verdict and what it can find: Holm's correction over the effects that are judged together.

A study is planned and judged with the same test. Holm compares the smallest p with ALPHA / tests and later ones with
more, so what is promised here, an effect that would be found or a number of seeds, is that of the first comparison: it
holds whatever the other effects turn out to be.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from roadmap.effects.noise import CONFIDENCE, Array

ALPHA = 1 - CONFIDENCE
POWER = 0.8
MARGIN = 0.5  # points: the gain for which seeds are counted
MOST_SEEDS = 1000  # more is reported as "more than this"


def holm(p_values: Sequence[float] | Array) -> Array:
    """Holm's adjusted p-values (1979); NaN entries (no test was made) stay NaN and do not count."""
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted = np.full_like(p, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted


def simultaneous(tests: int, confidence: float = CONFIDENCE) -> float:
    """Confidence of each of so many intervals that hold all true values together with `confidence` (Bonferroni).

    Such an interval that leaves 0 out has Holm's verdict; Holm may give one to a few more.
    """
    return 1 - (1 - confidence) / max(tests, 1)


def power_of(effect: float | Array, error: float | Array, df: float | Array, alpha: float = ALPHA) -> Array:
    """Probability that a two-sided t-test at `alpha` finds a true `effect` estimated with standard error `error`."""
    shift = np.abs(np.asarray(effect, dtype=np.float64)) / error
    bound = stats.t.ppf(1 - alpha / 2, df)
    # the nct tail is NaN far out in the tail, where the power is 1
    return np.nan_to_num(stats.nct.sf(bound, df, shift) + stats.nct.cdf(-bound, df, shift), nan=1.0)


def detectable(error: float, df: float, tests: int = 1, power: float = POWER) -> float:
    """Smallest true effect that is found with probability `power` among so many tests; NaN without an error."""
    if not (df >= 1 and error > 0):
        return math.nan
    alpha = ALPHA / max(tests, 1)
    top = 4 * (stats.t.ppf(1 - alpha / 2, df) + stats.t.ppf(power, df))
    return error * float(optimize.brentq(lambda shift: float(power_of(shift, 1.0, df, alpha)) - power, 1e-9, top))


def seeds_needed(effect: float, sigma: float, cells: int, tests: int = 1, power: float = POWER) -> float:
    """Seeds per cell (at least 2) that find a stated effect with probability `power` among so many tests.

    The effect is one that was stated before the runs, never the one that they show: what was just found by luck needs
    by that luck few seeds.

    Args:
        effect: the difference of two cells, points.
        sigma: standard deviation of one run, points.
        cells: how many are trained with as many seeds each.
        tests: differences that are judged together.
        power: the probability.

    Returns:
        inf beyond MOST_SEEDS; NaN when the noise or the effect is unknown.
    """
    if not (sigma > 0 and cells >= 2 and math.isfinite(effect)):
        return math.nan
    n = np.arange(2.0, MOST_SEEDS + 1)
    found = power_of(effect, sigma * np.sqrt(2 / n), (cells - 1) * (n - 1), ALPHA / max(tests, 1))
    return float(n[np.argmax(found >= power)]) if (found >= power).any() else math.inf
