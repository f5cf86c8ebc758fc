"""Do two changes help or hinder each other?"""

from itertools import combinations

import numpy as np
from scipy import stats as distributions

from analysis.attribution.game import Effects, Game, linear_effects
from roadmap import label_of
from roadmap.effects import contrasts
from roadmap.effects.noise import Array, quantile

LEAST_DF = 5  # residual degrees of freedom below which a fit says too little


def interactions_of(game: Game) -> Effects:
    """The exact interaction of each pair of players where all subsets were trained (names "a × b")."""
    sets, weights = contrasts.interaction_weights(game.players)
    names = [f"{a} × {b}" for a, b in combinations(game.players, 2)]
    return linear_effects(game, names, sets, weights)


def fitted_interactions(game: Game) -> Effects | None:
    """Interactions of all pairs from a fit of v = constant + changes + pairs to whatever sets were trained.

    The residual holds the noise and what interactions of three and more add, so the interval covers both. Pairs that
    the sets cannot tell from others are NaN; None where the fit leaves fewer than LEAST_DF degrees of freedom.
    """
    pairs = list(combinations(range(len(game.players)), 2))
    if not pairs:
        return None
    trained = len(game.sets) - game.aliases  # what is known twice tells nothing twice
    member = np.array([[player in one for player in game.players] for one in game.sets[:trained]], dtype=np.float64)
    design = np.hstack(
        [np.ones((len(member), 1)), member, np.stack([member[:, a] * member[:, b] for a, b in pairs], 1)]
    )
    inverse = np.linalg.pinv(design)
    df = len(design) - np.linalg.matrix_rank(design)
    if df < LEAST_DF:
        return None
    estimate, low, high, p = fit_pairs(game.means.mean[..., :trained], design, inverse, int(df), len(pairs))
    names = tuple(f"{game.players[a]} × {game.players[b]}" for a, b in pairs)
    return Effects(names, estimate, low, high, p, (False,) * len(pairs), game.least_runs)


def fit_pairs(values: Array, design: Array, inverse: Array, df: int, pairs: int) -> tuple[Array, Array, Array, Array]:
    """Estimate, low, high, p (..., pairs) of the last `pairs` coefficients; NaN for those that are not estimable."""
    beta = values @ inverse.T
    residual = values - beta @ design.T
    sigma = np.sqrt((residual**2).sum(axis=-1, keepdims=True) / df)
    error = sigma * np.sqrt((inverse**2).sum(axis=1))[-pairs:]
    projection = (inverse @ design)[-pairs:]
    unit = np.eye(design.shape[1])[-pairs:]
    estimable = np.abs(projection - unit).max(axis=1) < 1e-8
    estimate = np.where(estimable, beta[..., -pairs:], np.nan)
    half = quantile(df) * error
    p = 2 * distributions.t.sf(np.abs(estimate) / np.maximum(error, 1e-12), df)
    return estimate, estimate - half, estimate + half, p


def second_differences(game: Game) -> Effects | None:
    """v(both) - v(one) - v(other) + v(neither) for every pair and context of which all four sets were trained.

    Contexts that lie on the ladder alone give none. This answers questions such as "does the large kernel need the
    moved-up depthwise layer?" without any model.
    """
    found = contrasts.second_differences(game.known)
    if not found:
        return None
    contexts = {d: label_of((*game.base, *d.context)) if game.base or d.context else "ResNet" for d in found}
    names = [f"{d.first} × {d.second} on {contexts[d]}" for d in found]
    places = {one: i for i, one in enumerate(sorted(game.known))}
    weights = np.zeros((len(found), len(places)))
    for row, difference in zip(weights, found, strict=True):
        for one, sign in difference.terms:
            row[places[one]] = sign
    chosen = sorted(range(len(names)), key=names.__getitem__)
    return linear_effects(game, [names[i] for i in chosen], list(places), weights[chosen])
