"""Does a ladder of one's own tell the same story as the published one?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from analysis.gains import DIVERGED, gain_weights
from analysis.ladder import Ladder, recipe_steps
from analysis.published import published_means, published_regime
from analysis.stats import Interval
from roadmap.effects import agreement
from roadmap.effects.agreement import Reading
from roadmap.effects.noise import Array, Means
from roadmap.steps import Roadmap


@dataclass(frozen=True)
class Agreement:
    """Spearman's rho of the gains over the parents with the published ones, over the steps that change the network.

    Attributes:
        steps: the steps with a gain in both ladders and no diverged run on either side; the recipe's row is apart.
        over_steps: rho, with the interval over steps.
        over_noise: rho, with the interval over the noise of the runs, one's own and the published.
        ceiling: the mean and the range of rho over that noise if the noise-free gains had the very same order.
        regimes: rho of two regimes that were published, over steps; `regime_names` names them. None without two.
        recipe_gain, paper_recipe_gain: the recipe's gain here and as published, points.
        recipe_difference: how far they are apart, with its interval.
    """

    steps: tuple[str, ...]
    over_steps: Interval
    over_noise: Interval
    ceiling: Interval
    regimes: Interval | None
    regime_names: tuple[str, ...]
    recipe_gain: float
    paper_recipe_gain: float
    recipe_difference: Interval


def agreement_of(ladder: Ladder) -> Agreement | None:
    """Compare a ladder with the published one; None below three gains."""
    table = ladder.table
    recipe = table["step"].isin(recipe_steps(ladder.road))
    both = table[~recipe & table["gain"].notna() & table["paper_gain"].notna() & (table["verdict"] != DIVERGED)]
    means, places = published_means(ladder.road, published_regime(ladder.road, ladder.regime))
    if len(both) < agreement.LEAST or ladder.means is None or means is None:
        return None
    rows = list(both.itertuples())
    ours = Reading(both["gain"].to_numpy(np.float64), _covariance(ladder.means, ladder.cells, rows))
    theirs = Reading(both["paper_gain"].to_numpy(np.float64), _covariance(means, places, rows))
    rho = float(agreement.rank_correlation(ours.gains, theirs.gains))
    defined = math.isfinite(rho)
    own = next(table[recipe].itertuples(), None)
    names, regimes = _regimes(ladder.road)
    return Agreement(
        steps=tuple(both["step"]),
        over_steps=Interval(rho, *agreement.over_steps(rho, len(both))),
        over_noise=Interval(rho, *(agreement.over_noise(ours, theirs) if defined else (math.nan, math.nan))),
        ceiling=Interval(*(agreement.ceiling(ours, theirs) if defined else (math.nan,) * 3)),
        regimes=regimes,
        regime_names=names,
        recipe_gain=math.nan if own is None else own.gain,
        paper_recipe_gain=math.nan if own is None else own.paper_gain,
        recipe_difference=Interval(*_difference(own)),
    )


def _difference(row: Any) -> tuple[float, float, float]:
    if row is None:
        return math.nan, math.nan, math.nan
    low, high = (getattr(row, f"gain_difference_{end}", math.nan) for end in ("low", "high"))
    return row.gain_difference, low, high


def _covariance(means: Means, cells: dict[str, int], rows: Sequence[Any]) -> Array:
    """Covariance (rows, rows) of the gains' noise; NaN where it is unknown: one seed, or no spread at all."""
    found = [gain_weights(row, cells) for row in rows]
    weights = np.vstack([one for one in found if one is not None])
    sigma = float(means.sigma) if means.df >= 1 and means.sigma > 0 else math.nan
    covariance: Array = sigma**2 * (weights @ means.unscaled @ weights.T)
    return covariance


def _regimes(road: Roadmap) -> tuple[tuple[str, ...], Interval | None]:
    """Rho of the gains that were published in two regimes, each over its own parents: what a change of scale leaves."""
    apart = (road.root.name, *recipe_steps(road))
    for first, second in combinations(road.regimes, 2):
        gains = []
        for step in road.steps:
            rows = [road.row(name, regime) for regime in (first, second) for name in (step.name, step.parent) if name]
            if step.name not in apart and len(rows) == 4 and None not in rows:
                gains.append([rows[0].top1 - rows[1].top1, rows[2].top1 - rows[3].top1])  # type: ignore[union-attr]
        if len(gains) >= agreement.LEAST:
            one, other = np.array(gains).T
            rho = float(agreement.rank_correlation(one, other))
            return (first, second), Interval(rho, *agreement.over_steps(rho, len(gains)))
    return (), None
