"""One variance per cell, drawn towards the common one: the empirical Bayes of Smyth (2004).

Variances of cells are taken as drawn from a scaled inverse chi-square distribution around a common value. Where they
differ no more than chance lets them, the common one is all that counts; where some are restless, they keep their own.
"""

import numpy as np
from scipy import special

from roadmap.effects.noise import Array

_ROUNDS = 60  # of the bisection for the trigamma function's inverse


def prior_of(variances: Array, df: Array) -> tuple[Array, Array]:
    """Common variance and its degrees of freedom (...), by the moments of log variances (..., K) on df (K,).

    The degrees of freedom are inf where one variance explains all.
    """
    floor = 1e-5 * np.median(variances, axis=-1, keepdims=True)  # equal top-1s are no certainty
    logs = np.log(np.maximum(variances, np.maximum(floor, 1e-12)))
    centred = logs - special.digamma(df / 2) + np.log(df / 2)
    spread = centred.var(axis=-1, ddof=1) - special.polygamma(1, df / 2).mean()
    half = _inverse_trigamma(np.maximum(spread, 1e-9))
    own = np.exp(centred.mean(axis=-1) + special.digamma(half) - np.log(half))
    pooled = (variances * df).sum(axis=-1) / df.sum()
    return np.where(spread > 0, own, pooled), np.where(spread > 0, 2 * half, np.inf)


def moderated(variances: Array, df: Array) -> tuple[Array, Array]:
    """Variances (..., K) drawn towards the common one, and their degrees of freedom."""
    common, prior = prior_of(variances, df)
    weight = np.where(np.isinf(prior), 1.0, 1 / (1 + df.mean() / prior))[..., None]
    drawn = weight * common[..., None] + (1 - weight) * variances
    return drawn, np.minimum(prior[..., None] + df, df.sum())


def _inverse_trigamma(values: Array) -> Array:
    low, high = np.full_like(values, 1e-6), np.full_like(values, 1e10)
    for _ in range(_ROUNDS):
        middle = np.sqrt(low * high)
        above = special.polygamma(1, middle) > values
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    found: Array = np.sqrt(low * high)
    return found
