"""The noise of runs: means of cells under one pooled noise level, for planning a study and for judging it afterwards.

A run's top-1 is modelled as cell + seed + noise, a cell being what was trained (a step, a set of changes). The variance
is pooled over all cells, because two or three seeds say little about one cell alone: 17 steps with 3 seeds leave 32
degrees of freedom, one step alone leaves 2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

CONFIDENCE = 0.95
NO_SPREAD = 1e-6  # points: less is the rounding of equal values


@dataclass(frozen=True)
class Means:
    """Estimated cell means and their noise: covariance = sigma**2 * `unscaled`, sigma on `df` degrees of freedom.

    `mean` is (..., K), `unscaled` (K, K), `sigma` (...): a leading axis carries many data sets at once.
    """

    mean: Array
    unscaled: Array
    sigma: Array
    df: int

    def at(self, places: Sequence[int]) -> "Means":
        """The means at these places; a place may be named twice."""
        return Means(self.mean[..., places], self.unscaled[np.ix_(places, places)], self.sigma, self.df)

    def contrast(self, weights: Array) -> tuple[Array, Array]:
        """Value and standard error, (..., C), of the C weighted sums of means in `weights` (C, K)."""
        return self.mean @ weights.T, np.asarray(self.sigma)[..., None] * np.sqrt(variances(weights, self.unscaled))

    def intervals(self, weights: Array, confidence: float = CONFIDENCE) -> tuple[Array, Array, Array, Array]:
        """Estimate, low, high and two-sided p-value, each (..., C). NaN where the noise cannot be estimated."""
        value, error = self.contrast(weights)
        if self.df < 1:
            nothing = np.full_like(value, np.nan)
            return value, nothing, nothing, nothing
        # no spread at all is a sign of copied runs or of a coarse test set, not of certainty
        error = np.where(error > 0, error, np.nan)
        half = quantile(self.df, confidence) * error
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

    @cached_property
    def unscaled(self) -> Array:
        """Covariance of the cell means (K, K) at a noise variance of 1: known before any run is trained."""
        whole: Array = self._inverse @ self._inverse.T
        return whole[: self.cells, : self.cells]

    def fit(self, values: Array) -> Means:
        """Means of all cells from `values` (..., N), in the order of the constructor's labels."""
        values = np.asarray(values, dtype=np.float64)
        beta = values @ self._inverse.T
        residual = self.residuals(values)
        variance = (residual**2).sum(-1) / self.df if self.df > 0 else np.full(values.shape[:-1], np.nan)
        sigma = np.where(variance < NO_SPREAD**2, 0.0, np.sqrt(variance))
        return Means(beta[..., : self.cells], self.unscaled, sigma, self.df)

    def residuals(self, values: Array) -> Array:
        """What cell and block leave of `values` (..., N)."""
        left: Array = values - values @ self._inverse.T @ self.design.T
        return left


def _dummies(labels: Sequence[int]) -> Array:
    """One-hot columns (N, number of distinct labels) in the labels' sorted order."""
    _, index = np.unique(np.asarray(labels), return_inverse=True)
    return np.eye(int(index.max()) + 1 if len(index) else 0)[index]


def variances(weights: Array, unscaled: Array) -> Array:
    """Variance (..., C) of the weighted sums of means in `weights` (..., C, K), at a noise variance of 1."""
    found: Array = np.einsum("...ck,kl,...cl->...c", weights, unscaled, weights)
    return found


def pooled(std: Sequence[float], n: Sequence[float]) -> tuple[float, int]:
    """One standard deviation from those of several cells, and its degrees of freedom; NaN and 0 where there is none.

    Cells whose std is not given (NaN) or that have fewer than two runs lend nothing.
    """
    std_, n_ = np.asarray(std, dtype=np.float64), np.asarray(n, dtype=np.float64)
    known = np.isfinite(std_) & (n_ >= 2)
    df = int((n_[known] - 1).sum())
    return (math.sqrt((std_[known] ** 2 * (n_[known] - 1)).sum() / df) if df else math.nan), df


def quantile(df: float | Array, confidence: float = CONFIDENCE) -> Array:
    """Student's t: how many standard errors lie between an estimate and the ends of its interval."""
    found: Array = stats.t.ppf((1 + confidence) / 2, df)
    return found


def joint_df(first: Array, first_df: float, second: Array, second_df: float) -> Array:
    """Degrees of freedom of the sum of two estimated variances; Welch (1947), Satterthwaite (1946). NaN for 0 + 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = (first + second) ** 2 / (first**2 / first_df + second**2 / second_df)
    return found
