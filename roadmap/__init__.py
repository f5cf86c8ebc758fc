"""The roads from ResNet-50 to ConvNeXt (arXiv 2201.03545) and other networks as one configurable network.

A design is a set of changes applied to ResNet-50; a step of a ladder is one such set. Importing this package is
light: torch is imported when a network is first built.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roadmap.complexity import Complexity, complexity_of
    from roadmap.design import Design
    from roadmap.errors import DesignError, UserError
    from roadmap.fit import WeightsError
    from roadmap.match import match_width
    from roadmap.network import build
    from roadmap.resolve import design_for, label_of, set_of, step_at
    from roadmap.seals import SealError
    from roadmap.steps import ROADMAPS, STEPS, Roadmap, Step
    from roadmap.weights import load

_HOMES = {
    "ROADMAPS": "steps",
    "STEPS": "steps",
    "Complexity": "complexity",
    "Design": "design",
    "DesignError": "errors",
    "Roadmap": "steps",
    "SealError": "seals",
    "Step": "steps",
    "UserError": "errors",
    "WeightsError": "fit",
    "build": "network",
    "complexity_of": "complexity",
    "design_for": "resolve",
    "label_of": "resolve",
    "load": "weights",
    "match_width": "match",
    "set_of": "resolve",
    "step_at": "resolve",
}

__all__ = [
    "ROADMAPS",
    "STEPS",
    "Complexity",
    "Design",
    "DesignError",
    "Roadmap",
    "SealError",
    "Step",
    "UserError",
    "WeightsError",
    "build",
    "complexity_of",
    "design_for",
    "label_of",
    "load",
    "match_width",
    "set_of",
    "step_at",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'roadmap' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"roadmap.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
