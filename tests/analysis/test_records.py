"""What a record's row says whatever its age: keys that came later, changes of the training, folders that are missing."""

import dataclasses
from typing import Any

import pytest

from analysis import records
from experiments.config.fields import later
from experiments.config.settings import Data, Recipe
from tests.analysis import factory


def row(**fields: Any) -> dict[str, Any]:
    """The row of a kernel_7 whose record has other fields."""
    return records.flatten("x", factory.record("kernel_7") | fields)[0]


@pytest.mark.parametrize("section, cls", [("recipe", Recipe), ("data", Data)])
def test_a_key_that_came_later_splits_no_ladder(monkeypatch: pytest.MonkeyPatch, section: str, cls: type) -> None:
    """A record from before the key is one that has it at the value that was computed before it."""
    younger = dataclasses.make_dataclass(
        "Younger", [("fresh", float, later(1.0, before=0.0))], bases=(cls,), frozen=True
    )
    monkeypatch.setitem(records._SECTIONS, section, younger)
    records._before.cache_clear()
    old = factory.record("kernel_7")
    values = {key: old[section] | {"fresh": value} for key, value in (("same", 0.0), ("other", 1.0))}
    rows = {key: row(**{section: value}) for key, value in values.items()}
    key = "variant" if section == "recipe" else "profile"
    assert rows["same"][key] == row()[key] != rows["other"][key]
    records._before.cache_clear()
