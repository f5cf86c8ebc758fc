"""Lists of runs that are no grid: each generator returns override lists, one per run (`study.list` names it)."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from experiments.errors import ConfigError
from roadmap.steps import STEPS

Runs = list[list[str]]


def leave_one_out() -> Runs:
    """The last step, and the last step minus each of its changes."""
    last = f"+step={STEPS[-1].name}"
    return [[last], *([last, f"drop=[{change}]"] for change in STEPS[-1].changes)]


def add_one_in() -> Runs:
    """ResNet-50 under the enhanced recipe, and with each change of the last step alone."""
    first = "+step=enhanced_recipe"
    return [[first], *([first, f"add=[{change}]"] for change in STEPS[-1].changes)]


GENERATORS: Mapping[str, Callable[..., Runs]] = {
    "leave_one_out": leave_one_out,
    "add_one_in": add_one_in,
}


def runs_of(name: str, params: Mapping[str, Any]) -> Runs:
    """The runs of a generated list.

    Raises:
        ConfigError: an unknown list, or a parameter that it does not take.
    """
    if name not in GENERATORS:
        raise ConfigError(f"study.list={name} is not one of: {', '.join(GENERATORS)}")
    allowed = inspect.signature(GENERATORS[name]).parameters
    for key in params:
        if key not in allowed:
            raise ConfigError(f"study.params.{key} is not one of: {', '.join(allowed) or 'none for this list'}")
    return GENERATORS[name](**params)
