"""The algebra of changes: which set of changes is meant, and the one resolver that turns it into a `Design`."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from roadmap.changes import FILES
from roadmap.design import Design
from roadmap.errors import DesignError
from roadmap.plan import plan_network
from roadmap.regimes import regime as regime_values
from roadmap.regimes import stem_stride_in
from roadmap.steps import CHANGES, DEFAULT, ROADMAPS, Roadmap, Step, alternatives, before, in_order, roadmap_named


def set_of(
    start: str | Iterable[str], add: Iterable[str] = (), drop: Iterable[str] = (), road: Roadmap = DEFAULT
) -> tuple[str, ...]:
    """The set of changes that is meant, in the order of a roadmap, then of those that other changes come from.

    Args:
        start: a step of the roadmap (all changes up to it) or the names of changes.
        add: changes to add; an alternative replaces the one that is there (kernel_9 replaces kernel_7).
        drop: changes to take away, before any is added.
        road: the roadmap.

    Raises:
        DesignError: an unknown name, dropping what is absent, adding what is present, two alternatives at once.
    """
    chosen = list(road.step_named(start).changes if isinstance(start, str) else _checked("changes", start, road))
    for name in _checked("drop", drop, road):
        if name not in chosen:
            raise DesignError(f"drop={name}: it is not in the set; there is: {', '.join(chosen) or 'nothing'}")
        chosen.remove(name)
    for name in _checked("add", add, road):
        if name in chosen:
            raise DesignError(f"add={name}: it is already in the set: {', '.join(chosen)}")
        chosen = [other for other in chosen if other not in alternatives(name)] + [name]
    return in_order(chosen, road)


def _checked(key: str, names: Iterable[str], road: Roadmap) -> list[str]:
    """The names, each a change, none twice, no two of them alternatives."""
    if isinstance(names, str):
        raise DesignError(f"{key}={names!r} must be a list of changes, e.g. {key}=[{names}]")
    checked: list[str] = []
    for name in names:
        if name in FILES and name not in CHANGES:
            raise DesignError(f"{key}={name}: it chooses the training recipe and is no change; use recipe=")
        if name not in CHANGES:
            raise DesignError(f"{key}={name!r} is not one of: {_known(name, road)}")
        clash = next((other for other in checked if other == name or other in alternatives(name)), None)
        if clash:
            raise DesignError(f"{key}={name}: {clash} is in the same list, and only one of them can be")
        checked.append(name)
    return checked


def _known(name: str, road: Roadmap) -> str:
    """The changes of a roadmap, and of all others the one that was probably meant."""
    own = [change for change in CHANGES if any(change in step.changes for step in road.steps)]
    near = [change for change in get_close_matches(name, CHANGES, n=1) if change not in own]
    others = f"{near[0]}, " if near else ""
    return f"{', '.join(own)}; {others}or any other of conf/step (python -m roadmap changes)"


def design_for(
    step: str | Iterable[str],
    regime: str = "tiny",
    add: Iterable[str] = (),
    drop: Iterable[str] = (),
    roadmap: str = DEFAULT.name,
    **flags: Any,
) -> Design:
    """The design of a step or a set of changes, with single flags set on top.

    Order: the regime's baseline, then what the changes set of the design in their order, then `flags`.

    Args:
        step: a step's name, or names of changes.
        regime: one of `roadmap.regimes.REGIMES`: "tiny", "base", "micro", ...
        add: changes to add to the set.
        drop: changes to take away from it.
        roadmap: the roadmap whose step it is.
        **flags: fields of `Design`.

    Raises:
        DesignError: an unknown step, change, regime, flag or value, or values that do not fit together.
    """
    start = regime_values(regime)
    design = Design(depths=start["depths"], width=start["width"], stem_stride=stem_stride_in(regime))
    for name in set_of(step, add, drop, roadmap_named(roadmap)):
        design = design.replace(**FILES[name].design_in(regime))
    design = design.replace(**flags)
    plan_network(design)  # refuses groups that do not divide the channels they meet
    return design


@cache
def idle_in(regime: str) -> frozenset[str]:
    """The changes that a regime leaves nothing to do: the stage ratio where there is one stage."""
    start = _start(regime)
    deltas = {name: FILES[name].delta_in(regime) for name in CHANGES}
    return frozenset(
        name
        for name, delta in deltas.items()
        if not _overrides(name) and all("." not in key and getattr(start, key) == value for key, value in delta.items())
    )


def _overrides(name: str) -> bool:
    """Whether a change sets anew what one before it in some roadmap sets: it may well lead back to the start."""
    return any(set(FILES[name].delta) & set(FILES[other].delta) for other in before(name))


def effect_of(changes: Iterable[str], regime: str) -> dict[str, Any]:
    """What the changes of a set come to: key -> value, for what is not as the regime starts anyway."""
    merged: dict[str, Any] = {}
    for name in in_order(changes):
        merged |= FILES[name].delta_in(regime)
    start = _start(regime)
    return {key: value for key, value in merged.items() if "." in key or getattr(start, key) != value}


@cache
def _start(regime: str) -> Design:
    """The regime's baseline."""
    return design_for((), regime)


