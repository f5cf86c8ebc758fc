"""Main effects from the 32-run fractional factorial: what a change brings on average over all contexts."""

import numpy as np
from scipy import stats as distributions

from analysis.attribution.game import Effects, Game, Set, linear_effects
from roadmap.effects.contrasts import Contrasts, factorial_contrasts
from roadmap.effects.noise import Array, joint_df, quantile
from roadmap.effects.subsets import RUNS
from roadmap.effects.testing import detectable

LEAST_PLAYERS = 5  # of fewer, the 32 runs are all sets several times over


def effects_from(values: Array, contrasts: Contrasts, noise: Array, noise_df: int) -> tuple[Array, Array, Array]:
    """Value, low, high (..., players) from the 32 values (..., 32).

    The error of a main effect is the noise of the runs plus what interactions of three add. The idle columns show the
    sum of both; the noise (variance of one contrast, (...), on `noise_df` degrees of freedom) comes from the seeds.
    With one seed it is taken to be all that the idle columns show, which makes the intervals wider, not narrower.
    """
    effect = values @ contrasts.main.T
    seen = ((values @ contrasts.idle.T) ** 2).mean(axis=-1, keepdims=True)
    noise = np.asarray(noise)[..., None] if noise_df >= 1 else seen
    team = np.maximum(0, seen - noise) / max(contrasts.idle_triples, 1)
    alias = contrasts.triples * team
    variance = noise + alias
    df = joint_df(noise, noise_df if noise_df >= 1 else len(contrasts.idle), alias, len(contrasts.idle))
    half = quantile(df) * np.sqrt(variance)
    return effect, effect - half, effect + half


def find_factorial(game: Game, planned: Set) -> Contrasts | None:
    """The factorial over a roadmap's changes where all its runs were trained; in `game`, some may have no effect."""
    if not LEAST_PLAYERS <= len(planned) <= RUNS // 2 or not set(game.players) <= set(planned):
        return None
    contrasts = factorial_contrasts(planned, game.players)
    return contrasts if set(contrasts.sets) <= game.known else None


def factorial_of(game: Game, contrasts: Contrasts) -> Effects:
    """Main effects; none with a diverged run; without at least two idle columns the noise of the seeds alone."""
    plain = linear_effects(game, game.players, contrasts.sets, contrasts.main)
    if any(plain.lost) or len(contrasts.idle) < 2:
        return plain
    place = game.columns(contrasts.sets)
    full = np.zeros((1, len(game.sets)))
    full[0, place] = contrasts.main[0]
    noise = game.means.contrast(full)[1][0] ** 2
    effect, low, high = effects_from(game.means.mean[place], contrasts, np.asarray(noise), game.means.df)
    t = float(quantile(len(contrasts.idle)))
    p = 2 * distributions.t.sf(np.abs(effect) * t / np.maximum((high - low) / 2, 1e-12), len(contrasts.idle))
    mde = detectable(float(np.median(high - low)) / 2 / t, len(contrasts.idle), len(effect))
    return Effects(game.players, effect, low, high, p, plain.lost, plain.n, mde)
