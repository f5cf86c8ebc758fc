"""Sets in complementary pairs that tell most about Shapley values, chosen before anything is trained.

Only the odd part of v, half of v(set) - v(all but the set), has Shapley values, so that a pair cancels every
interaction of an even number of changes. Among drawn pairs the one is taken that takes most from the variance of the
Shapley values under a prior in which teams of three and five matter less and less.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from roadmap.effects.noise import Array
from roadmap.effects.subsets import Set, all_subsets, complement
from roadmap.effects.surrogate import Space, first_of_largest, shapley_values
from roadmap.errors import DesignError

POOL = 128  # pairs that are drawn for each place
PRIOR = {1: 1.0, 3: 0.05, 5: 0.01}  # variances of the odd degrees
NOISE = 0.01  # variance of half a pair's difference


def paired_sets(players: Sequence[str], count: int, seed: int = 0) -> list[Set]:
    """`count` distinct sets: none, all, then a set and its complement, pair after pair; a prefix is a smaller study.

    Everything is drawn by hashes of the seed and the players' names.

    Raises:
        DesignError: fewer than 4 sets, or more than there are.
    """
    players = tuple(players)
    if not 4 <= count <= 2 ** len(players):
        raise DesignError(f"sets={count} must be 4 to {2 ** len(players)}: {len(players)} changes have no more")
    sets: list[Set] = [(), players]
    chooser = _Chooser(players)
    while len(sets) < count:
        drawn = [one for one in drawn_sets(players, seed, len(sets)) if one not in set(sets)]
        if not drawn:  # nearly all of a small game is chosen: what is left, in its order
            drawn = [one for one in all_subsets(players) if one not in set(sets)]
        best = chooser.take(drawn)
        sets += [best, complement(best, players)]
    return sets[:count]


def drawn_sets(players: Set, seed: int, place: int) -> list[Set]:
    """POOL sets for this place: sizes as in Kernel SHAP, 1 / (s (k - s)), players at random."""
    sizes = np.arange(1, len(players))
    below = np.cumsum(1 / (sizes * (len(players) - sizes)))
    found = []
    for draw in range(POOL):
        keys = {name: hashlib.sha256(f"{seed}/{place}/{draw}/{name}".encode()).digest() for name in ("", *players)}
        share = int.from_bytes(keys.pop("")[:6], "big") / 2**48
        size = int(np.searchsorted(below, share * below[-1], side="right")) + 1
        chosen = set(sorted(players, key=keys.__getitem__)[:size])
        found.append(tuple(name for name in players if name in chosen))
    return list(dict.fromkeys(found))


class _Chooser:
    """Takes pairs one by one and keeps what they leave unknown of the Shapley values."""

    def __init__(self, players: Set) -> None:
        self.space = Space(tuple((name,) for name in players))
        self.question = shapley_values(self.space)
        self.points = self.space.points([players])
        self._solve()

    def _kernel(self, first: Array, second: Array) -> Array:
        parts = self.space.degree_kernels(first, second)
        found: Array = sum(
            (variance * parts[degree] for degree, variance in PRIOR.items() if degree < len(parts)),
            start=np.zeros(parts.shape[1:]),
        )
        return found

    def _solve(self) -> None:
        inside = self._kernel(self.points, self.points) + NOISE * np.eye(len(self.points))
        self.inverse = np.linalg.inv(inside)
        self.across = self.question.weights @ self._kernel(self.question.points, self.points)

    def take(self, drawn: Sequence[Set]) -> Set:
        """The set that, with its complement, takes most from the sum of the variances; the first of equals."""
        points = self.space.points(drawn)
        seen = self._kernel(points, self.points)
        variance = sum(PRIOR.get(d, 0.0) for d in range(self.space.degrees + 1)) + NOISE
        left = variance - np.einsum("ij,jk,ik->i", seen, self.inverse, seen)
        unknown = self.question.weights @ self._kernel(self.question.points, points)
        unknown -= self.across @ self.inverse @ seen.T
        gain = (unknown**2).sum(axis=0) / left
        best = first_of_largest(gain)
        self.points = np.concatenate([self.points, points[best : best + 1]])
        self._solve()
        return drawn[best]
