"""Lists of runs that are no grid: each generator returns override lists, one per run (`study.list` names it).

Every list is a table of v(set of changes) or v(techniques) for the questions that the paper leaves open. Lists share
runs with each other and with the ladder, because a run is known by what it computes.
"""

import inspect
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from experiments.config.settings import Recipe
from experiments.config.techniques import TECHNIQUES, is_on
from experiments.errors import ConfigError
from roadmap.effects import subsets as choose
from roadmap.errors import DesignError
from roadmap.resolve import set_of
from roadmap.steps import CHANGES, END, START, STEPS

Runs = list[list[str]]
RecipeOf = Callable[[Sequence[str]], Recipe]  # the recipe that overrides lead to, in the study's budget and data

# No change at all, under the recipe that all changes share.
PLAIN = f"+step={next(step.name for step in STEPS if step.recipe == END.recipe)}"
BARE = f"+step={START.name}"
MOST_CHANGES = 8  # of which all subsets may be asked for: 256 sets


def subset(changes: Iterable[str]) -> list[str]:
    """The overrides of a set of changes."""
    names = sorted(changes, key=CHANGES.index)
    return [PLAIN, f"add=[{','.join(names)}]"] if names else [PLAIN]


def leave_one_out() -> Runs:
    """The last step, and the last step minus each of its changes."""
    last = f"+step={END.name}"
    return [[last], *([last, f"drop=[{change}]"] for change in END.changes)]


def add_one_in() -> Runs:
    """ResNet-50 under the enhanced recipe, and with each change of the last step alone."""
    return [subset(()), *(subset((change,)) for change in END.changes)]


def crossed(base: Sequence[str] = (), factors: Sequence[Sequence[str]] = ()) -> Runs:
    """All combinations of factors on top of some changes; each factor is absent or one of its alternatives."""
    chosen = itertools.product(*(((), *((name,) for name in factor)) for factor in factors))
    return [subset(_named("base and factors", (*base, *itertools.chain(*names)))) for names in chosen]


def layer_scale() -> Runs:
    """Both ends of the ladder with and without layer scale."""
    return [[step, f"recipe.layer_scale={v}"] for step in (PLAIN, f"+step={END.name}") for v in ("1e-6", "null")]


def diverging_downsampling() -> Runs:
    """Separate downsampling with and without the norms around it: the paper reports divergence without."""
    return [[f"+step={END.name}"], [f"+step={END.name}", "design.boundary_norms=false"]]


def recipe(recipe_of: RecipeOf) -> Runs:
    """On ResNet-50: the enhanced recipe minus each technique, and the original recipe plus each.

    A technique that the budget or the data switches off is named on stderr and left out.
    """
    enhanced, original = recipe_of([PLAIN]), recipe_of([BARE])
    runs = [[PLAIN], [BARE]]
    for name, keys in TECHNIQUES.items():
        if not is_on(enhanced, name):
            print(f"left out: {name} is off in the enhanced recipe of this budget and data", file=sys.stderr)
            continue
        runs.append([PLAIN, f"recipe.without=[{name}]"])
        if not is_on(original, name):
            runs.append([BARE, *(f"recipe.{key}={getattr(enhanced, key)}" for key in keys)])
    return runs


def drawn_orders(orders: int = 10, seed: int = 0) -> list[choose.Set]:
    """Random orders of the last step's changes in antithetic pairs; ConfigError unless there is an even number."""
    try:
        return choose.orders(END.changes, orders, seed)
    except DesignError as error:
        raise ConfigError(f"study.params.{error}") from None


def orders(orders: int = 10, seed: int = 0) -> Runs:
    """The distinct sets that random orders pass through, pair after pair: a part of the study is whole pairs."""
    return [subset(one) for one in choose.sets_of_orders(drawn_orders(orders, seed), END.changes)]


def subsets(changes: Sequence[str] = ()) -> Runs:
    """All 2^k sets of the given changes, small sets first: exact values for small games."""
    if isinstance(changes, str) or not 1 <= len(changes) <= MOST_CHANGES:
        raise ConfigError(
            f"study.params.changes={changes if isinstance(changes, str) else list(changes)} must be a list of 1 to "
            f"{MOST_CHANGES} of: {', '.join(CHANGES)}"
        )
    return [subset(one) for one in choose.all_subsets(_named("changes", changes))]


def _named(param: str, changes: Iterable[str]) -> tuple[str, ...]:
    """These changes in ladder order; ConfigError where one is unknown, named twice or an alternative of another."""
    try:
        return set_of((), add=changes)
    except DesignError as error:
        raise ConfigError(f"study.params.{param}: {error}") from None


def factorial() -> Runs:
    """A fractional factorial of resolution IV over the last step's changes, in 32 runs.

    Main effects are free of two-change interactions; those are confounded with each other.
    """
    return [subset(one) for one in choose.factorial(END.changes)]


GENERATORS: Mapping[str, Callable[..., Runs]] = {
    "leave_one_out": leave_one_out,
    "add_one_in": add_one_in,
    "crossed": crossed,
    "layer_scale": layer_scale,
    "diverging_downsampling": diverging_downsampling,
    "recipe": recipe,
    "orders": orders,
    "subsets": subsets,
    "factorial": factorial,
}


def orders_of(name: str | None, params: Mapping[str, Any]) -> list[choose.Set]:
    """The orders behind a list of runs; none for a list that draws none."""
    return drawn_orders(**params) if name == "orders" else []


def runs_of(name: str, params: Mapping[str, Any], recipe_of: RecipeOf) -> Runs:
    """The runs of a generated list.

    Args:
        name: one of `GENERATORS`.
        params: `study.params`.
        recipe_of: for lists that depend on what the recipe uses in the study's budget.

    Raises:
        ConfigError: an unknown list, or a parameter that it does not take.
    """
    if name not in GENERATORS:
        raise ConfigError(f"study.list={name} is not one of: {', '.join(GENERATORS)}")
    takes = inspect.signature(GENERATORS[name]).parameters
    allowed = [key for key in takes if key != "recipe_of"]
    for key, value in params.items():
        if key not in allowed:
            raise ConfigError(f"study.params.{key} is not one of: {', '.join(allowed) or 'none for this list'}")
        if isinstance(takes[key].default, int) and (isinstance(value, bool) or not isinstance(value, int)):
            raise ConfigError(f"study.params.{key}={value!r} must be a whole number")
    return GENERATORS[name](**params, **({"recipe_of": recipe_of} if "recipe_of" in takes else {}))
