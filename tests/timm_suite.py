"""A pytest plugin: timm's own tests/test_models.py on the networks that this project registers.

    make timm-suite TIMM=DIR

DIR is a checkout of timm, of the installed version. Its tests list what they run on by `timm.list_models`; with this
plugin that knows our names alone, whatever module of timm's a test asks for. Tests of one network of timm's by name are
left out. ROADMAP_TIMM_NAMES (patterns, comma-separated) takes the place of `NAMES`.
"""

import fnmatch
import os
from typing import Any

import pytest
import timm

import roadmap.timm_models  # noqa: F401  (registers the networks)
from roadmap.resolve import qualified
from roadmap.steps import DEFAULT, ROADMAPS, Roadmap


def _registered(regime: str, road: Roadmap) -> list[str]:
    """The names of the steps of a road that change the network: timm has the others' under that of another step."""
    names = [f"roadmap_{regime}_{qualified(step).replace('.', '_')}" for step in road.steps]
    return [name for name in names if timm.is_model(name)]


REGIMES = ("tiny", "base", "micro")
NAMES = [
    *(name for regime in REGIMES for name in _registered(regime, DEFAULT)),
    *(names[-1] for road in ROADMAPS.values() if (names := _registered("tiny", road)) and road is not DEFAULT),
]
PATTERNS = os.environ.get("ROADMAP_TIMM_NAMES", "").split(",") if "ROADMAP_TIMM_NAMES" in os.environ else NAMES
_list_models = timm.list_models


def _ours(filter: Any = "", module: Any = "", *args: Any, **kwargs: Any) -> list[str]:
    """`timm.list_models` of our names; a test that goes by modules of timm's means networks with that ability."""
    return [
        name
        for name in _list_models(filter, "", *args, **kwargs)
        if any(fnmatch.fnmatch(name, pattern) for pattern in PATTERNS)
    ]


def pytest_configure() -> None:
    """Before test_models.py is imported, which takes the function from the package."""
    timm.list_models = _ours


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what runs on our names."""
    kept = [item for item in items if _name_of(item).startswith("roadmap_")]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _name_of(item: pytest.Item) -> str:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    name = params.get("model_name", "")
    return name if isinstance(name, str) else ""
