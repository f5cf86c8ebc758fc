"""Everything that the runs of one group say about sets of changes: which studies are there, and their effects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.attribution import factorial, interactions, shapley, single
from analysis.attribution.game import Effects, Game, Set, game_of, players_of
from analysis.attribution.predicted import Predicted, predicted_of
from analysis.collect import Collection
from analysis.gains import NO_EFFECT
from analysis.groups import Group
from analysis.ladder import Ladder
from roadmap.steps import Roadmap

LADDER, ALONE, LAST, FACTORIAL = "in the ladder", "alone", "left out", "factorial"
SHAPLEY, EXACT, FITTED = "Shapley value", "Shapley value, exact", "Shapley value, fitted"


@dataclass(frozen=True)
class Attribution:
    """The answers; a part is None or empty where its runs are not complete.

    Attributes:
        effects: gain of each change by method (LADDER, ALONE, LAST, SHAPLEY, EXACT, FACTORIAL, FITTED).
        how: method -> how it was computed, in words.
        pairs: interactions of all pairs of `paired`, names "a × b"; `pairs_how` says from what.
        positions: gain of each change in each sampled order.
        contexts: second differences in the contexts that were trained.
        techniques: gains of the recipe's techniques by "recipe, network".
        diverged: sets of changes with a diverged run.
        predicted: what all sets together say of changes and of untrained sets.
    """

    game: Game
    effects: Mapping[str, Effects]
    how: Mapping[str, str]
    pairs: Effects | None
    pairs_how: str
    paired: Set
    positions: pd.DataFrame | None
    contexts: Effects | None
    techniques: Mapping[str, Effects]
    diverged: tuple[str, ...]
    predicted: Predicted | None = None


def attribution_of(group: Group, ladder: Ladder, collection: Collection) -> Attribution | None:
    """The attribution of a group, None where it holds nothing but ladder steps."""
    road, idle = group.road, group.idle
    runs = group.runs[group.runs["recipe"] == road.end.recipe]
    techniques = single.technique_effects(group.runs, group.other, collection.settings_of)
    everything = game_of(runs, None, road, idle)
    off_ladder = bool(runs["step"].isna().any())
    if everything is None or not (off_ladder or techniques):
        return None
    whole = game_of(runs, players_of(road, idle), road, idle)
    exact = _exact_game(runs, everything, group) if off_ladder else None
    orders = shapley.complete_pairs(whole, collection.orders) if whole is not None and off_ladder else []
    effects, how = _effects(whole, exact, orders, ladder, road) if off_ladder else ({}, {})
    predicted = predicted_of(everything, road) if off_ladder else None
    if predicted is not None:
        in_ladder = {} if effects else {LADDER: _in_ladder(ladder)}
        effects = {**in_ladder, **effects, FITTED: predicted.effects}
        how = {**({LADDER: _order(ladder)} if in_ladder else {}), **how, FITTED: _fitted_from(predicted)}
    pairs, pairs_how, paired = _pairs(exact, whole) if off_ladder else (None, "", ())
    return Attribution(
        game=everything,
        effects=effects,
        how=how,
        pairs=pairs,
        pairs_how=pairs_how,
        paired=paired,
        positions=shapley.gains_by_position(whole, orders) if whole is not None and orders else None,
        contexts=interactions.second_differences(everything) if off_ladder else None,
        techniques=techniques,
        diverged=tuple(" + ".join(one) or "no change" for one in everything.diverged),
        predicted=predicted,
    )


def _exact_game(runs: pd.DataFrame, everything: Game, group: Group) -> Game | None:
    """The game of most changes of which all subsets were trained.

    Two changes alone are no game of their own where there are others: leaving one out of two is in other tables.
    """
    for players in shapley.complete_games(everything)[:1]:
        if len(players) > 2 or set(players) == set(everything.players):
            return game_of(runs, players, group.road, group.idle)
    return None


def _effects(
    whole: Game | None, exact: Game | None, orders: Sequence[Set], ladder: Ladder, road: Roadmap
) -> tuple[dict[str, Effects], dict[str, str]]:
    """The gains of single changes by every method whose runs are there, each with a word on how."""
    effects: dict[str, Effects] = {}
    how: dict[str, str] = {}
    if whole is not None:
        for name, found, words in (
            (ALONE, single.add_one_in(whole), f"{road.root.name} under recipe={road.end.recipe} plus the change alone"),
            (LAST, single.leave_one_out(whole), f"{road.end.name} minus the same without the change"),
        ):
            if found is not None:
                effects[name], how[name] = found, words
        if orders:
            effects[SHAPLEY] = shapley.sampled_shapley(whole, orders)
            pairs = len(orders) // 2
            how[SHAPLEY] = f"mean gain over {len(orders)} random orders in {pairs} antithetic pairs"
        contrasts = factorial.find_factorial(whole, road.players)
        if contrasts is not None:
            effects[FACTORIAL] = factorial.factorial_of(whole, contrasts)
            how[FACTORIAL] = "mean with minus mean without the change over the 32 runs of a resolution-IV design"
    if exact is not None:
        effects[EXACT] = shapley.exact_shapley(exact)
        how[EXACT] = f"from all {2 ** len(exact.players)} sets of {', '.join(exact.players)}"
    if effects:
        effects = {LADDER: _in_ladder(ladder), **effects}
        how = {LADDER: _order(ladder), **how}
    return effects, how


def _order(ladder: Ladder) -> str:
    order = f"the {ladder.publication}'s order" if ladder.road.rows else "the roadmap's order"
    return f"over the step before, in {order}"


def _fitted_from(predicted: Predicted) -> str:
    return f"a Gaussian process over sets of changes, given the {predicted.trained} sets that finished"


def _in_ladder(ladder: Ladder) -> Effects:
    """The ladder's own gains of the changes, in the form of the other methods."""
    rows = ladder.table[ladder.table["step"].isin(ladder.road.players) & (ladder.table["status"] != NO_EFFECT)]
    gain, low, high, p = (rows[name].to_numpy(np.float64) for name in ("gain", "gain_low", "gain_high", "p"))
    lost = tuple((rows["verdict"] == "diverged").tolist())
    return Effects(tuple(rows["step"]), gain, low, high, p, lost, int(rows["n"].min()), float(rows["mde"].median()))


def _pairs(exact: Game | None, whole: Game | None) -> tuple[Effects | None, str, Set]:
    """Interactions of all pairs of some changes: exact where all their subsets are there, else fitted."""
    if exact is not None:
        how = "exact: the Shapley interaction index over all subsets"
        return interactions.interactions_of(exact), how, exact.players
    fitted = interactions.fitted_interactions(whole) if whole is not None and not whole.diverged else None
    if fitted is None or whole is None or not np.isfinite(fitted.estimate).any():
        return None, "", ()
    how = f"fitted: changes and pairs of changes to the {len(whole.sets)} sets that were trained"
    return fitted, how, whole.players
