"""v(set) from few trained sets: a Gaussian process whose kernel is a polynomial, exact for Shapley values.

A set is a point: each slot (a change, or alternatives of which one is in force) holds one of its levels, level 0 being
"absent", as a corner of a simplex whose corners have length 1 and add up to 0 (a plain change: -1 or 1). The kernel
sums over degrees d the mean, over all teams of d slots, of the product of the slots' inner products: degree 1 is the
additive part, 2 the pairs, and so on. All of it is linear in each slot's corner, so that a point between corners has
the value of the multilinear extension there, and a Shapley value is a weighted sum of few such points (Owen 1972, by
Gauss-Legendre quadrature, exact for a polynomial). Given the variances of the degrees and the noise, every answer is
linear in the trained values. What is not known, the variances, is averaged over its posterior.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import comb

import numpy as np
from scipy import linalg, optimize, special, stats

from roadmap.effects.noise import CONFIDENCE, Array
from roadmap.effects.subsets import Set

Slots = tuple[tuple[str, ...], ...]

DEGREES = 5  # of the polynomial; a team of six and more looks like noise
FREE = 4  # variances that are fitted: degrees 1, 2, 3, and one for the degrees above together
FADE = 0.5  # of the variance from one degree above 3 to the next
DRAWS = 32  # of the variances from their posterior; a power of 2
_CONSTANT = 100.0  # prior variance of the mean of all sets in units of the values' variance: as good as unknown
# Prior of the logarithms of the variances, in units of the values' variance: centre and standard deviation.
_CENTRE = np.array([0.0, -1.5, -3.0, -4.0])
_WIDTH = np.array([2.0, 2.0, 2.0, 2.0])
_NOISE, _NOISE_WIDTH = -4.0, 2.5  # the same for the noise of a run where nothing is known of it
_JITTER = 1e-9  # keeps the matrices positive where two sets come to the same
_LEAST_WIDTH = 0.05  # of the noise's logarithm, however many runs say what it is


def corners(levels: int) -> Array:
    """The corners (levels, levels - 1) of a regular simplex around 0 with inner products 1 and -1 / (levels - 1)."""
    gram = (levels * np.eye(levels) - 1) / (levels - 1)
    found = np.zeros((levels, levels - 1))
    for i in range(levels):
        for j in range(min(i + 1, levels - 1)):
            rest = gram[i, j] - found[i, :j] @ found[j, :j]
            found[i, j] = np.sqrt(max(rest, 0)) if i == j else rest / found[j, j]
    return -found  # absent is -1 for a plain change


@dataclass(frozen=True)
class Space:
    """The sets that can be made of some slots.

    Attributes:
        slots: per slot the names of its alternatives; one name for a plain change.
    """

    slots: Slots

    @cached_property
    def width(self) -> int:
        """Coordinates per slot."""
        return max((len(slot) for slot in self.slots), default=1)

    @cached_property
    def corners(self) -> list[Array]:
        """Per slot the points (levels, width) of its levels."""
        return [np.pad(corners(len(s) + 1), ((0, 0), (0, self.width - len(s)))) for s in self.slots]

    @property
    def degrees(self) -> int:
        """The highest degree of the kernel."""
        return min(DEGREES, len(self.slots))

    def points(self, sets: Iterable[Iterable[str]]) -> Array:
        """Sets as points (N, slots, width). Of two alternatives in one set the later one is in force."""
        rows = []
        for one in sets:
            names = set(one)
            levels = [max((i + 1 for i, name in enumerate(slot) if name in names), default=0) for slot in self.slots]
            rows.append([self.corners[i][level] for i, level in enumerate(levels)])
        return np.array(rows, dtype=np.float64).reshape(-1, len(self.slots), self.width)

    def degree_kernels(self, first: Array, second: Array) -> Array:
        """The kernels (degrees + 1, N, M) of the degrees, 1 for a set with itself, between points of two lists."""
        sums = np.zeros((self.degrees + 1, len(first), len(second)))
        sums[0] = 1
        for slot in range(len(self.slots)):
            product = first[:, slot] @ second[:, slot].T
            sums[1:] += sums[:-1] * product  # elementary symmetric polynomials, a slot at a time
        return sums / np.array([comb(len(self.slots), d) for d in range(self.degrees + 1)])[:, None, None]


@dataclass(frozen=True)
class Question:
    """Weighted sums of v at points, sets or between them.

    Attributes:
        names: of the sums.
        points: (M, slots, width).
        weights: (names, M).
    """

    names: tuple[str, ...]
    points: Array
    weights: Array


def values_at(space: Space, sets: Sequence[Set]) -> Question:
    """What are these sets worth?"""
    return Question(tuple("+".join(one) for one in sets), space.points(sets), np.eye(len(sets)))


def shapley_values(space: Space, names: Sequence[str] | None = None, end: Sequence[str] = ()) -> Question:
    """What is each change worth, averaged over the orders of adding all slots' changes?

    Args:
        space: the slots.
        names: the changes that are asked about; None: every one. An alternative is asked about as the choice of its
            slot, beside the other slots' choice of the end.
        end: which alternative of each slot is in force at the end; the last one where none is named.
    """
    nodes, weights = np.polynomial.legendre.leggauss((space.degrees + 1) // 2)
    share = (nodes + 1) / 2
    last = [[slot.index(n) + 1 for n in slot if n in end] or [len(slot)] for slot in space.slots]
    absent = np.array([c[0] for c in space.corners])
    present = np.array([c[level[-1]] for c, level in zip(space.corners, last, strict=True)])
    places = {name: (i, level + 1) for i, slot in enumerate(space.slots) for level, name in enumerate(slot)}
    chosen = tuple(places if names is None else names)
    points: list[Array] = []
    rows = np.zeros((len(chosen), len(chosen) * 2 * len(nodes)))
    for row, name in enumerate(chosen):
        slot, level = places[name]
        for node, weight in zip(share, weights / 2, strict=True):
            for sign, own in ((1, level), (-1, 0)):
                point = absent + node * (present - absent)
                point[slot] = space.corners[slot][own]
                rows[row, len(points)] = sign * weight
                points.append(point)
    return Question(chosen, np.array(points), rows)


@dataclass(frozen=True)
class Answer:
    """What is known of a question: a mixture of normal distributions, one per draw of the variances.

    Attributes:
        names: of the sums.
        means: (draws, names).
        deviations: standard deviations (draws, names).
        shares: of the draws, summing to 1.
        stretch: by how much (names,) the mixture is widened around its mean, at least 1.
    """

    names: tuple[str, ...]
    means: Array
    deviations: Array
    shares: Array
    stretch: Array

    @property
    def mean(self) -> Array:
        """Means (names,)."""
        found: Array = self.shares @ self.means
        return found

    @property
    def deviation(self) -> Array:
        """Standard deviations (names,)."""
        found: Array = np.sqrt(self.shares @ (self.deviations**2 + (self.means - self.mean) ** 2))
        return self.stretch * found

    def below(self, values: Array) -> Array:
        """The probability (names,) of less than these values (names,)."""
        inner = self.mean + (values - self.mean) / self.stretch
        found: Array = self.shares @ special.ndtr((inner - self.means) / np.maximum(self.deviations, 1e-12))
        return found

    def interval(self, confidence: float = CONFIDENCE) -> tuple[Array, Array]:
        """Low and high (names,), by bisection."""
        ends = []
        for level in ((1 - confidence) / 2, (1 + confidence) / 2):
            low, high = (self.mean - 20 * self.deviation, self.mean + 20 * self.deviation)
            for _ in range(60):
                middle = (low + high) / 2
                less = self.below(middle) < level
                low, high = np.where(less, middle, low), np.where(less, high, middle)
            ends.append((low + high) / 2)
        return ends[0], ends[1]


def first_of_largest(gains: Array) -> int:
    """The place of the largest gain, of equal ones the first: which that is must not hang on their rounding."""
    return int(np.flatnonzero(gains >= gains.max() * (1 - 1e-9))[0])


class Surrogate:
    """The Gaussian process, given the values of some sets.

    Args:
        space: the slots.
        sets: N distinct sets.
        values: their means (N,).
        unscaled: covariance of their noise at a noise variance of 1 (N, N); None: one independent run each.
        sigma: standard deviation of a run, as estimated from seeds; None or NaN: estimated with the rest.
        df: degrees of freedom of `sigma`.
    """

    def __init__(
        self,
        space: Space,
        sets: Sequence[Set],
        values: Array,
        unscaled: Array | None = None,
        sigma: float | None = None,
        df: float = np.inf,
    ) -> None:
        self.space = space
        self.sets = tuple(sets)
        self.points = space.points(sets)
        values = np.asarray(values, dtype=np.float64)
        self.centre = float(values.mean())
        self.scale = float(values.std()) or 1.0
        self.values = (values - self.centre) / self.scale
        self.unscaled = np.eye(len(values)) if unscaled is None else np.asarray(unscaled)
        noise = (_NOISE, _NOISE_WIDTH)
        if sigma is not None and np.isfinite(sigma) and sigma > 0 and df >= 1:
            # the logarithm of an estimated variance errs by about sqrt(2 / df)
            noise = (2 * float(np.log(sigma / self.scale)), max(float(np.sqrt(2 / df)), _LEAST_WIDTH))
        self._centre = np.array([*_CENTRE, noise[0]])
        self._width = np.array([*_WIDTH, noise[1]])
        self._parts = np.stack([*self._free(space.degree_kernels(self.points, self.points)), self.unscaled])

    def _free(self, kernels: Array) -> Array:
        """The kernels of the FREE variances from those of the degrees."""
        found = np.zeros((FREE, *kernels.shape[1:]))
        for degree in range(1, len(kernels)):
            found[min(degree, FREE) - 1] += kernels[degree] * FADE ** max(degree - FREE, 0)
        return found

    def covariance(self, logs: Array, first: Array, second: Array) -> Array:
        """Prior covariance of v between points, in units of the values' variance."""
        found: Array = np.tensordot(np.exp(logs[:FREE]), self._free(self.space.degree_kernels(first, second)), 1)
        return found + _CONSTANT

    def _loss(self, logs: Array) -> tuple[float, Array]:
        """Negative logarithm of prior times marginal likelihood, and its gradient."""
        parts = np.exp(logs)[:, None, None] * self._parts
        factor = linalg.cholesky(self.inside(logs), lower=True)
        inverse = linalg.cho_solve((factor, True), np.eye(len(self.values)))
        solved = inverse @ self.values
        off = (logs - self._centre) / self._width
        loss = 0.5 * self.values @ solved + np.log(np.diag(factor)).sum() + 0.5 * off @ off
        gradient = 0.5 * np.einsum("ij,kij->k", inverse - np.outer(solved, solved), parts)
        return float(loss), gradient + off / self._width

    @cached_property
    def mode(self) -> Array:
        """The most probable logarithms of the variances (FREE + 1,), the noise last."""
        bounds = list(zip(self._centre - 6 * self._width, self._centre + 6 * self._width, strict=True))
        found: Array = optimize.minimize(self._loss, self._centre, jac=True, bounds=bounds, method="L-BFGS-B").x
        return found

    @cached_property
    def draws(self) -> tuple[Array, Array]:
        """Logarithms of the variances (DRAWS, FREE + 1) and their shares, by importance sampling around the mode."""
        step = 1e-3
        size = len(self.mode)
        rows = [(self._loss(self.mode + e)[1] - self._loss(self.mode - e)[1]) / (2 * step) for e in step * np.eye(size)]
        values, vectors = np.linalg.eigh((np.array(rows) + np.array(rows).T) / 2)
        # where the data say little the prior is as wide as it gets
        spread = 1.2 / np.sqrt(np.maximum(values, 1 / self._width.max() ** 2))
        normal = special.ndtri(stats.qmc.Sobol(size, scramble=False).random(DRAWS) + 0.5 / DRAWS)
        logs = self.mode + (normal * spread) @ vectors.T
        logs = np.clip(logs, self._centre - 6 * self._width, self._centre + 6 * self._width)
        weight = np.array([-self._loss(one)[0] for one in logs]) + 0.5 * (normal**2).sum(axis=1)
        shares = np.exp(weight - weight.max())
        return logs, shares / shares.sum()

    def inside(self, logs: Array) -> Array:
        """Prior covariance of the trained values, noise included."""
        found: Array = np.tensordot(np.exp(logs), self._parts, 1) + _CONSTANT
        return found + _JITTER * np.eye(len(found))

    def _across(self, logs: Array, question: Question) -> Array:
        """Prior covariance (names, N) of a question's sums with the trained values."""
        return question.weights @ self.covariance(logs, question.points, self.points)

    def _given(self, logs: Array, question: Question) -> tuple[Array, Array]:
        """Mean and variance (names,) of the sums for these variances."""
        factor = linalg.cho_factor(self.inside(logs), lower=True)
        across = self._across(logs, question)
        own = self.covariance(logs, question.points, question.points)
        own = np.einsum("ij,jk,ik->i", question.weights, own, question.weights)
        lost = np.einsum("ij,ji->i", across, linalg.cho_solve(factor, across.T))
        return across @ linalg.cho_solve(factor, self.values), np.maximum(own - lost, 0)

    def answer(self, question: Question) -> Answer:
        """Mean and interval of each sum.

        The process trusts its kernel, and the kernel is wrong for a game with a jump; what the sums do when a pair of
        sets is taken away shows that. The variance is the mean of both where that is more than the process's own.
        """
        logs, shares = self.draws
        found = [self._given(one, question) for one in logs]
        constant = self.centre * question.weights.sum(axis=1)
        means = np.array([mean for mean, _ in found]) * self.scale + constant
        deviations = np.sqrt([variance for _, variance in found]) * self.scale
        plain = Answer(question.names, means, deviations, shares, np.ones(len(question.names)))
        ratio = self.jackknife(question) / np.maximum(plain.deviation**2, 1e-12 * self.scale**2)
        return replace(plain, stretch=np.sqrt(np.maximum(1, (1 + ratio) / 2)))

    def means(self, question: Question) -> Array:
        """The sums (names,) at the most probable variances alone: quick, for choosing among many."""
        solved = np.linalg.solve(self.inside(self.mode), self.values)
        found: Array = self._across(self.mode, question) @ solved * self.scale
        return found + self.centre * question.weights.sum(axis=1)

    def jackknife(self, question: Question) -> Array:
        """Variance (names,) of the sums over leaving out a pair of complementary sets, or one set without its pair."""
        inverse = np.linalg.inv(self.inside(self.mode))
        reach, solved = self._across(self.mode, question) @ inverse, inverse @ self.values
        moves = [reach[:, out] @ np.linalg.solve(inverse[np.ix_(out, out)], solved[out]) for out in self.pairs]
        found: Array = np.square(moves).sum(axis=0) * (1 - 1 / len(moves)) * self.scale**2
        return found

    def left_out(self) -> Answer:
        """Each trained set's value as predicted from the other sets, its own noise included.

        The variances are those of all sets: they are not fitted anew for each.
        """
        logs, shares = self.draws
        means, deviations = [], []
        for one in logs:
            inverse = np.linalg.inv(self.inside(one))
            own = np.diag(inverse)
            means.append(self.values - inverse @ self.values / own)
            deviations.append(1 / np.sqrt(own))
        return Answer(
            names=tuple("+".join(one) for one in self.sets),
            means=np.array(means) * self.scale + self.centre,
            deviations=np.array(deviations) * self.scale,
            shares=shares,
            stretch=np.ones(len(self.values)),
        )

    @cached_property
    def pairs(self) -> list[list[int]]:
        """The places of the trained sets, those of two sets together where each has what the other lacks."""
        on = [tuple(bool(set(slot) & set(one)) for slot in self.space.slots) for one in self.sets]
        plain = self.space.width == 1
        place = {row: i for i, row in enumerate(on)} if plain else {}
        other = [place.get(tuple(not x for x in row)) for row in on]
        return [[i] if j is None else [i, j] for i, j in enumerate(other) if j is None or i < j]
