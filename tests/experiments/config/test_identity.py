"""Recorded runs stay known: the ids in tests/golden/identities.json hold, whatever flags and keys have come since."""

import dataclasses
import json
from typing import Any

import pytest

from experiments.config.fields import Range, later
from experiments.config.identity import Identity
from experiments.config.settings import Recipe, Settings
from roadmap import Design
from tests.experiments.config.identities import ASKED, FILE, settings_for

GOLDEN: dict[str, Any] = json.loads(FILE.read_text())
YOUNGER = {"fake": later(0.5, Range(0, 1), before=0.0)}  # its default has moved on since


def with_fake(cls: type) -> type:
    """The dataclass with a field that came after the records."""
    fields = [(name, float, field) for name, field in YOUNGER.items()]
    return dataclasses.make_dataclass(cls.__name__, fields, bases=(cls,), frozen=True)


@pytest.mark.parametrize("asked", GOLDEN)
def test_recorded_settings_keep_their_id(asked: str) -> None:
    settings = Settings.from_dict(GOLDEN[asked]["settings"])
    assert Identity.of(settings).run_id == GOLDEN[asked]["run_id"]


@pytest.mark.parametrize("asked", ASKED, ids=" ".join)
def test_what_is_asked_for_today_has_the_recorded_id(asked: tuple[str, ...]) -> None:
    assert Identity.of(settings_for(asked)).run_id == GOLDEN[" ".join(asked)]["run_id"]


@pytest.mark.parametrize(("section", "cls"), [("design", Design), ("recipe", Recipe)])
def test_a_younger_field_leaves_every_id_as_it_is(section: str, cls: type, monkeypatch: pytest.MonkeyPatch) -> None:
    younger: Any = with_fake(cls)
    for entry in GOLDEN.values():
        settings = Settings.from_dict(entry["settings"])
        values = {item.name: getattr(getattr(settings, section), item.name) for item in dataclasses.fields(cls)}
        as_before = settings.replace(**{section: younger(**values, fake=0.0)})
        assert Identity.of(as_before).run_id == entry["run_id"]
        assert Identity.of(settings.replace(**{section: younger(**values)})).run_id != entry["run_id"]


def test_values_that_lack_a_younger_field_get_what_was_computed_before_it() -> None:
    younger: Any = with_fake(Recipe)
    fields = [
        (item.name, younger if item.name == "recipe" else item.type, dataclasses.field(**_as_it_is(item)))
        for item in dataclasses.fields(Settings)
    ]
    later_settings: Any = dataclasses.make_dataclass("Later", fields, bases=(Settings,), frozen=True)
    for entry in GOLDEN.values():
        settings = later_settings.from_dict(entry["settings"])
        assert settings.recipe.fake == 0.0
        assert Identity.of(settings).run_id == entry["run_id"]


def _as_it_is(item: "dataclasses.Field[Any]") -> dict[str, Any]:
    known = {"default": item.default, "default_factory": item.default_factory, "metadata": item.metadata}
    return {key: value for key, value in known.items() if value is not dataclasses.MISSING}
