"""The tables of choices: each is what the schema allows, each line leads to code, and keys without effect follow."""

import dataclasses
from typing import Any

import pytest

from experiments.config import registry
from experiments.config.fields import Choice, rule_of
from experiments.config.settings import Data, Logger, Recipe

TABLES = {
    (Recipe, "optimizer"): registry.OPTIMIZERS,
    (Recipe, "loss"): registry.LOSSES,
    (Recipe, "schedule"): registry.SCHEDULES,
    (Recipe, "crop"): registry.CROPS,
    (Data, "reader"): registry.READERS,
    (Logger, "name"): registry.LOGGERS,
}
ENTRIES = [(key[1], name, entry) for key, table in TABLES.items() for name, entry in table.items()]


@pytest.mark.parametrize(("section", "key"), TABLES)
def test_the_schema_allows_what_a_table_holds(section: type, key: str) -> None:
    field = next(item for item in dataclasses.fields(section) if item.name == key)
    rule = rule_of(field)
    assert isinstance(rule, Choice)
    assert rule.options == tuple(TABLES[section, key])


@pytest.mark.parametrize(("key", "name", "entry"), ENTRIES, ids=[f"{key}={name}" for key, name, _ in ENTRIES])
def test_every_line_leads_to_code_and_names_keys_that_exist(key: str, name: str, entry: registry.Entry) -> None:
    code: Any = entry.load()
    assert (code is None) == (entry.home is None) == (name == "local")
    fields = {item.name for item in dataclasses.fields(Recipe)}
    assert set(entry.reads) <= fields


def test_a_key_is_unread_exactly_where_the_choice_does_not_list_it() -> None:
    found = dict(registry.unread({"optimizer": "sgd", "loss": "bce", "schedule": "constant", "crop": "resized"}))
    assert found == {
        "betas": "recipe.optimizer=sgd",
        "min_lr": "recipe.schedule=constant",
        "decay_every": "recipe.schedule=constant",
        "decay_factor": "recipe.schedule=constant",
        "crop_pad": "recipe.crop=resized",
    }
