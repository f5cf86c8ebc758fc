"""500 random override sets: each is accepted with the values asked for, or refused in one line that names a key."""

import dataclasses
import math
from collections import Counter
from typing import Any

import pytest
import yaml

from experiments.config.compose import settings_from
from experiments.config.schema import compose
from experiments.config.settings import Settings
from roadmap.errors import UserError
from tests.experiments.config.fuzz import fuzzed_overrides, pools

SETS = 600
SHARDS = 4
SEED = 20261122


def value_in(settings: Settings, key: str) -> Any:
    found: Any = settings
    for part in key.split("."):
        found = getattr(found, part)
    return found


def same(found: Any, typed: str) -> bool:
    """Whether a setting holds what was typed."""
    if isinstance(found, tuple):
        words = [word for word in typed.strip("[]").split(",") if word]
        return [str(item) for item in found] == words or list(found) == [float(word) for word in words]
    if isinstance(found, dict):
        return found.items() >= yaml.safe_load(typed.replace(":", ": ")).items()
    if isinstance(found, bool) or found is None:
        return str(found).lower() == typed.replace("null", "none")
    if isinstance(found, int | float):
        return math.isclose(found, float(typed))
    return str(found) == typed


def arrived(settings: Settings, override: str, config: dict[str, Any]) -> bool:
    """Whether one accepted override is in the settings."""
    key, typed = override.split("=", 1)
    if key in ("recipe", "budget", "data", "logger"):
        return getattr(settings, key).name == typed
    if key == "regime":
        return settings.regime == typed
    if key == "roadmap":
        return config["roadmap"]["name"] == typed
    if key == "launcher":
        return typed in ("local", "ray", "slurm")
    if key == "+step":
        return config["step"] == typed
    if key in ("add", "drop"):
        names = [name for name in typed.strip("[]").split(",") if name]
        return all((name in (*settings.changes, *settings.idle)) == (key == "add") for name in names)
    if key == "recipe.without":
        return list(settings.recipe.without) == [name for name in typed.strip("[]").split(",") if name]
    if key == "match_gmacs":
        return typed == "null" or settings.step is None
    if key == "precision" and typed == "auto":
        return settings.precision == "fp32"
    if key == "recipe.lr" and typed == "null":
        return settings.lr > 0
    return same(value_in(settings, key), typed)


def test_the_sets_cover_every_key_ten_times() -> None:
    counts = Counter(override.split("=")[0] for item in fuzzed_overrides(SETS, SEED) for override in item)
    assert set(counts) == set(pools())
    assert min(counts.values()) >= 10, counts.most_common()[-5:]
    config = compose()
    leaves = {f"{name}.{key}" for name, value in config.items() if isinstance(value, dict) for key in value}
    tops = {name for name, value in config.items() if not isinstance(value, dict)}
    fixed = {
        key
        for key in leaves
        if key.split(".")[0] in ("regime", "roadmap", "study", "changes", "instead") or key.endswith(".name")
    }
    assert (leaves | tops) - fixed - {"step", "replan"} <= set(counts)  # replan is a study's


@pytest.mark.parametrize("shard", range(SHARDS))
def test_fuzzed_overrides(shard: int) -> None:
    accepted = 0
    sets = fuzzed_overrides(SETS, SEED)[shard::SHARDS]
    for typed in sets:
        overrides = typed if any(item.startswith("device=") for item in typed) else [*typed, "device=cpu"]
        try:
            config = compose(overrides)
            settings = settings_from(config, overrides)
        except UserError as error:
            line = str(error)
            assert "\n" not in line
            keys = [item.split("=")[0].lstrip("+") for item in typed]
            assert any(key in line for key in keys), (typed, line)
            continue
        accepted += 1
        for override in typed:
            assert arrived(settings, override, config), (typed, override)
        assert dataclasses.replace(settings) == settings
    assert accepted >= 0.6 * len(sets), accepted
