"""What any collection of finished sets says: Shapley values, and values of sets that nobody trained, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from analysis.attribution.game import Effects, Game, Set
from roadmap.effects.surrogate import Slots, Space, Surrogate, shapley_values, values_at
from roadmap.steps import Roadmap, alternatives, in_order

LEAST_MORE = 4  # sets beyond one per slot, below which the sets say too little
MOST_SETS = 400  # more take minutes; exact games answer then
MOST_CANDIDATES = 2000  # sets of which the best are looked for
SHOWN = 10


@dataclass(frozen=True)
class Expected:
    """An untrained set and its top-1 with the 95 % interval, per cent."""

    changes: Set
    top1: float
    low: float
    high: float


@dataclass(frozen=True)
class Predicted:
    """Answers of the Gaussian process over sets (`roadmap.effects.surrogate`).

    Attributes:
        effects: the Shapley value of each change.
        trained: how many sets it knows.
        covered: how many of them lie in the 95 % interval that the others give.
        best: the untrained sets of which most is expected, best first.
    """

    effects: Effects
    trained: int
    covered: int
    best: tuple[Expected, ...]


def slots_of(sets: Sequence[Set], road: Roadmap) -> Slots:
    """The changes that some sets have and others lack, alternatives of one flag together in a slot."""
    count = len(sets)
    names = [name for name in {name: 0 for one in sets for name in one} if sum(name in one for one in sets) < count]
    slots: dict[frozenset[str], list[str]] = {}
    for name in in_order(names, road):
        slots.setdefault(alternatives(name) | {name}, []).append(name)
    return tuple(map(tuple, slots.values()))


def predicted_of(game: Game, road: Roadmap) -> Predicted | None:
    """The answers; None for too few sets, or for so many that other methods are exact."""
    trained = game.sets[: len(game.sets) - game.aliases]
    slots = slots_of(trained, road)
    if not len(slots) + LEAST_MORE <= len(trained) <= MOST_SETS or len(slots) < 2:
        return None
    places = range(len(trained))
    means = game.means.at(places)
    space = Space(slots)
    model = Surrogate(space, trained, means.mean, means.unscaled, float(means.sigma), means.df)
    low, high = model.left_out().interval()
    return Predicted(
        effects=_shapley(model, game, road),
        trained=len(trained),
        covered=int(((low <= means.mean) & (means.mean <= high)).sum()),
        best=_best(model, game, road),
    )


def _shapley(model: Surrogate, game: Game, road: Roadmap) -> Effects:
    answer = model.answer(shapley_values(model.space, end=road.end.changes))
    low, high = answer.interval()
    below = answer.below(np.zeros(len(answer.names)))
    nothing = (False,) * len(answer.names)
    return Effects(answer.names, answer.mean, low, high, 2 * np.minimum(below, 1 - below), nothing, game.least_runs)


def _best(model: Surrogate, game: Game, road: Roadmap) -> tuple[Expected, ...]:
    """The untrained sets that promise most."""
    fixed = [name for name in game.players if not any(name in slot for slot in model.space.slots)]
    always = [name for name in fixed if all(name in one for one in model.sets)]
    new = [one for one in _candidates(model, road, always) if one not in game.known]
    if not new:
        return ()
    first = model.means(values_at(model.space, new))
    chosen = [new[i] for i in np.argsort(-first, kind="stable")[:SHOWN]]
    answer = model.answer(values_at(model.space, chosen))
    low, high = answer.interval()
    return tuple(map(Expected, chosen, answer.mean.tolist(), low.tolist(), high.tolist()))


def _candidates(model: Surrogate, road: Roadmap, always: Sequence[str]) -> list[Set]:
    """All sets of the slots where they are few, else those one slot away from a trained set."""
    choices = [((), *((name,) for name in slot)) for slot in model.space.slots]
    if prod(map(len, choices)) <= MOST_CANDIDATES:
        return [in_order({*always, *sum(levels, ())}, road) for levels in product(*choices)]
    near: dict[Set, None] = {}
    for one in model.sets:
        for slot, levels in zip(model.space.slots, choices, strict=True):
            for level in levels:
                near[in_order({*one} - {*slot} | {*level}, road)] = None
    return list(near)[:MOST_CANDIDATES]
