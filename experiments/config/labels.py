"""Where a run stands: its set of changes, its step of the ladder and its label.

All three follow from the resolved design and recipe alone, not from how they were typed, so that every spelling of a
run leads to one directory and one record.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from experiments.config.settings import LONGEST_NAME, Recipe
from roadmap.changes import FILES
from roadmap.design import FLAGS, Design, flags_asked_by
from roadmap.resolve import canonical, design_for, idle_in, label_of, qualified, steps_at
from roadmap.steps import CHANGES, ROADMAPS, before, in_order

# What recipe and data ask of the design: these flags make no step of the ladder.
ASKS = flags_asked_by("recipe", "data")


class RunLabels(NamedTuple):
    """Where a run stands.

    Attributes:
        step: the step that it is at, with its roadmap unless that is the default one; None off all ladders.
        changes: its set, in ladder order, without the idle ones.
        idle: changes to which the run leaves nothing to do.
        label: a canonical name.
    """

    step: str | None
    changes: tuple[str, ...]
    idle: tuple[str, ...]
    label: str


def labels_of(asked: Sequence[str], design: Design, recipe: Recipe, regime: str, idle: Iterable[str] = ()) -> RunLabels:
    """Find out where a run stands.

    Args:
        asked: the set of changes that was asked for.
        design: what it was resolved to, with the recipe's part in it.
        recipe: likewise.
        regime: the scale.
        idle: changes of the training that have no effect in this run.
    """
    nothing = idle_in(regime) | set(idle)
    held = set(_held(asked, design, regime)) - nothing
    changes = in_order(set(canonical(in_order(held), regime)) - nothing)
    flags = _flags_beside(changes, design, regime)
    at = next((s for road in ROADMAPS.values() for s in steps_at(changes, recipe.name, road, nothing)), None)
    marks = [f"+{recipe.name}"] if at is None and not _is_usual(recipe, changes) else []
    marks += [f"+{flag}_{_shown(value)}".lower() for flag, value in flags.items()]
    marks += [f"-{name}" for name in recipe.without]
    step = qualified(at) if at and not flags and not recipe.without else None
    label = (qualified(at) if at else label_of(changes, nothing)) + "".join(marks)
    return RunLabels(step, changes, tuple(sorted(set(idle) | (nothing & set(asked)))), label[:LONGEST_NAME])


def _held(asked: Sequence[str], design: Design, regime: str) -> tuple[str, ...]:
    """The changes that a run holds: those that were asked for, unless flags were typed that make it another set."""
    if not _flags_beside(asked, design, regime):
        return tuple(asked)
    trained = {name for name in asked if FILES[name].trains_otherwise}
    return (*changes_in(design, regime), *trained)


def changes_in(design: Design, regime: str) -> tuple[str, ...]:
    """The changes of the network that a design holds: those whose first flag has the value that they give it.

    A change spelled as a flag (design.act=gelu) is the change; a kernel of 99 or a width of 100 is none. A change whose
    first flag a later one sets anew (a step kernel_13 behind kernel_7) is held with that one.
    """
    start = _structure(design_for((), regime))
    deltas = {name: FILES[name].delta_in(regime) for name in CHANGES if not FILES[name].trains_otherwise}
    leads = {name: next(iter(delta)) for name, delta in deltas.items()}
    held = {name for name, flag in leads.items() if getattr(design, flag) == deltas[name][flag] != start[flag]}
    held |= {name for later in held for name in before(later) if name in leads and leads[name] in deltas[later]}
    return in_order(held)


def _flags_beside(changes: Sequence[str], design: Design, regime: str) -> dict[str, Any]:
    """The flags of the structure in which a design differs from its set of changes."""
    plain = _structure(design_for(changes, regime))
    return {flag: value for flag, value in _structure(design).items() if value != plain[flag]}


def _structure(design: Design) -> dict[str, Any]:
    return {flag: getattr(design, flag) for flag in FLAGS if flag not in ASKS}


def _is_usual(recipe: Recipe, changes: tuple[str, ...]) -> bool:
    """Whether the label may leave out the recipe: that of all changes, with a change."""
    return recipe.name == "enhanced" and bool(changes)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
