"""The algebra of changes: which set of changes is meant, and the one resolver that turns it into a `Design`."""

from collections.abc import Iterable, Sequence
from typing import Any

from roadmap.design import Design
from roadmap.errors import DesignError
from roadmap.plan import plan_network
from roadmap.regimes import regime as regime_values
from roadmap.steps import BY_NAME, CHANGES, STEPS, alternatives, step_named


def set_of(start: str | Iterable[str], add: Iterable[str] = (), drop: Iterable[str] = ()) -> tuple[str, ...]:
    """The set of changes that is meant, in ladder order.

    Args:
        start: a step (all changes up to it) or the names of changes.
        add: changes to add; an alternative replaces the one that is there (kernel_9 replaces kernel_7).
        drop: changes to take away, before any is added.

    Raises:
        DesignError: an unknown name, dropping what is absent, adding what is present, two alternatives at once.
    """
    chosen = list(step_named(start).changes if isinstance(start, str) else _checked("changes", start))
    for name in _checked("drop", drop):
        if name not in chosen:
            raise DesignError(f"drop={name}: it is not in the set; there is: {', '.join(chosen) or 'nothing'}")
        chosen.remove(name)
    for name in _checked("add", add):
        if name in chosen:
            raise DesignError(f"add={name}: it is already in the set: {', '.join(chosen)}")
        chosen = [other for other in chosen if other not in alternatives(name)] + [name]
    return tuple(sorted(chosen, key=CHANGES.index))


def _checked(key: str, names: Iterable[str]) -> list[str]:
    """The names, each a change, none twice, no two of them alternatives."""
    if isinstance(names, str):
        raise DesignError(f"{key}={names!r} must be a list of changes, e.g. {key}=[{names}]")
    checked: list[str] = []
    for name in names:
        if name in BY_NAME and name not in CHANGES:
            raise DesignError(f"{key}={name}: it changes the training recipe, not the network; use recipe=")
        if name not in CHANGES:
            raise DesignError(f"{key}={name!r} is not one of: {', '.join(CHANGES)}")
        clash = next((other for other in checked if other == name or other in alternatives(name)), None)
        if clash:
            raise DesignError(f"{key}={name}: {clash} is in the same list, and only one of them can be")
        checked.append(name)
    return checked


def design_for(
    step: str | Iterable[str],
    regime: str = "tiny",
    add: Iterable[str] = (),
    drop: Iterable[str] = (),
    **flags: Any,
) -> Design:
    """The design of a step or a set of changes, with single flags set on top.

    Order: the regime's baseline, then the deltas in ladder order, then `flags`.

    Args:
        step: a step's name, or names of changes.
        regime: "tiny", "base" or "micro".
        add: changes to add to the set.
        drop: changes to take away from it.
        **flags: fields of `Design`.

    Raises:
        DesignError: an unknown step, change, regime, flag or value, or values that do not fit together.
    """
    start = regime_values(regime)
    design = Design(depths=start["depths"], width=start["width"])
    for name in set_of(step, add, drop):
        design = design.replace(**BY_NAME[name].delta_in(regime))
    design = design.replace(**flags)
    plan_network(design)  # refuses groups that do not divide the channels they meet
    return design


def step_at(changes: Sequence[str], recipe: str = "enhanced") -> str | None:
    """The ladder step with exactly these changes and this recipe; None off the ladder."""
    return next((s.name for s in STEPS if s.recipe == recipe and set(s.changes) == set(changes)), None)


def without_width(changes: Sequence[str], regime: str) -> tuple[str, ...]:
    """The changes without those that set the width alone: where match_gmacs chooses the width they do nothing."""
    return tuple(name for name in changes if set(BY_NAME[name].delta_in(regime)) != {"width"})


def label_of(changes: Sequence[str]) -> str:
    """A canonical name of a set of changes: the nearest step, then what is dropped and added in ladder order.

    The nearest step is the earliest one with the fewest differences, e.g. "separate_downsampling-kernel_7" or
    "resnet50+gelu+layer_norm".
    """
    nearest = min(STEPS, key=lambda step: len(set(step.changes) ^ set(changes)))
    dropped = "".join(f"-{name}" for name in nearest.changes if name not in changes)
    added = "".join(f"+{name}" for name in CHANGES if name in changes and name not in nearest.changes)
    return nearest.name + dropped + added
