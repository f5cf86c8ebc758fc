"""`Game`: the value of every set of changes that was trained, with its noise, and what sets diverged."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
import pandas as pd

from roadmap.changes import FILES
from roadmap.effects.noise import AdditiveModel, Array, Means
from roadmap.effects.testing import detectable, holm
from roadmap.resolve import canonical
from roadmap.steps import DEFAULT, Roadmap, in_order

Set = tuple[str, ...]


@dataclass(frozen=True)
class Game:
    """Values of sets in percentage points of top-1.

    Attributes:
        players: the changes that may be in a set, in ladder order.
        sets: the sets with a value, in the order of `means`.
        means: their estimated means under one noise level (model: set + seed).
        runs: how many finished runs each set has.
        diverged: sets of which at least one run diverged; their value is unknown.
        base: changes that are part of every set, and left out of `sets`: those of the roadmap's root.
        aliases: how many of the sets, the last ones, come to the same network and training as one before them.
    """

    players: Set
    sets: tuple[Set, ...]
    means: Means
    runs: tuple[int, ...]
    diverged: tuple[Set, ...] = ()
    base: Set = ()
    aliases: int = 0

    @property
    def known(self) -> frozenset[Set]:
        """Every set that was trained, diverged or not."""
        return frozenset(self.sets) | frozenset(self.diverged)

    @property
    def least_runs(self) -> int:
        """Runs of the set with fewest."""
        return min(self.runs, default=0)

    def columns(self, sets: Sequence[Set]) -> list[int]:
        """Where these sets stand in `means`; KeyError for a set without a value."""
        place = {one: i for i, one in enumerate(self.sets)}
        return [place[one] for one in sets]


@dataclass(frozen=True)
class Effects:
    """Named effects with 95 % intervals; `lost` where they need a set of which a run diverged: all numbers are NaN."""

    names: tuple[str, ...]
    estimate: Array
    low: Array
    high: Array
    p: Array
    lost: tuple[bool, ...]
    n: int  # fewest runs of any set that was used
    mde: float = float("nan")  # median effect that Holm over them finds with 80 % power

    def frame(self) -> pd.DataFrame:
        """A row per effect; p adjusted by Holm over them."""
        columns = {"estimate": self.estimate, "low": self.low, "high": self.high, "p_holm": holm(self.p)}
        return pd.DataFrame({"name": self.names, **columns, "lost": self.lost})


def players_of(road: Roadmap, idle: frozenset[str] = frozenset()) -> Set:
    """The changes of a roadmap that are in play: those of its end beyond its root, without the idle ones."""
    return tuple(name for name in road.players if name not in idle)


def game_of(
    runs: pd.DataFrame, players: Set | None = None, road: Roadmap = DEFAULT, idle: frozenset[str] = frozenset()
) -> Game | None:
    """The game of the runs of one recipe; None without a finished run.

    Args:
        runs: rows of `Collection.runs` of one group and one recipe.
        players: leave out sets that hold other changes; None: all sets.
        road: the roadmap; changes of its root are part of every set, and sets that lack one are left out.
        idle: changes that have nothing to do in these runs.
    """
    base = tuple(name for name in road.root.changes if name not in idle)
    rows = runs.assign(set=[tuple(text.split("+")) if text else () for text in runs["changes"]])
    rows = rows[rows["set"].map(lambda one: set(base) <= set(one)).astype(bool)]
    rows = rows.assign(set=[tuple(name for name in one if name not in base) for one in rows["set"]])
    if players is not None:
        rows = rows[rows["set"].map(lambda one: set(one) <= set(players)).astype(bool)]
    if not len(rows):
        return None
    lost = frozenset(rows.loc[rows["status"] == "diverged", "set"])
    finished = rows[(rows["status"] == "finished") & ~rows["set"].map(lost.__contains__)]
    if not len(finished):
        return None
    trained = sorted(finished["set"].unique(), key=lambda one: (len(one), one))
    index = {one: i for i, one in enumerate(trained)}
    cells = finished["set"].map(index)
    means = AdditiveModel(cells.tolist(), finished["seed"].tolist()).fit(finished["top1"].to_numpy())
    counts = cells.value_counts()
    players = players or in_order({change for one in (*trained, *lost) for change in one}, road)
    same = _aliases([*trained, *lost], players, base, rows, road)
    further = [one for one, origin in same.items() if origin not in lost]
    places = [*range(len(trained)), *(index[same[one]] for one in further)]
    return Game(
        players=players,
        sets=(*trained, *further),
        means=means.at(places),
        runs=tuple(int(counts[i]) for i in places),
        diverged=(*lost, *(one for one, origin in same.items() if origin in lost)),
        base=base,
        aliases=len(further),
    )


def _aliases(trained: Sequence[Set], players: Set, base: Set, rows: pd.DataFrame, road: Roadmap) -> dict[Set, Set]:
    """Sets that nobody trained because they come to the same as one that was -> that one.

    ResNet-D with ResNet-C's stem and without it is one network: a run of it is the value of both sets.
    """
    items = {name: set(FILES[name].delta.items()) for name in players if name in FILES}
    overlapping = [one for one in items if any(items[one] & items[other] for other in items if other != one)]
    found: dict[Set, Set] = {}
    if not overlapping:
        return found
    regime = str(rows["regime"].iloc[0])
    for one in trained:
        like = canonical(in_order((*base, *one), road), regime)
        for chosen in _subsets(overlapping):
            other = in_order({*one} - {*overlapping} | {*chosen}, road)
            if other not in trained and canonical(in_order((*base, *other), road), regime) == like:
                found.setdefault(other, one)
    return found


def _subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(combinations(names, size) for size in range(len(names) + 1))


def linear_effects(game: Game, names: Sequence[str], sets: Sequence[Set], weights: Array) -> Effects:
    """Effects that are weighted sums of values: `weights` is (names, sets).

    The interval holds the noise of the runs. With one run per set there is none: its bounds are NaN. An effect that
    needs a diverged set has no number: such a set has no top-1, and any that is put in its place would be made up.
    """
    gone = np.array([one in game.diverged for one in sets])
    lost = np.abs(weights[:, gone]).sum(axis=1) > 0
    full = np.zeros((len(names), len(game.sets)))
    full[:, game.columns([one for one, out in zip(sets, gone, strict=True) if not out])] = weights[:, ~gone]
    error = game.means.contrast(full)[1][~lost]
    estimate, low, high, p = (np.where(lost, np.nan, part) for part in game.means.intervals(full))
    used: list[bool] = np.any(full[~lost] != 0, axis=0).tolist()
    return Effects(
        tuple(names),
        estimate,
        low,
        high,
        p,
        lost=tuple(lost.tolist()),
        n=min((n for n, use in zip(game.runs, used, strict=True) if use), default=0),
        mde=detectable(float(np.median(error)), game.means.df, len(error)) if len(error) else float("nan"),
    )
