"""Shapley values: the gain of a change averaged over all orders of adding them, exactly or from sampled orders."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy import stats as distributions

from analysis.attribution.game import Effects, Game, Set, linear_effects
from analysis.planned import Pair
from roadmap.effects import subsets
from roadmap.effects.contrasts import noise_over_pairs, order_weights, shapley_weights
from roadmap.effects.noise import Array, Means, joint_df, quantile
from roadmap.effects.testing import detectable


def over_pairs(weights: Array, means: Means) -> tuple[Array, Array, Array]:
    """Value, low, high (..., players) by Student's t over the pairs, plus the noise that all pairs share.

    The spread of the pairs holds what the order does and the noise of runs that only one pair uses; the rest of the
    noise is added from the seeds. Without an estimate of it (one seed) this part is missing.
    """
    pairs = len(weights)
    each = np.einsum("pks,...s->...pk", weights, means.mean)
    value, spread = each.mean(axis=-2), each.var(axis=-2, ddof=1) / pairs
    hidden = noise_over_pairs(weights, means.unscaled)[1]
    noise = (np.asarray(means.sigma)[..., None] ** 2 if means.df >= 1 else 0.0) * hidden
    variance = spread + noise
    df = np.where(variance > 0, joint_df(spread, pairs - 1, noise, max(means.df, 1)), pairs - 1)
    half = quantile(df) * np.sqrt(variance)
    return value, value - half, value + half


def complete_pairs(game: Game, planned: Iterable[Pair]) -> list[Set]:
    """The planned orders of which every set was trained, pair by pair; none where there are fewer than two pairs."""
    found: dict[frozenset[Set], Pair] = {}
    for pair in planned:
        if not set(game.players) <= set(pair[0]):
            continue
        forward, backward = subsets.restricted(pair, game.players)
        if set(subsets.sets_of_orders((forward, backward), game.players)) <= game.known:
            found.setdefault(frozenset((forward, backward)), (forward, backward))
    return [order for pair in found.values() for order in pair] if len(found) >= 2 else []


def complete_games(game: Game) -> list[Set]:
    """The largest sets of changes of which all subsets were trained, the one with most changes first."""
    complete: set[Set] = set()
    for one in sorted(game.known, key=len):
        if all(one[:i] + one[i + 1 :] in complete for i in range(len(one))):
            complete.add(one)
    whole = [one for one in complete if not any(set(one) < set(other) for other in complete)]
    return sorted((one for one in whole if len(one) >= 2), key=lambda one: (-len(one), one))


def exact_shapley(game: Game) -> Effects:
    """Shapley values of a game of which all subsets were trained."""
    sets, weights = shapley_weights(game.players)
    return linear_effects(game, game.players, sets, weights)


def sampled_shapley(game: Game, orders: Sequence[Set]) -> Effects:
    """Shapley values from antithetic pairs of orders, at least two, of which every set was trained.

    A change next to a diverged set in some order is lost. The others keep all pairs, and with them the spread of the
    pairs, which the noise of the runs alone is no substitute for.
    """
    sets, by_pair = order_weights(orders, game.players)
    plain = linear_effects(game, game.players, sets, by_pair.mean(axis=0))
    lost = np.array(plain.lost)
    if lost.all():
        return plain
    kept = np.array([one not in game.diverged for one in sets])
    full = np.zeros((*by_pair.shape[:2], len(game.sets)))
    full[..., game.columns([one for one, keep in zip(sets, kept, strict=True) if keep])] = by_pair[..., kept]
    value, low, high = (np.where(lost, np.nan, part) for part in over_pairs(full, game.means))
    df = len(by_pair) - 1
    error = (high - low) / 2 / quantile(df)
    p = 2 * distributions.t.sf(np.abs(value) / np.where(error > 0, error, np.nan), df)
    mde = detectable(float(np.nanmedian(error)), df, int((~lost).sum()))
    return Effects(game.players, value, low, high, p, plain.lost, plain.n, mde)


def gains_by_position(game: Game, orders: Sequence[Set]) -> pd.DataFrame:
    """Each change's gain in each order: columns name, order, position (0 first), gain; NaN next to a diverged set."""
    place = {one: i for i, one in enumerate(game.sets)}
    rows = []
    for number, order in enumerate(orders):
        passed = subsets.prefixes(order, game.players)
        values = [game.means.mean[place[one]] if one in place else np.nan for one in passed]
        rows += [(name, number, i, values[i + 1] - values[i]) for i, name in enumerate(order)]
    return pd.DataFrame(rows, columns=["name", "order", "position", "gain"])
