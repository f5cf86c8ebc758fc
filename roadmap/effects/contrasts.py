"""Effects of changes as weighted sums of v(set): which sets count, and with which weights. Sets as in `subsets`.

A study is planned and judged with the same weights: with the noise of a run they give the interval to expect, with the
trained values the effect.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from roadmap.effects import subsets
from roadmap.effects.noise import Array, variances
from roadmap.effects.subsets import Set


def shapley_weights(players: Sequence[str]) -> tuple[list[Set], Array]:
    """All subsets and the weights (players, subsets) that give the Shapley values of any game on them."""
    sets = subsets.all_subsets(players)
    k = len(players)
    weights = np.zeros((k, len(sets)))
    for column, one in enumerate(sets):
        size = len(one)
        for row, player in enumerate(players):
            if player in one:
                weights[row, column] = 1 / (k * math.comb(k - 1, size - 1))
            else:
                weights[row, column] = -1 / (k * math.comb(k - 1, size))
    return sets, weights


def interaction_weights(players: Sequence[str]) -> tuple[list[Set], Array]:
    """All subsets and the weights (pairs of players, subsets) of the Shapley interaction index."""
    sets = subsets.all_subsets(players)
    k = len(players)
    pairs = list(combinations(players, 2))
    weights = np.zeros((len(pairs), len(sets)))
    for column, one in enumerate(sets):
        for row, pair in enumerate(pairs):
            inside = sum(player in one for player in pair)
            context = len(one) - inside
            sign = -1 if inside == 1 else 1
            weights[row, column] = sign / ((k - 1) * math.comb(k - 2, context))
    return sets, weights


def order_weights(orders: Sequence[Set], players: Sequence[str]) -> tuple[list[Set], Array]:
    """The sets that the orders pass and the weights (pairs, players, sets) of the mean gain over a pair of orders."""
    sets = subsets.sets_of_orders(orders, players)
    place = {one: i for i, one in enumerate(sets)}
    weights = np.zeros((len(orders) // 2, len(players), len(sets)))
    for i, order in enumerate(orders):
        passed = subsets.prefixes(order, players)
        for position, player in enumerate(order):
            row = weights[i // 2, list(players).index(player)]
            row[place[passed[position + 1]]] += 0.5
            row[place[passed[position]]] -= 0.5
    return sets, weights


def noise_over_pairs(weights: Array, unscaled: Array) -> tuple[Array, Array]:
    """Variance (players) of the mean over pairs of orders at a noise variance of 1: what their spread shows, the rest.

    The spread of the pairs holds the noise of runs that only one pair uses. Runs that several pairs use (the empty and
    the full set are in all) make their values err together, which no spread shows.
    """
    pairs = len(weights)
    shared = variances(weights.mean(axis=0), unscaled)
    single = variances(weights, unscaled).sum(axis=0)
    hidden = np.maximum(0, pairs**2 * shared - single) / (pairs * (pairs - 1))
    return shared - hidden, hidden


@dataclass(frozen=True)
class Contrasts:
    """The factorial's sets and the weights (…, 32) that turn their values into effects.

    Attributes:
        sets: the 32 sets.
        main: weights of the players' main effects (players, 32).
        idle: weights of the odd products of base factors that no player has (idle, 32). Like a main effect they are
            aliased with interactions of three, so their size shows how far a main effect may be off.
        triples: for each player, how many interactions of three others its main effect is aliased with.
        idle_triples: how many interactions of three an idle column holds on average.
    """

    sets: list[Set]
    main: Array
    idle: Array
    triples: Array
    idle_triples: float


def factorial_contrasts(players: Sequence[str], acting: Sequence[str] | None = None) -> Contrasts:
    """The contrasts of `subsets.factorial(players)`; `acting`: the players that do something (default: all)."""
    words = subsets.factorial_words(players)
    base = np.array([[1 if run >> factor & 1 else -1 for factor in range(5)] for run in range(subsets.RUNS)])
    odd = [word for size in (1, 3, 5) for word in combinations(range(5), size)]
    columns = {word: base[:, list(word)].prod(axis=1) * 2 / subsets.RUNS for word in odd}
    held = dict.fromkeys(odd, 0)
    for team in combinations(words.values(), 3):
        held[tuple(sorted(set(team[0]) ^ set(team[1]) ^ set(team[2])))] += 1
    idle = [word for word in odd if word not in set(words.values())]
    acting = tuple(players if acting is None else acting)
    return Contrasts(
        sets=subsets.restricted(subsets.factorial(players), acting),
        main=np.array([columns[words[player]] for player in acting]),
        idle=np.array([columns[word] for word in idle]).reshape(-1, subsets.RUNS),
        triples=np.array([held[words[player]] for player in acting], dtype=np.float64),
        idle_triples=float(np.mean([held[word] for word in idle])) if idle else 0.0,
    )


@dataclass(frozen=True)
class SecondDifference:
    """v(both) - v(first) - v(second) + v(neither): do two changes help each other in the context of a set?"""

    first: str
    second: str
    context: Set
    terms: tuple[tuple[Set, int], ...]  # the four sets with their signs


def second_differences(sets: Iterable[Set]) -> list[SecondDifference]:
    """Every pair and context of which all four sets are among `sets`; the ladder alone gives none."""
    known = set(sets)
    found = []
    for full in known:
        for first, second in combinations(full, 2):
            left = [subsets.complement(out, full) for out in ((first,), (second,), (first, second))]
            if known.issuperset(left):
                terms = ((full, 1), (left[0], -1), (left[1], -1), (left[2], 1))
                found.append(SecondDifference(first, second, left[2], terms))
    return found
