"""Steps without effect in some runs: data, regime, budget or a matched width leave their change nothing to do."""

from analysis.groups import Group
from roadmap.changes import FILES
from roadmap.files import found, read
from roadmap.resolve import idle_in
from roadmap.steps import Step


def no_effects(group: Group) -> dict[str, str]:
    """Steps of the ladder that are the network and training of the step before, each with the reason.

    In a reason, "{NAME}" stands for the label of a step.
    """
    idle = group.idle
    return {
        step.name: _reason(step, group)
        for step in group.road.steps
        if step.parent is not None and _same(step, group.road.by_name[step.parent], idle)
    }


def _same(step: Step, parent: Step, idle: frozenset[str]) -> bool:
    return step.recipe == parent.recipe and set(step.changes) - idle == set(parent.changes) - idle


def _reason(step: Step, group: Group) -> str:
    """Why a step has no effect, in a sentence."""
    if group.matched and set(FILES[step.name].delta_in(group.regime)) == {"width"}:
        return f"Widths are matched, so that “{{{step.name}}}” is the network of the step before it."
    keys = sorted(FILES[step.name].delta_in(group.regime))
    limits = read(found("data")[group.data]).get("recipe", {}) if group.data in found("data") else {}
    if step.name in idle_in(group.regime):
        by = f"regime={group.regime}"
    elif all(key.removeprefix("recipe.") in limits for key in keys):
        by = f"data={group.data}"
    else:
        by = "the data, the budget or typed keys"
    return f"“{{{step.name}}}” has no effect here: {', '.join(keys)} is fixed by {by}, so it is the row before it."
