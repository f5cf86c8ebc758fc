"""`STEPS`: the ladder, read from `conf/step/*.yaml`, the only place where a change is written down."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import yaml

from roadmap import paper
from roadmap.errors import DesignError
from roadmap.regimes import CONF, regime

_FROM_REGIME = re.compile(r"\$\{regime\.(\w+)\}")


@dataclass(frozen=True)
class Step:
    """One row of the ladder: the set of all changes up to it.

    Attributes:
        name: also the name of its file and of its change.
        parent: the step it builds on; None for the first.
        raw_delta: its own change as written, with values that depend on the regime left open.
        changes: names of all network changes up to and including its own, in ladder order.
        recipe: the training recipe in force at this step.
        on_path: True if the ladder's end descends from it (kernel_9 is a side branch, kernel_7 is on the path).
    """

    name: str
    parent: str | None
    raw_delta: Mapping[str, Any] = field(hash=False)
    changes: tuple[str, ...]
    recipe: str
    on_path: bool

    def delta_in(self, regime_name: str) -> dict[str, Any]:
        """The flags that this step's own change sets in a regime; empty for the two recipe steps."""
        filled = _fill(self.raw_delta, regime(regime_name))
        return {key: tuple(value) if isinstance(value, list) else value for key, value in filled.items()}

    @cached_property
    def delta(self) -> dict[str, Any]:
        """The flags that this step's own change sets, at the paper's main scale (regime tiny)."""
        return self.delta_in("tiny")

    @property
    def label(self) -> str:
        """The paper's label (Figure 2); the name in words for a step that the paper does not have."""
        row = paper.row(self.name)
        return row.label if row else self.name.replace("_", " ")

    @property
    def section(self) -> str:
        """The paper's section; "" for a step that the paper does not have."""
        row = paper.row(self.name)
        return row.section if row else ""


def _fill(value: Any, values: Mapping[str, Any]) -> Any:
    """Replace each "${regime.KEY}" by that regime's value."""
    if isinstance(value, Mapping):
        return {key: _fill(item, values) for key, item in value.items()}
    match = _FROM_REGIME.fullmatch(value) if isinstance(value, str) else None
    return values[match[1]] if match else value


def _natural(name: str) -> list[Any]:
    """Sort key that puts kernel_5 before kernel_11."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _read_files() -> dict[str, dict[str, Any]]:
    """The step files as name -> {parent, recipe (own choice or None), delta}."""
    files = {}
    for path in sorted((CONF / "step").glob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        parent = recipe = None
        for entry in content.get("defaults", []):
            if isinstance(entry, Mapping):
                recipe = entry.get("override /recipe", recipe)
            elif entry != "_self_":
                parent = entry
        files[path.stem] = {
            "parent": parent,
            "recipe": recipe,
            "delta": content.get("changes", {}).get(path.stem, {}),
        }
    return files


def _ladder_order(parents: Mapping[str, str | None]) -> list[str]:
    """Breadth-first over the parent links, siblings in natural order."""
    order: list[str] = []
    level = [name for name, parent in parents.items() if parent is None]
    while level:
        order += level
        level = [child for name in level for child in sorted((n for n in parents if parents[n] == name), key=_natural)]
    return order


def _end_of(order: Sequence[str]) -> str:
    """The last step that the paper has: what one adds behind it is a side branch of the ladder, not its new end."""
    published = {row.step for row in paper.rows()}
    return next(name for name in reversed(order) if name in published)


def _load() -> tuple[Step, ...]:
    files = _read_files()
    order = _ladder_order({name: file["parent"] for name, file in files.items()})
    path: set[str | None] = {_end_of(order)}
    for name in reversed(order):
        if name in path:
            path.add(files[name]["parent"])
    steps: dict[str, Step] = {}
    for name in order:
        file = files[name]
        before = steps.get(file["parent"])
        steps[name] = Step(
            name=name,
            parent=file["parent"],
            raw_delta=file["delta"],
            changes=(before.changes if before else ()) + ((name,) if file["delta"] else ()),
            recipe=file["recipe"] or (before.recipe if before else "original"),
            on_path=name in path,
        )
    return tuple(steps.values())


STEPS = _load()
START, END = STEPS[0], [step for step in STEPS if step.on_path][-1]  # ResNet-50 and ConvNeXt
BY_NAME = {step.name: step for step in STEPS}
CHANGES = tuple(step.name for step in STEPS if step.raw_delta)


def step_named(name: str) -> Step:
    """The step of that name.

    Raises:
        DesignError: there is no such step; the message lists them in ladder order.
    """
    if name not in BY_NAME:
        raise DesignError(f"step={name!r} is not one of: {', '.join(BY_NAME)}")
    return BY_NAME[name]


def alternatives(name: str) -> frozenset[str]:
    """The other changes that set the same flags from the same parent: kernel_5 and kernel_9 for kernel_7."""
    step = BY_NAME[name]
    return frozenset(
        other.name
        for other in STEPS
        if other.name != name and other.parent == step.parent and set(other.raw_delta) & set(step.raw_delta)
    )
