"""Shapley values: the gain of a change averaged over all orders of adding them, exactly or from sampled orders."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats as distributions

from analysis.attribution.game import Effects, Game, Set, linear_effects
from analysis.stats import CONFIDENCE, Array, Means, detectable
from roadmap import subsets

MOST_ORDERS = 100
SEEDS = range(10)  # seeds of `subsets.orders` that are looked for in the runs


@dataclass(frozen=True)
class Orders:
    """Complete antithetic pairs of orders, every set of which was trained."""

    seed: int
    orders: tuple[Set, ...]

    @property
    def pairs(self) -> int:
        """How many pairs of an order and its reverse."""
        return len(self.orders) // 2


def exact_weights(players: Sequence[str]) -> tuple[list[Set], Array]:
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


def pair_weights(orders: Sequence[Set], players: Sequence[str]) -> tuple[list[Set], Array]:
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


def over_pairs(weights: Array, means: Means) -> tuple[Array, Array, Array]:
    """Value, low, high (..., players) by Student's t over the pairs, plus the noise that all pairs share.

    The spread of the pairs holds what the order does and the noise of runs that only one pair uses. Runs that several
    pairs use (the empty and the full set are in all) make their values err together, which no spread shows; their part
    of the variance is added from the noise of the seeds. Degrees of freedom after Welch and Satterthwaite. Without an
    estimate of the noise (one seed) this part is missing.
    """
    pairs = len(weights)
    each = np.einsum("pks,...s->...pk", weights, means.mean)
    value, spread = each.mean(axis=-2), each.var(axis=-2, ddof=1) / pairs
    mean_weights = weights.mean(axis=0)
    shared = np.einsum("ks,st,kt->k", mean_weights, means.unscaled, mean_weights)
    single = np.einsum("pks,st,pkt->k", weights, means.unscaled, weights)
    extra = np.maximum(0, pairs**2 * shared - single) / (pairs * (pairs - 1))
    noise = (np.asarray(means.sigma)[..., None] ** 2 if means.df >= 1 else 0.0) * extra
    variance = spread + noise
    with np.errstate(divide="ignore", invalid="ignore"):
        df = variance**2 / (spread**2 / (pairs - 1) + noise**2 / max(means.df, 1))
    df = np.where(variance > 0, df, pairs - 1)
    half = distributions.t.ppf((1 + CONFIDENCE) / 2, df) * np.sqrt(variance)
    return value, value - half, value + half


def find_orders(game: Game) -> Orders | None:
    """The orders that the runs hold: of all seeds tried, the one with most complete pairs; None below two pairs."""
    best: Orders | None = None
    for seed in SEEDS:
        found: list[Set] = []
        while len(found) < MOST_ORDERS:
            pair = subsets.orders(game.players, len(found) + 2, seed)[-2:]
            if not set(subsets.sets_of_orders(pair, game.players)) <= game.known:
                break
            found += pair
        if len(found) >= 4 and (best is None or len(found) > len(best.orders)):
            best = Orders(seed, tuple(found))
    return best


def is_complete(game: Game) -> bool:
    """Whether all subsets of the players were trained."""
    return 2 ** len(game.players) <= len(game.known) and set(subsets.all_subsets(game.players)) <= game.known


def shapley_of(game: Game, orders: Orders | None) -> Effects:
    """Shapley values: exact where all subsets were trained (`orders` None), else from sampled orders."""
    if orders is None:
        sets, weights = exact_weights(game.players)
        return linear_effects(game, game.players, sets, weights)
    sets, by_pair = pair_weights(orders.orders, game.players)
    plain = linear_effects(game, game.players, sets, by_pair.mean(axis=0))
    if any(one in game.diverged for one in sets):
        return plain
    full = np.zeros((*by_pair.shape[:2], len(game.sets)))
    full[..., game.columns(sets)] = by_pair
    value, low, high = over_pairs(full, game.means)
    error = (high - low) / 2 / distributions.t.ppf((1 + CONFIDENCE) / 2, max(orders.pairs - 1, 1))
    p = 2 * distributions.t.sf(np.abs(value) / np.where(error > 0, error, np.nan), orders.pairs - 1)
    mde = detectable(float(np.median(error)), orders.pairs - 1)
    return Effects(game.players, value, low, high, p, plain.bounded, plain.n, mde)


def gains_by_position(game: Game, orders: Orders) -> pd.DataFrame:
    """Each change's gain in each order: columns name, order, position (0 first), gain; NaN next to a diverged set."""
    place = {one: i for i, one in enumerate(game.sets)}
    rows = []
    for number, order in enumerate(orders.orders):
        passed = subsets.prefixes(order, game.players)
        values = [game.means.mean[place[one]] if one in place else np.nan for one in passed]
        rows += [(name, number, i, values[i + 1] - values[i]) for i, name in enumerate(order)]
    return pd.DataFrame(rows, columns=["name", "order", "position", "gain"])
