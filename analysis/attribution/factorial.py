"""Main effects from the 32-run fractional factorial: what a change brings on average over all contexts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats as distributions

from analysis.attribution.game import Effects, Game, Set, linear_effects
from analysis.stats import CONFIDENCE, Array, detectable
from roadmap import subsets


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


def factorial_contrasts(players: Sequence[str]) -> Contrasts:
    """The contrasts of `roadmap.subsets.factorial`."""
    words = subsets.factorial_words(players)
    base = np.array([[1 if run >> factor & 1 else -1 for factor in range(5)] for run in range(subsets.RUNS)])
    odd = [word for size in (1, 3, 5) for word in combinations(range(5), size)]
    columns = {word: base[:, list(word)].prod(axis=1) * 2 / subsets.RUNS for word in odd}
    held = dict.fromkeys(odd, 0)
    for team in combinations(words.values(), 3):
        held[tuple(sorted(set(team[0]) ^ set(team[1]) ^ set(team[2])))] += 1
    idle = [word for word in odd if word not in set(words.values())]
    return Contrasts(
        sets=subsets.factorial(players),
        main=np.array([columns[words[player]] for player in players]),
        idle=np.array([columns[word] for word in idle]).reshape(-1, subsets.RUNS),
        triples=np.array([held[words[player]] for player in players], dtype=np.float64),
        idle_triples=float(np.mean([held[word] for word in idle])) if idle else 0.0,
    )


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
    df = variance**2 / (
        noise**2 / (noise_df if noise_df >= 1 else len(contrasts.idle)) + alias**2 / len(contrasts.idle)
    )
    half = distributions.t.ppf((1 + CONFIDENCE) / 2, df) * np.sqrt(variance)
    return effect, effect - half, effect + half


def is_there(game: Game) -> bool:
    """Whether all runs of the factorial were trained."""
    return 5 < len(game.players) <= 16 and set(subsets.factorial(game.players)) <= game.known


def factorial_of(game: Game) -> Effects:
    """Main effects; with a diverged run bounds, without at least two idle columns the noise of the seeds alone."""
    contrasts = factorial_contrasts(game.players)
    plain = linear_effects(game, game.players, contrasts.sets, contrasts.main)
    if any(plain.bounded) or len(contrasts.idle) < 2:
        return plain
    place = game.columns(contrasts.sets)
    full = np.zeros((1, len(game.sets)))
    full[0, place] = contrasts.main[0]
    noise = game.means.contrast(full)[1][0] ** 2
    effect, low, high = effects_from(game.means.mean[place], contrasts, np.asarray(noise), game.means.df)
    t = distributions.t.ppf((1 + CONFIDENCE) / 2, len(contrasts.idle))
    p = 2 * distributions.t.sf(np.abs(effect) * t / np.maximum((high - low) / 2, 1e-12), len(contrasts.idle))
    mde = detectable(float(np.median(high - low)) / 2 / t, len(contrasts.idle))
    return Effects(game.players, effect, low, high, p, plain.bounded, plain.n, mde)