@cache
def canonical(changes: tuple[str, ...], regime: str) -> tuple[str, ...]:
    """One set for all sets that come to the same: that of a step if it does too, else the one nearest to a step.

    ResNet-D brings the deep stem of ResNet-C along, so that with it and without it is one network.
    """
    effect = effect_of(changes, regime)
    for road in ROADMAPS.values():
        for step in road.steps:
            if set(step.changes) == set(changes) or _effect_of_step(step, regime) == effect:
                return step.changes
    kept = list(changes)
    for name in changes:  # without what others cover,
        rest = [other for other in kept if other != name]
        if effect_of(rest, regime) == effect:
            kept = rest
    for name in _nearest(kept).changes:  # with what the nearest step has of that
        fits = name not in kept and not alternatives(name) & set(kept)
        if fits and effect_of([*kept, name], regime) == effect:
            kept.append(name)
    return in_order(kept)


def _nearest(changes: Sequence[str], idle: Iterable[str] = ()) -> Step:
    """The earliest step with the fewest differences, of the default roadmap where others are as near."""
    nothing = set(idle)
    every = [step for road in ROADMAPS.values() for step in road.steps]
    return min(every, key=lambda step: len((set(step.changes) ^ set(changes)) - nothing))


@cache
def _effect_of_step(step: Step, regime: str) -> dict[str, Any]:
    return effect_of(step.changes, regime)


def steps_at(changes: Iterable[str], recipe: str, road: Roadmap = DEFAULT, idle: Iterable[str] = ()) -> list[Step]:
    """The steps of a roadmap with exactly these changes and this recipe, changes that do nothing aside."""
    nothing = set(idle)
    wanted = set(changes) - nothing
    return [step for step in road.steps if step.recipe == recipe and set(step.changes) - nothing == wanted]


def step_at(changes: Sequence[str], recipe: str = "enhanced", road: Roadmap = DEFAULT) -> str | None:
    """The step of a roadmap with exactly these changes and this recipe; None off the ladder."""
    return next((step.name for step in steps_at(changes, recipe, road)), None)


def label_of(changes: Sequence[str], idle: Iterable[str] = ()) -> str:
    """A canonical name of a set of changes: the nearest step, then what is dropped and added.

    The nearest step is the earliest one with the fewest differences, of the default roadmap where others are as near,
    e.g. "separate_downsampling-kernel_7" or "resnet50+gelu+layer_norm". Changes that are `idle` make no difference.
    """
    nothing, nearest = set(idle), _nearest(changes, idle)
    dropped = "".join(f"-{name}" for name in nearest.changes if name not in (*changes, *nothing))
    added = "".join(f"+{name}" for name in in_order(changes) if name not in nearest.changes)
    return qualified(nearest) + dropped + added


def qualified(step: Step) -> str:
    """A step's name where roadmaps are not told apart otherwise: with its roadmap, but for the default one's."""
    return step.name if step.roadmap == DEFAULT.name else f"{step.roadmap}.{step.name}"
