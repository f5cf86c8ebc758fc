"""Do two noisy series of gains put the same steps first? Spearman's rho, its intervals and what noise lets it reach.

Two questions need two intervals. Over noise: the steps stay, the runs might have come out otherwise. Over steps: the
steps are a sample of changes that one might make. Levels are not compared: cumulated gains correlate by themselves.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from roadmap.effects.noise import CONFIDENCE, Array

DRAWS = 4000
LEAST = 3  # gains that have a rank correlation at all
LEAST_OVER_STEPS = 5
DECIMALS = 6  # of a gain in points: what lies behind is rounding, which would give equal gains an order


@dataclass(frozen=True)
class Reading:
    """Estimated gains (K,) in points and the covariance (K, K) of their noise; NaN where it is unknown."""

    gains: Array
    covariance: Array

    @property
    def known(self) -> bool:
        """Whether the noise is known."""
        return bool(np.isfinite(self.covariance).all())

    @property
    def signal(self) -> float:
        """Variance of the noise-free gains over the steps, by moments; 0 where noise explains all that is seen."""
        count = len(self.gains)
        noise = (np.trace(self.covariance) - self.covariance.sum() / count) / (count - 1)
        return max(0.0, float(self.gains.var(ddof=1) - noise))

    def shrunk(self) -> Array:
        """The gains around their mean, with the spread that noise does not explain."""
        seen = self.gains.var(ddof=1)
        mean = self.gains.mean()
        return np.asarray(mean + math.sqrt(self.signal / seen if seen > 0 else 0.0) * (self.gains - mean))

    def again(self, around: Array, random: np.random.Generator) -> Array:
        """What such runs might have read (DRAWS, K) if the truth were `around` (K,)."""
        return around + random.standard_normal((DRAWS, len(around))) @ _root(self.covariance).T


def rank_correlation(a: Array, b: Array) -> Array:
    """Spearman's rho (...) of series (..., K); equal gains share a rank, NaN where all of a series are equal."""
    ranks = [stats.rankdata(np.round(one, DECIMALS), axis=-1) for one in (a, b)]
    a, b = (one - one.mean(axis=-1, keepdims=True) for one in ranks)
    with np.errstate(invalid="ignore"):
        found: Array = (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return found


def over_steps(rho: float, steps: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of rho when the steps are a sample: Bonett and Wright (2000); NaN below five steps."""
    if steps < LEAST_OVER_STEPS or math.isnan(rho):
        return math.nan, math.nan
    z = math.atanh(max(-0.9999999, min(0.9999999, rho)))
    half = float(stats.norm.ppf((1 + confidence) / 2)) * math.sqrt((1 + rho**2 / 2) / (steps - 3))
    return math.tanh(z - half), math.tanh(z + half)


def over_noise(ours: Reading, theirs: Reading, confidence: float = CONFIDENCE, seed: int = 0) -> tuple[float, float]:
    """Interval of the noise-free gains' rho, the steps being what they are; NaN where a noise is unknown.

    Reading noisy gains once more adds noise twice and draws rho towards 0; taking it out by a normal model of the gains
    trusts that model. The interval holds the 95 % of both, and 1 (or -1) where the very same (or the reverse) order
    would leave such a rho. Either alone covers less (`python -m analysis.simulations agreement`).
    """
    if not (ours.known and theirs.known):
        return math.nan, math.nan
    random = np.random.default_rng(seed)
    share = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    plain = rank_correlation(ours.again(ours.gains, random), theirs.again(theirs.gains, random))
    drawn = (one[np.isfinite(one)] for one in (plain, _noise_free(ours, theirs, random)))
    ends = np.array([np.quantile(one, share) for one in drawn if len(one)])
    if not len(ends):
        return math.nan, math.nan
    rho = float(rank_correlation(ours.gains, theirs.gains))
    least = ceiling(ours, theirs, confidence, seed)[1]
    return -1.0 if rho <= -least else float(ends[:, 0].min()), 1.0 if rho >= least else float(ends[:, 1].max())


def ceiling(
    ours: Reading, theirs: Reading, confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float, float]:
    """Mean, low and high of rho over the noise if the noise-free gains had the very same order: what could be reached.

    The gains keep the spread that noise does not explain; theirs are put into the order of ours.
    """
    if not (ours.known and theirs.known):
        return math.nan, math.nan, math.nan
    random = np.random.default_rng(seed)
    own = ours.shrunk()
    same = np.empty_like(own)
    same[np.argsort(own, kind="stable")] = np.sort(theirs.shrunk())
    drawn = rank_correlation(ours.again(own, random), theirs.again(same, random))
    low, high = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(np.nanmean(drawn)), float(low), float(high)


def _root(covariance: Array) -> Array:
    """A square root of a covariance that may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    root: Array = vectors * np.sqrt(np.clip(values, 0, None))
    return root


def _noise_free(ours: Reading, theirs: Reading, random: np.random.Generator) -> Array:
    """Rho (DRAWS,) of noise-free gains, drawn given what was read: both series normal, their covariance by moments."""
    count = len(ours.gains)
    spread = math.sqrt(ours.signal * theirs.signal)
    noise = np.block(
        [[ours.covariance, np.zeros((count, count))], [np.zeros((count, count)), theirs.covariance]],
    )
    shared = float(np.clip(np.cov(ours.gains, theirs.gains)[0, 1], -spread, spread))
    truth = np.kron(np.array([[ours.signal, shared], [shared, theirs.signal]]), np.eye(count))
    mean = np.repeat([ours.gains.mean(), theirs.gains.mean()], count)
    weight = truth @ np.linalg.pinv(truth + noise)
    middle = mean + weight @ (np.concatenate([ours.gains, theirs.gains]) - mean)
    left = truth - weight @ truth
    drawn = middle + random.standard_normal((DRAWS, 2 * count)) @ _root((left + left.T) / 2).T
    return rank_correlation(drawn[:, :count], drawn[:, count:])
