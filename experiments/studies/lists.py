"""Lists of runs that are no grid: each generator returns override lists, one per run (`study.list` names it).

Every list is a table of v(set of changes) or v(techniques) for the questions that a ladder leaves open. Lists share
runs with each other and with the ladder, because a run is known by what it computes.
"""

import inspect
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.config.settings import Recipe
from experiments.config.techniques import TECHNIQUES, is_on
from experiments.errors import ConfigError
from roadmap.effects import paired
from roadmap.effects import subsets as choose
from roadmap.effects.noise import AdditiveModel
from roadmap.effects.proposals import candidates, propose
from roadmap.effects.surrogate import Space, Surrogate, shapley_values, values_at
from roadmap.errors import DesignError
from roadmap.resolve import set_of
from roadmap.steps import DEFAULT, Roadmap, in_order

Runs = list[list[str]]
RecipeOf = Callable[[Sequence[str]], Recipe]  # the recipe that overrides lead to, in the study's budget and data

Finished = Callable[[], list[tuple[choose.Set, int, float]]]

LEAST_SETS = 8  # finished sets, below which `next` proposes paired sets
FROM_RUNS = ("next",)  # lists that depend on what finished: the file is named after what was asked, not what it gave
MOST_CHANGES = 8  # of which all subsets may be asked for: 256 sets


def no_recipe(overrides: Sequence[str]) -> Recipe:
    """For lists that ask for no recipe."""
    raise NotImplementedError("this list of runs depends on the recipe in the study's budget and data")


def no_runs() -> list[tuple[choose.Set, int, float]]:
    """Where no folder of runs is known."""
    return []


def surrogate_of(found: Sequence[tuple[choose.Set, int, float]], players: choose.Set) -> Surrogate:
    """The process over the sets of finished runs (set, seed, top-1)."""
    sets = list(dict.fromkeys(one for one, _, _ in found))
    model = AdditiveModel([sets.index(one) for one, _, _ in found], [seed for _, seed, _ in found])
    means = model.fit(np.array([top1 for _, _, top1 in found]))
    space = Space(tuple((name,) for name in players))
    return Surrogate(space, sets, means.mean, means.unscaled, float(means.sigma), means.df)


