"""Changes: named deltas, each read from one file of `step/`, the only place where it is written down."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from roadmap.design import FLAGS
from roadmap.errors import DesignError
from roadmap.files import found, read
from roadmap.regimes import filled

TRAINING = ("recipe", "batch")  # sections of the config that a change may set beside flags of the design
Delta = Mapping[str, Any]  # key -> value; a flag of the design as it is, any other key with its section: "recipe.ema"


@dataclass(frozen=True)
class Change:
    """What one step file says.

    Attributes:
        name: of the file, and of its change.
        raw: its delta as written, with values that depend on the regime left open; empty for a step that only chooses
            the recipe.
        parent: the step that its `defaults` name, behind which it stands as a side branch; None where a roadmap's own
            list says where it stands.
        recipe: the recipe that its `defaults` choose, if any.
    """

    name: str
    raw: Any = field(hash=False)
    parent: str | None
    recipe: str | None

    def delta_in(self, regime: str) -> dict[str, Any]:
        """What it sets in a regime."""
        flat: dict[str, Any] = {}
        for key, value in filled(self.raw, regime).items():
            flat |= {f"{key}.{name}": one for name, one in value.items()} if key in TRAINING else {key: value}
        return {key: tuple(value) if isinstance(value, list) else value for key, value in flat.items()}

    @cached_property
    def delta(self) -> dict[str, Any]:
        """What it sets at the paper's main scale (regime tiny)."""
        return self.delta_in("tiny")

    def design_in(self, regime: str) -> dict[str, Any]:
        """The flags of the design that it sets in a regime."""
        return {key: value for key, value in self.delta_in(regime).items() if "." not in key}

    @property
    def trains_otherwise(self) -> bool:
        """Whether it sets keys of the training, alone or beside flags of the design."""
        return any("." in key for key in self.delta)


def _change(name: str, path: Path) -> Change:
    """One step file; DesignError where it does not say what it must."""
    content = read(path)
    if content.get("step") != name:
        raise DesignError(f"{path} must say step: {name}, as the file is named")
    parents: list[str] = []
    recipe = None
    for entry in content.get("defaults") or ():
        if isinstance(entry, Mapping):
            recipe = entry.get("override /recipe", recipe)
        elif entry != "_self_":
            parents.append(str(entry))
    changes = content.get("changes") or {}
    if len(parents) > 1 or set(changes) - {name}:
        raise DesignError(f"{path} must name at most one parent in its defaults and one change, {name}")
    return Change(name, _checked(path, changes.get(name, {})), parents[0] if parents else None, recipe)


def _checked(path: Path, raw: Any) -> Any:
    """A delta whose keys exist as far as can be told here; values are checked where they are used."""
    if isinstance(raw, str):  # all of it depends on the regime
        return raw
    known = (*FLAGS, *TRAINING)
    for key, value in raw.items():
        if key not in known or (key in TRAINING and not isinstance(value, Mapping)):
            raise DesignError(f"{path}: {key}={value} is no flag of the design and none of: {', '.join(TRAINING)}")
    return raw


FILES = {name: _change(name, path) for name, path in found("step").items()}
