"""Games with known Shapley values, to hold methods of attribution against: named kinds, drawn by a seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from roadmap.effects.noise import Array
from roadmap.effects.subsets import Set

Worth = Callable[[Array], Array]  # membership (N, players) of 0 and 1 -> values (N,)


@dataclass(frozen=True)
class Kind:
    """A kind of game.

    Attributes:
        players: how many.
        noise: standard deviation of one run.
        draw: a game of this kind.
    """

    players: int
    noise: float
    draw: Callable[[np.random.Generator, int], Worth]


def _additive(random: np.random.Generator, k: int) -> Worth:
    """Every player brings what it brings, about 1."""
    gains = random.standard_normal(k)
    return lambda member: member @ gains


def _pairwise(random: np.random.Generator, k: int) -> Worth:
    """Besides, every pair brings about 0.5."""
    gains, pairs = random.standard_normal(k), np.triu(0.5 * random.standard_normal((k, k)), 1)
    return lambda member: member @ gains + ((member @ pairs) * member).sum(axis=1)


def _strong(random: np.random.Generator, k: int) -> Worth:
    """Besides, pairs of about 0.6, and one team of three in four of about 0.4."""
    sizes = {1: (1.0, 1.0), 2: (0.6, 1.0), 3: (0.4, 0.25)}
    teams = [
        (list(team), deviation * random.standard_normal())
        for size, (deviation, share) in sizes.items()
        for team in combinations(range(k), size)
        if random.random() < share
    ]
    return lambda member: sum((worth * member[:, team].prod(axis=1) for team, worth in teams), np.zeros(len(member)))


def _threshold(random: np.random.Generator, k: int) -> Worth:
    """A jump of 4 where the players' weights exceed half of their sum, and gains of about 0.3."""
    weights, gains = random.exponential(size=k), 0.3 * random.standard_normal(k)
    return lambda member: member @ gains + 4.0 * (member @ weights > weights.sum() / 2)


def _ladder(random: np.random.Generator, k: int) -> Worth:
    """Gains that fade as they add up, and three changes that harm where another is missing."""
    gains, odd = np.abs(0.15 + 0.15 * random.standard_normal(k)), 0.2 * random.standard_normal(k)
    needs, harm = random.permutation(k)[:6].reshape(3, 2), random.uniform(0.5, 2, size=3)

    def worth(member: Array) -> Array:
        alone = member[:, needs[:, 0]] * (1 - member[:, needs[:, 1]])
        found: Array = 10 * (1 - np.exp(-member @ gains)) + member @ odd - alone @ harm
        return found

    return worth


KINDS: Mapping[str, Kind] = {
    "additive": Kind(12, 0.2, _additive),
    "pairwise": Kind(12, 0.2, _pairwise),
    "strong interactions": Kind(12, 0.2, _strong),
    "threshold": Kind(12, 0.2, _threshold),
    "ladder-like": Kind(15, 0.2, _ladder),
}


class DrawnGame:
    """One game of a kind; the value of a set is trained once and then known.

    Args:
        kind: one of `KINDS`.
        seed: which game.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self.kind = KINDS[kind]
        number = list(KINDS).index(kind)
        self.players: Set = tuple(f"p{i:02}" for i in range(self.kind.players))
        self.worth = self.kind.draw(np.random.default_rng([number, seed, 0]), self.kind.players)
        self._noise = np.random.default_rng([number, seed, 1])
        self._trained: dict[Set, float] = {}

    def member(self, sets: list[Set]) -> Array:
        """Sets as rows (N, players) of 0 and 1."""
        return np.array([[name in one for name in self.players] for one in sets], dtype=np.float64)

    def trained(self, sets: list[Set]) -> Array:
        """What one run of each set gives (N,)."""
        for one, value in zip(sets, self.worth(self.member(sets)).tolist(), strict=True):
            if one not in self._trained:
                self._trained[one] = value + self.kind.noise * self._noise.standard_normal()
        return np.array([self._trained[one] for one in sets])

    def shapley(self) -> Array:
        """The true Shapley values (players,)."""
        k = len(self.players)
        member = ((np.arange(2**k)[:, None] >> np.arange(k)) & 1).astype(np.float64)
        size = member.sum(axis=1).astype(int)
        # of all orders, the share in which a player comes after s given others: as in `contrasts.shapley_weights`
        share = np.array([1 / (k * comb(k - 1, s)) for s in range(k)])
        signed = np.where(member > 0, share[size - 1][:, None], -share[np.minimum(size, k - 1)][:, None])
        found: Array = self.worth(member) @ signed
        return found
