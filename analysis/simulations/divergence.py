"""Shapley values from random orders when a set has diverged: do the intervals of the others hold the true values?"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from analysis.attribution.game import Game, linear_effects
from analysis.attribution.shapley import sampled_shapley
from roadmap.effects.contrasts import order_weights
from roadmap.effects.noise import AdditiveModel, Array
from roadmap.effects.subsets import orders, sets_of_orders

HEAD = ("sets", "holds the truth", "changes with a number", "by the noise of runs alone")
PLAYERS = tuple("abcdefgh")
PAIRS = 5  # of orders; a pair forwards and backwards leaves no spread of teams of two
TEAMS = tuple(combinations(PLAYERS, 3))
IN_TEAM = np.array([[name in team for name in PLAYERS] for team in TEAMS], dtype=np.float64)
SEEDS, NOISE = 2, 0.1


def rows(count: int) -> Iterator[tuple[str, ...]]:
    """A row without and one with a diverged set."""
    for words, lost in (("no set diverged", 0), ("one set diverged", 1)):
        random = np.random.default_rng(0)
        held: list[bool] = []
        plain: list[bool] = []
        kept: list[float] = []
        for i in range(count):
            singles = 0.5 * random.standard_normal(len(PLAYERS))
            threes = 0.3 * random.standard_normal(len(TEAMS))
            drawn = orders(PLAYERS, 2 * PAIRS, seed=i)
            game = _game(singles, threes, sets_of_orders(drawn, PLAYERS), lost, random)
            sets, weights = order_weights(drawn, PLAYERS)
            truth = singles + IN_TEAM.T @ threes / 3
            for effects, into in (
                (sampled_shapley(game, drawn), held),
                (linear_effects(game, PLAYERS, sets, weights.mean(axis=0)), plain),
            ):
                known = ~np.array(effects.lost)
                into += ((effects.low <= truth) & (truth <= effects.high))[known].tolist()
            kept.append(float(known.mean()))
        yield words, f"{np.mean(held):.1%}", f"{np.mean(kept):.0%}", f"{np.mean(plain):.1%}"


def _game(singles: Array, threes: Array, sets: list[tuple[str, ...]], lost: int, random: np.random.Generator) -> Game:
    """A game of single changes and teams of three, with runs of every set but `lost` of the middle ones."""
    middle = [one for one in sets if 1 < len(one) < len(PLAYERS) - 1]
    diverged = tuple(middle[i] for i in random.permutation(len(middle))[:lost])
    known = [one for one in sets if one not in diverged]
    member = np.array([[name in one for name in PLAYERS] for one in known], dtype=np.float64)
    values = 80 + member @ singles + (member @ IN_TEAM.T == 3) @ threes
    cells, seeds = np.divmod(np.arange(len(known) * SEEDS), SEEDS)
    top1 = values[cells] + NOISE * random.standard_normal(len(cells))
    means = AdditiveModel(cells.tolist(), seeds.tolist()).fit(top1)
    return Game(PLAYERS, tuple(known), means, (SEEDS,) * len(known), diverged)
