"""Does a large kernel pay in every network? Kernel sizes side by side on each set of other changes that has them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.attribution.game import Effects, Game, Set, linear_effects
from roadmap.changes import FILES
from roadmap.steps import CHANGES

KERNELS = {name: int(FILES[name].delta["kernel_size"]) for name in CHANGES if "kernel_size" in FILES[name].delta}
SMALLEST = 3  # without a change of kernel
LEAST_SIZES = 3  # fewer make no curve


@dataclass(frozen=True)
class KernelCurve:
    """Kernel sizes on one set of other changes.

    Attributes:
        name: what tells the set from those of the other curves.
        context: the other changes.
        sizes: kernel sides, rising, the smallest first.
        top1: estimated means, per cent; NaN for a set with a diverged run.
        gains: top-1 over the smallest kernel, an effect per further size.
    """

    name: str
    context: Set
    sizes: tuple[int, ...]
    top1: tuple[float, ...]
    gains: Effects


def kernel_curves(game: Game) -> list[KernelCurve]:
    """A curve per context in which the smallest and at least two other kernels were trained; [] for one context."""
    found: dict[Set, dict[int, Set]] = {}
    if set(game.base) & set(KERNELS):  # no set without a change of kernel
        return []
    for one in game.known:
        context = tuple(change for change in one if change not in KERNELS)
        *_, size = (SMALLEST, *(KERNELS[change] for change in one if change in KERNELS))  # the last one is in force
        found.setdefault(context, {})[size] = one
    whole = {context: sets for context, sets in found.items() if SMALLEST in sets and len(sets) >= LEAST_SIZES}
    if len(whole) < 2:
        return []
    order = sorted(whole, key=lambda context: (len(context), context))
    varying = [c for c in dict.fromkeys(c for one in order for c in one) if not all(c in one for one in order)]
    return [_curve(game, context, _name(context, varying), whole[context]) for context in order]


def _name(context: Set, varying: Sequence[str]) -> str:
    """The changes that some of the curves have and others lack."""
    own = [change for change in varying if change in context]
    if own:
        return " + ".join(own)
    return "neither" if len(varying) == 2 else f"without {', '.join(varying)}"


def _curve(game: Game, context: Set, name: str, sets: dict[int, Set]) -> KernelCurve:
    sizes = tuple(sorted(sets))
    weights = np.eye(len(sizes))[1:]
    weights[:, 0] = -1
    ordered = [sets[size] for size in sizes]
    values = dict(zip(game.sets, game.means.mean.tolist(), strict=True))
    return KernelCurve(
        name=name,
        context=context,
        sizes=sizes,
        top1=tuple(values.get(one, float("nan")) for one in ordered),
        gains=linear_effects(game, [f"{size} × {size}" for size in sizes[1:]], ordered, weights),
    )
