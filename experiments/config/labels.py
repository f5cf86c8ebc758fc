"""Where a run stands: its set of changes, its step of the ladder and its label.

All three follow from the resolved design and recipe alone, not from how they were typed, so that every spelling of a
run leads to one directory and one record.
"""

from typing import Any, NamedTuple

from experiments.config.settings import Recipe
from roadmap.design import FLAGS, Design, flags_asked_by
from roadmap.resolve import design_for, label_of, step_at
from roadmap.steps import BY_NAME, CHANGES

# What recipe and data ask of the design: these flags make no step of the ladder.
ASKS = flags_asked_by("recipe", "data")
LONGEST = 120  # characters of a label: file systems allow a name about twice as many


class RunLabels(NamedTuple):
    """The ladder step that a run is at (None off the ladder), its changes in ladder order, its label."""

    step: str | None
    changes: tuple[str, ...]
    label: str


def labels_of(design: Design, recipe: Recipe, regime: str) -> RunLabels:
    """Find out where a run stands from what it was resolved to."""
    changes = changes_in(design, regime)
    flags = _flags_beside(changes, design, regime)
    at = step_at(changes, recipe.name)
    marks = [f"+{recipe.name}"] if at is None and not _is_usual(recipe, changes) else []
    marks += [f"+{flag}_{_shown(value)}".lower() for flag, value in flags.items()]
    marks += [f"-{name}" for name in recipe.without]
    step = at if not flags and not recipe.without else None
    return RunLabels(step, changes, ((at or label_of(changes)) + "".join(marks))[:LONGEST])


def changes_in(design: Design, regime: str) -> tuple[str, ...]:
    """The changes that a design holds: those whose first flag, after which they are named, has the value they give it.

    A change spelled as a flag (design.act=gelu) is the change; a kernel of 13 or a width of 100 is none. A change whose
    first flag a later one sets anew (a step kernel_13 behind kernel_7) is held with that one.
    """
    start = _structure(design_for((), regime))
    deltas = {name: BY_NAME[name].delta_in(regime) for name in CHANGES}
    leads = {name: next(iter(delta)) for name, delta in deltas.items()}
    held = {name for name, flag in leads.items() if getattr(design, flag) == deltas[name][flag] != start[flag]}
    held |= {name for later in held for name in BY_NAME[later].changes if leads[name] in deltas[later]}
    return tuple(name for name in CHANGES if name in held)


def _flags_beside(changes: tuple[str, ...], design: Design, regime: str) -> dict[str, Any]:
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
