"""A change by itself, a change taken away, and the recipe's techniques one by one."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.attribution.game import Effects, Game, Set, linear_effects
from analysis.records import whole
from experiments.config.techniques import TECHNIQUES
from roadmap.effects.noise import AdditiveModel


def leave_one_out(game: Game) -> Effects | None:
    """v(all) - v(all but one) for each change of which the set was trained."""
    whole = tuple(game.players)
    return _differences(game, {p: (whole, tuple(q for q in whole if q != p)) for p in whole})


def add_one_in(game: Game) -> Effects | None:
    """v(one alone) - v(none) for each change of which the set was trained."""
    return _differences(game, {p: ((p,), ()) for p in game.players})


def _differences(game: Game, pairs: Mapping[str, tuple[Set, Set]]) -> Effects | None:
    found = {name: pair for name, pair in pairs.items() if set(pair) <= game.known}
    if len(found) < 2:
        return None
    sets = sorted({one for pair in found.values() for one in pair}, key=lambda one: (len(one), one))
    weights = np.zeros((len(found), len(sets)))
    for row, (more, less) in enumerate(found.values()):
        weights[row, sets.index(more)], weights[row, sets.index(less)] = 1, -1
    return linear_effects(game, list(found), sets, weights)


def technique_effects(
    base: pd.DataFrame, arms: pd.DataFrame, settings_of: Callable[[str], Mapping[str, Any]]
) -> dict[str, Effects]:
    """Gain of each training technique, by "recipe on label": the base run minus the run without it, or plus it.

    Args:
        base: runs of the ladder's recipes.
        arms: runs of the same data and budget under other settings.
        settings_of: the nested settings behind a value of the column `settings`.
    """
    results = {}
    for (recipe, changes), runs in base.groupby(["recipe", "changes"], sort=False):
        others = arms[(arms["recipe"] == recipe) & (arms["changes"] == changes) & (arms["plain"] == 1)]
        start = settings_of(runs.iloc[0]["settings"])["recipe"]
        tables: dict[tuple[str, int], pd.DataFrame] = {}
        for key, arm in others.groupby("settings", sort=False):
            difference = technique_between(start, settings_of(str(key))["recipe"])
            if difference is not None and difference not in tables:
                tables[difference] = arm
        effects = _against(runs, tables)
        if effects is not None:
            results[f"{recipe}, {changes.split('+')[-1] or 'no change'}"] = effects
    return results


def technique_between(base: Mapping[str, Any], arm: Mapping[str, Any]) -> tuple[str, int] | None:
    """(technique, +1 if the base has it and the arm not, -1 the other way round); None if more than one differs."""
    base, arm = whole(base, "recipe"), whole(arm, "recipe")
    changed = {key for key in {*base, *arm} if base.get(key) != arm.get(key)} - {"without"}
    for name, off in TECHNIQUES.items():
        if changed and changed <= set(off):
            if all(arm.get(key) == value for key, value in off.items()):
                return name, 1
            if all(base.get(key) == value for key, value in off.items()) or name == "cosine":
                return name, -1
    return None


def techniques_off(recipe: Mapping[str, Any]) -> int:
    """How many techniques a recipe leaves out."""
    recipe = whole(recipe, "recipe")
    return sum(all(recipe.get(key) == value for key, value in off.items()) for off in TECHNIQUES.values())


def _against(base: pd.DataFrame, arms: Mapping[tuple[str, int], pd.DataFrame]) -> Effects | None:
    """Sign * (base - arm) of each arm under one noise level; an arm or base with a diverged run gives bounds."""
    parts = [base, *arms.values()]
    if not arms or not all((part["status"] == "finished").any() for part in parts[:1]):
        return None
    labels = [("base",), *((name,) for name, _ in arms)]
    frames = [part.assign(set=[label] * len(part)) for part, label in zip(parts, labels, strict=True)]
    rows = pd.concat(frames)
    lost = frozenset(rows.loc[rows["status"] == "diverged", "set"])
    finished = rows[(rows["status"] == "finished") & ~rows["set"].map(lost.__contains__)]
    if not len(finished):
        return None
    sets = tuple(sorted(finished["set"].unique()))
    cells = finished["set"].map({one: i for i, one in enumerate(sets)})
    means = AdditiveModel(cells.tolist(), finished["seed"].tolist()).fit(finished["top1"].to_numpy())
    runs = tuple(int((cells == i).sum()) for i in range(len(sets)))
    game = Game((), sets, means, runs, tuple(lost))
    weights = np.zeros((len(arms), len(labels)))
    for row, (_, sign) in enumerate(arms):
        weights[row, 0], weights[row, row + 1] = sign, -sign
    return linear_effects(game, [name for name, _ in arms], labels, weights)
