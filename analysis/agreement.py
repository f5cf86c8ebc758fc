"""Does a ladder of one's own tell the same story as the published one?"""

from dataclasses import dataclass

import pandas as pd

from analysis import stats
from analysis.gains import GAIN, LOSS
from analysis.ladder import Ladder, recipe_steps

DECIMALS = 6  # of a gain in points: what lies behind is rounding, which would give equal values a sign and an order


@dataclass(frozen=True)
class Agreement:
    """Agreement over the steps that change the network and have a gain in both ladders, each counted once.

    Attributes:
        steps: their names; the recipe's row is apart.
        values: Spearman's rho of the steps' top-1.
        gains: Spearman's rho of the gains over the parents.
        signs: share of steps whose gain has the published sign, with the exact interval; p against one half.
        matching: how many have it.
        clear: the same share among the steps with a verdict (gain or loss).
        recipe_gain, paper_recipe_gain: the recipe's gain here and as published, points.
    """

    steps: tuple[str, ...]
    values: stats.Interval
    gains: stats.Interval
    signs: stats.Interval
    matching: int
    clear: stats.Interval
    clear_steps: int
    recipe_gain: float
    paper_recipe_gain: float


def agreement_of(ladder: Ladder) -> Agreement | None:
    """Compare a ladder with the published one; None below three gains. A gain of exactly 0 matches nothing."""
    table = ladder.table
    recipe = table["step"].isin(recipe_steps(ladder.road))
    both = table[~recipe & table["gain"].notna() & table["paper_gain"].notna()]
    if len(both) < 3:
        return None
    gain, paper_gain = both["gain"].round(DECIMALS), both["paper_gain"].round(DECIMALS)
    same = gain * paper_gain > 0
    clear = both["verdict"].isin((GAIN, LOSS))

    def first(column: pd.Series) -> float:
        return float(column[recipe].iloc[0]) if recipe.any() else float("nan")

    return Agreement(
        steps=tuple(both["step"]),
        values=stats.rank_correlation(both["top1"].tolist(), both["paper_top1"].tolist()),
        gains=stats.rank_correlation(gain.tolist(), paper_gain.tolist()),
        signs=stats.share(int(same.sum()), len(both)),
        matching=int(same.sum()),
        clear=stats.share(int((same & clear).sum()), int(clear.sum())),
        clear_steps=int(clear.sum()),
        recipe_gain=first(table["gain"]),
        paper_recipe_gain=first(table["paper_gain"]),
    )
