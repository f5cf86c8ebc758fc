"""Lists of runs that are no grid: each generator returns override lists, one per run (`study.list` names it).

Every list is a table of v(set of changes) or v(techniques) for the questions that the paper leaves open. Lists share
runs with each other and with the ladder, because a run is known by what it computes.
"""

import inspect
import itertools
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from experiments.errors import ConfigError
from experiments.settings import Recipe
from experiments.techniques import TECHNIQUES, is_on
from roadmap.steps import CHANGES, STEPS

Runs = list[list[str]]
RecipeOf = Callable[[Sequence[str]], Recipe]  # the recipe that overrides lead to, in the study's budget and data

LAST = STEPS[-1]
PLAIN = "+step=enhanced_recipe"  # no change at all, under the recipe that all changes share
KERNELS = ("kernel_5", "kernel_7", "kernel_9", "kernel_11")
# Factors beyond the fifth, each the product of three of the first five: all words have even length, resolution IV.
WORDS = ("ABC", "ABD", "ABE", "ACD", "ACE", "ADE", "BCD", "BCE", "BDE", "CDE", "ABCDE")


def subset(changes: Iterable[str]) -> list[str]:
    """The overrides of a set of changes."""
    names = sorted(changes, key=CHANGES.index)
    return [PLAIN, f"add=[{','.join(names)}]"] if names else [PLAIN]


def _distinct(sets: Iterable[Iterable[str]]) -> Runs:
    """One run per different set, small sets first."""
    found = {frozenset(changes) for changes in sets}
    return [subset(s) for s in sorted(found, key=lambda s: (len(s), sorted(map(CHANGES.index, s))))]


def leave_one_out() -> Runs:
    """The last step, and the last step minus each of its changes."""
    last = f"+step={LAST.name}"
    return [[last], *([last, f"drop=[{change}]"] for change in LAST.changes)]


def add_one_in() -> Runs:
    """ResNet-50 under the enhanced recipe, and with each change of the last step alone."""
    return [subset(()), *(subset((change,)) for change in LAST.changes)]


def kernel_without_move() -> Runs:
    """Kernels 3 to 11 with and without the moved-up depthwise layer, in classic and in inverted blocks."""
    before = set(LAST.changes[: LAST.changes.index("move_up_depthwise")])
    return [
        subset((before - {"inverted_bottleneck"}) | set(blocks) | set(move) | set(kernel))
        for blocks in ((), ("inverted_bottleneck",))
        for move in ((), ("move_up_depthwise",))
        for kernel in ((), *((name,) for name in KERNELS))
    ]


def activations_and_move() -> Runs:
    """fewer_activations, and the step before it, with and without the moved-up depthwise layer."""
    return [
        [f"+step={step}", *dropped]
        for step in ("gelu", "fewer_activations")
        for dropped in ((), ("drop=[move_up_depthwise]",))
    ]


def layer_scale() -> Runs:
    """Both ends of the ladder with and without layer scale."""
    return [[step, f"recipe.layer_scale={v}"] for step in (PLAIN, f"+step={LAST.name}") for v in ("1e-6", "null")]


def diverging_downsampling() -> Runs:
    """Separate downsampling with and without the norms around it: the paper reports divergence without."""
    return [[f"+step={LAST.name}"], [f"+step={LAST.name}", "design.boundary_norms=false"]]


def recipe(recipe_of: RecipeOf) -> Runs:
    """On ResNet-50: the enhanced recipe minus each technique, and the original recipe plus each.

    A technique that the budget or the data switches off is named on stderr and left out.
    """
    enhanced, original = recipe_of([PLAIN]), recipe_of(["+step=resnet50"])
    runs = [[PLAIN], ["+step=resnet50"]]
    for name, keys in TECHNIQUES.items():
        if not is_on(enhanced, name):
            print(f"left out: {name} is off in the enhanced recipe of this budget and data", file=sys.stderr)
            continue
        runs.append([PLAIN, f"recipe.without=[{name}]"])
        if not is_on(original, name):
            runs.append(["+step=resnet50", *(f"recipe.{key}={getattr(enhanced, key)}" for key in keys)])
    return runs


def random_orders(players: Sequence[str], count: int, seed: int) -> list[list[str]]:
    """`count` random orders in antithetic pairs: each second one is the one before it, reversed.

    Raises:
        ConfigError: `count` is not an even number above 0.
    """
    if count < 2 or count % 2:
        raise ConfigError(f"study.params.orders={count} must be an even number above 0: orders come in pairs")
    draw = random.Random(seed)
    pairs = [draw.sample(list(players), len(players)) for _ in range(count // 2)]
    return [order for forward in pairs for order in (forward, forward[::-1])]


def orders(orders: int = 10, seed: int = 0) -> Runs:
    """The distinct sets that random orders of the last step's changes pass through."""
    found = random_orders(LAST.changes, orders, seed)
    return _distinct(order[:size] for order in found for size in range(len(order) + 1))


def subsets(changes: Sequence[str] = ()) -> Runs:
    """All 2^k sets of the given changes: exact values for small games."""
    unknown = [name for name in changes if name not in CHANGES]
    if unknown or not 1 <= len(changes) <= 8:
        raise ConfigError(f"study.params.changes={list(changes)} must be 1 to 8 of: {', '.join(CHANGES)}")
    return _distinct(
        itertools.chain.from_iterable(itertools.combinations(changes, size) for size in range(len(changes) + 1))
    )


def factorial() -> Runs:
    """A fractional factorial of resolution IV over the last step's changes, in 32 runs.

    Main effects are free of two-change interactions; those are confounded with each other.
    """
    base = "ABCDE"
    factors = dict(zip(LAST.changes, (*base, *WORDS), strict=False))
    runs = []
    for levels in itertools.product((-1, 1), repeat=len(base)):
        sign = dict(zip(base, levels, strict=True))
        runs.append(subset(name for name, word in factors.items() if _product(sign[letter] for letter in word) > 0))
    return runs


def _product(signs: Iterable[int]) -> int:
    result = 1
    for sign in signs:
        result *= sign
    return result


GENERATORS: Mapping[str, Callable[..., Runs]] = {
    "leave_one_out": leave_one_out,
    "add_one_in": add_one_in,
    "kernel_without_move": kernel_without_move,
    "activations_and_move": activations_and_move,
    "layer_scale": layer_scale,
    "diverging_downsampling": diverging_downsampling,
    "recipe": recipe,
    "orders": orders,
    "subsets": subsets,
    "factorial": factorial,
}


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