@dataclass(frozen=True)
class Lists:
    """The lists of a roadmap, one per method.

    Attributes:
        road: the roadmap; its changes are those between its root and its end.
        recipe_of: for lists that depend on what the recipe uses in the study's budget.
        finished: for lists that depend on the runs that finished under the study's settings: set, seed, top-1.
    """

    road: Roadmap = DEFAULT
    recipe_of: RecipeOf = no_recipe
    finished: Finished = no_runs

    @property
    def plain(self) -> str:
        """No change at all, under the recipe that all changes share."""
        root, end = self.road.root, self.road.end
        same = (step for step in self.road.steps if step.recipe == end.recipe and step.changes == root.changes)
        return f"+step={next(same, root).name}"

    @property
    def bare(self) -> str:
        """Where the roadmap starts."""
        return f"+step={self.road.root.name}"

    @property
    def last(self) -> str:
        """Where it ends: all changes."""
        return f"+step={self.road.end.name}"

    def subset(self, changes: Iterable[str]) -> list[str]:
        """The overrides of a set of changes."""
        names = in_order(changes, self.road)
        return [self.plain, f"add=[{','.join(names)}]"] if names else [self.plain]

    def leave_one_out(self) -> Runs:
        """The last step, and the last step minus each of its changes."""
        return [[self.last], *([self.last, f"drop=[{change}]"] for change in self.road.players)]

    def add_one_in(self) -> Runs:
        """The start under the recipe of the end, and with each change of the last step alone."""
        return [self.subset(()), *(self.subset((change,)) for change in self.road.players)]

    def crossed(self, base: Sequence[str] = (), factors: Sequence[Sequence[str]] = ()) -> Runs:
        """All combinations of factors on top of some changes; each factor is absent or one of its alternatives."""
        chosen = itertools.product(*(((), *((name,) for name in factor)) for factor in factors))
        return [self.subset(self._named("base and factors", (*base, *itertools.chain(*names)))) for names in chosen]

    def layer_scale(self) -> Runs:
        """Both ends of the ladder with and without layer scale."""
        return [[step, f"recipe.layer_scale={v}"] for step in (self.plain, self.last) for v in ("1e-6", "null")]

    def diverging_downsampling(self) -> Runs:
        """Separate downsampling with and without the norms around it: the paper reports divergence without."""
        return [[self.last], [self.last, "design.boundary_norms=false"]]

    def recipe(self) -> Runs:
        """On the first network: the recipe of the end minus each technique, and that of the start plus each.

        A technique that the budget or the data switches off is named on stderr and left out.
        """
        if self.plain == self.bare:
            raise ConfigError(f"study.list=recipe: roadmap={self.road.name} has one recipe; use study.list=add_one_in")
        enhanced, original = self.recipe_of([self.plain]), self.recipe_of([self.bare])
        runs = [[self.plain], [self.bare]]
        for name, keys in TECHNIQUES.items():
            if not is_on(enhanced, name):
                print(f"left out: {name} is off in the enhanced recipe of this budget and data", file=sys.stderr)
                continue
            runs.append([self.plain, f"recipe.without=[{name}]"])
            if not is_on(original, name):
                runs.append([self.bare, *(f"recipe.{key}={getattr(enhanced, key)}" for key in keys)])
        return runs

    def drawn_orders(self, orders: int = 10, seed: int = 0) -> list[choose.Set]:
        """Random orders of the changes in antithetic pairs; ConfigError unless there is an even number."""
        try:
            return choose.orders(self.road.players, orders, seed)
        except DesignError as error:
            raise ConfigError(f"study.params.{error}") from None

    def orders(self, orders: int = 10, seed: int = 0) -> Runs:
        """The distinct sets that random orders pass through, pair after pair: a part of the study is whole pairs."""
        sets = choose.sets_of_orders(self.drawn_orders(orders, seed), self.road.players)
        return [self.subset(one) for one in sets]

    def paired_sets(self, sets: int = 105, seed: int = 0) -> Runs:
        """Sets in complementary pairs that tell most about the Shapley values; a part of the study is whole pairs."""
        try:
            chosen = paired.paired_sets(self.road.players, sets, seed)
        except DesignError as error:
            raise ConfigError(f"study.params.{error}") from None
        return [self.subset(one) for one in chosen]

    def next(self, sets: int = 10, question: str = "shapley", round: int = 1) -> Runs:
        """The sets that tell most about a question, given the runs that finished; without any, the first paired sets.

        Args:
            sets: how many.
            question: `shapley` (the values of all changes), a change (its value alone), or a set `a+b`, ending in
                "+" where it is one change.
            round: of proposals; each is frozen, the next one knows what the earlier ones found.
        """
        players = self.road.players
        if sets < 1 or round < 1:
            raise ConfigError(f"study.params.{'sets' if sets < 1 else 'round'} must be at least 1")
        names = tuple(name for name in question.split("+") if name)
        if question != "shapley" and (not names or not set(names) <= set(players)):
            raise ConfigError(
                f"study.params.question={question} must be shapley, or one (its value) or several joined with + (the "
                f"value of that set) of: {', '.join(players)}"
            )
        found = self.finished()
        if len({one for one, _, _ in found}) < LEAST_SETS:
            print(f"next: {len(found)} runs finished, fewer than {LEAST_SETS} sets: paired sets", file=sys.stderr)
            return self.paired_sets(max(sets, LEAST_SETS))
        model = surrogate_of(found, players)
        asked = shapley_values(model.space, None if question == "shapley" else names)
        among = candidates(players, round)
        if "+" in question:
            asked, among = values_at(model.space, [in_order(names, self.road)]), [in_order(names, self.road), *among]
        chosen, before, after = propose(model, asked, among, sets)
        print(f"next: half width of {question} ±{before:.3g}, expected ±{after:.3g} points after", file=sys.stderr)
        return [self.subset(one) for one in chosen]

    def subsets(self, changes: Sequence[str] = ()) -> Runs:
        """All 2^k sets of the given changes, small sets first: exact values for small games."""
        if isinstance(changes, str) or not 1 <= len(changes) <= MOST_CHANGES:
            raise ConfigError(
                f"study.params.changes={changes if isinstance(changes, str) else list(changes)} must be a list of 1 to "
                f"{MOST_CHANGES} of: {', '.join(self.road.players)}, or other changes"
            )
        return [self.subset(one) for one in choose.all_subsets(self._named("changes", changes))]

    def factorial(self) -> Runs:
        """A fractional factorial of resolution IV over the last step's changes, in 32 runs.

        Main effects are free of two-change interactions; those are confounded with each other.
        """
        return [self.subset(one) for one in choose.factorial(self.road.players)]

    def _named(self, param: str, changes: Iterable[str]) -> tuple[str, ...]:
        """These changes in order; ConfigError where one is unknown, named twice or an alternative of another."""
        try:
            return set_of((), add=changes, road=self.road)
        except DesignError as error:
            raise ConfigError(f"study.params.{param}: {error}") from None


GENERATORS: Mapping[str, Callable[..., Runs]] = {
    generator.__name__: generator
    for generator in (
        *(Lists.leave_one_out, Lists.add_one_in, Lists.crossed, Lists.layer_scale, Lists.diverging_downsampling),
        *(Lists.recipe, Lists.orders, Lists.paired_sets, Lists.next, Lists.subsets, Lists.factorial),
    )
}


def orders_of(name: str | None, params: Mapping[str, Any], road: Roadmap = DEFAULT) -> list[choose.Set]:
    """The orders behind a list of runs; none for a list that draws none."""
    return Lists(road).drawn_orders(**params) if name == "orders" else []


def runs_of(
    name: str,
    params: Mapping[str, Any],
    recipe_of: RecipeOf,
    road: Roadmap = DEFAULT,
    finished: Finished = no_runs,
) -> Runs:
    """The runs of a generated list.

    Args:
        name: one of `GENERATORS`.
        params: `study.params`.
        recipe_of: for lists that depend on what the recipe uses in the study's budget.
        road: the chosen roadmap.
        finished: for lists that depend on what finished.

    Raises:
        ConfigError: an unknown list, or a parameter that it does not take.
    """
    if name not in GENERATORS:
        raise ConfigError(f"study.list={name} is not one of: {', '.join(GENERATORS)}")
    takes = inspect.signature(GENERATORS[name]).parameters
    allowed = [key for key in takes if key != "self"]
    for key, value in params.items():
        if key not in allowed:
            raise ConfigError(f"study.params.{key} is not one of: {', '.join(allowed) or 'none for this list'}")
        if isinstance(takes[key].default, int) and (isinstance(value, bool) or not isinstance(value, int)):
            raise ConfigError(f"study.params.{key}={value!r} must be a whole number")
        if isinstance(takes[key].default, str) and not isinstance(value, str):
            raise ConfigError(f"study.params.{key}={value!r} must be text")
    return GENERATORS[name](Lists(road, recipe_of, finished), **params)
