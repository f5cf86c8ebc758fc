"""Everything that the runs of one group say about sets of changes: which studies are there, and their effects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.attribution import factorial, interactions, shapley, single
from analysis.attribution.game import PLAYERS, Effects, Game, game_of
from analysis.groups import Group
from analysis.ladder import Ladder
from roadmap import STEPS

LADDER, ALONE, LAST, SHAPLEY, FACTORIAL = "in the ladder", "alone", "left out", "Shapley value", "factorial"


@dataclass(frozen=True)
class Attribution:
    """The answers; a part is None or empty where its runs are not complete.

    Attributes:
        effects: gain of each change by method (LADDER, ALONE, LAST, SHAPLEY, FACTORIAL).
        how: method -> how it was computed, in words.
        pairs: interactions of all pairs of changes, names "a × b"; `pairs_how` says from what.
        positions: gain of each change in each sampled order.
        contexts: second differences in the contexts that were trained.
        techniques: gains of the recipe's techniques by "recipe, network".
        diverged: sets of changes with a diverged run.
    """

    game: Game
    effects: Mapping[str, Effects]
    how: Mapping[str, str]
    pairs: Effects | None
    pairs_how: str
    positions: pd.DataFrame | None
    contexts: Effects | None
    techniques: Mapping[str, Effects]
    diverged: tuple[str, ...]


def attribution_of(group: Group, ladder: Ladder, settings_of: Callable[[str], Mapping[str, Any]]) -> Attribution | None:
    """The attribution of a group, None where it holds nothing but ladder steps."""
    runs = group.runs[group.runs["recipe"] == STEPS[-1].recipe]
    techniques = single.technique_effects(group.runs, group.other, settings_of)
    everything = game_of(runs)
    off_ladder = bool(runs["step"].isna().any())
    if everything is None or not (off_ladder or techniques):
        return None
    effects, how, orders = _effects(game_of(runs, PLAYERS), everything, ladder) if off_ladder else ({}, {}, None)
    whole = game_of(runs, PLAYERS)
    pairs, pairs_how = _pairs(everything, whole) if off_ladder else (None, "")
    return Attribution(
        game=everything,
        effects=effects,
        how=how,
        pairs=pairs,
        pairs_how=pairs_how,
        positions=shapley.gains_by_position(whole, orders) if whole is not None and orders is not None else None,
        contexts=interactions.second_differences(everything) if off_ladder else None,
        techniques=techniques,
        diverged=tuple(" + ".join(one) or "no change" for one in everything.diverged),
    )


def _effects(
    whole: Game | None, everything: Game, ladder: Ladder
) -> tuple[dict[str, Effects], dict[str, str], shapley.Orders | None]:
    """The gains of single changes by every method whose runs are there, each with a word on how."""
    effects: dict[str, Effects] = {}
    how: dict[str, str] = {}
    orders = None
    if whole is not None:
        for name, found, words in (
            (ALONE, single.add_one_in(whole), "ResNet under the enhanced recipe plus the change alone"),
            (LAST, single.leave_one_out(whole), "ConvNeXt minus ConvNeXt without the change"),
        ):
            if found is not None:
                effects[name], how[name] = found, words
        orders = None if shapley.is_complete(whole) else shapley.find_orders(whole)
        if orders is not None:
            effects[SHAPLEY] = shapley.shapley_of(whole, orders)
            how[SHAPLEY] = f"mean gain over {len(orders.orders)} random orders in {orders.pairs} antithetic pairs"
        if factorial.is_there(whole):
            effects[FACTORIAL] = factorial.factorial_of(whole)
            how[FACTORIAL] = "mean with minus mean without the change over the 32 runs of a resolution-IV design"
    if SHAPLEY not in effects and shapley.is_complete(everything):
        effects[SHAPLEY] = shapley.shapley_of(everything, None)
        how[SHAPLEY] = f"exact, from all {2 ** len(everything.players)} sets of {', '.join(everything.players)}"
    if effects:
        effects = {LADDER: _in_ladder(ladder), **effects}
        how = {LADDER: "over the step before, in the paper's order", **how}
    return effects, how, orders


def _in_ladder(ladder: Ladder) -> Effects:
    """The ladder's own gains of the changes, in the form of the other methods."""
    rows = ladder.table[ladder.table["step"].isin(PLAYERS)]
    gain, low, high, p = (rows[name].to_numpy(np.float64) for name in ("gain", "gain_low", "gain_high", "p"))
    lost = tuple((rows["verdict"] == "diverged").tolist())
    return Effects(tuple(rows["step"]), gain, low, high, p, lost, int(rows["n"].min()), float(rows["mde"].median()))


def _pairs(everything: Game, whole: Game | None) -> tuple[Effects | None, str]:
    """Interactions of all pairs: exact where all subsets are there, else fitted to the sets that are."""
    if len(everything.players) >= 2 and shapley.is_complete(everything):
        return interactions.interactions_of(everything), "exact: the Shapley interaction index over all subsets"
    fitted = interactions.fitted_interactions(whole) if whole is not None and not whole.diverged else None
    if fitted is None or not np.isfinite(fitted.estimate).any():
        return None, ""
    count = len(whole.sets) if whole is not None else 0
    return fitted, f"fitted: changes and pairs of changes to the {count} sets that were trained"
