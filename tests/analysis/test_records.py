"""What the row of a record says whatever its age: keys that came later, changes of the training, missing folders."""

import dataclasses
from typing import Any

import pandas as pd
import pytest

from analysis import records
from experiments.config.fields import later
from experiments.config.settings import Data, Recipe
from roadmap.steps import DEFAULT
from tests.analysis import factory
from tests.analysis.composed import record


def flat(content: dict[str, Any]) -> dict[str, Any]:
    """The row of a record."""
    return records.flatten("x", content)[0]


def row(**fields: Any) -> dict[str, Any]:
    """The row of a kernel_7 whose record has other fields."""
    return flat(factory.record("kernel_7") | fields)


@pytest.mark.parametrize("section, cls", [("recipe", Recipe), ("data", Data)])
def test_a_key_that_came_later_splits_no_ladder(monkeypatch: pytest.MonkeyPatch, section: str, cls: type) -> None:
    """A record from before the key is one that has it at the value that was computed before it."""
    younger = dataclasses.make_dataclass(
        "Younger", [("fresh", float, later(1.0, before=0.0))], bases=(cls,), frozen=True
    )
    monkeypatch.setitem(records.RECORDED, section, younger)
    records._before.cache_clear()
    old = factory.record("kernel_7")
    values = {key: old[section] | {"fresh": value} for key, value in (("same", 0.0), ("other", 1.0))}
    rows = {key: row(**{section: value}) for key, value in values.items()}
    key = "variant" if section == "recipe" else "profile"
    assert rows["same"][key] == row()[key] != rows["other"][key]
    records._before.cache_clear()


def test_the_variant_is_the_recipe_without_the_changes() -> None:
    """A change of the batch moves the peak rate too; a typed key is no change."""
    usual = record(["+step=gelu"], 80.0)
    batch = {"size": 128, "micro": 64}
    rate = usual["recipe"]["lr"] * 2
    changed = usual | {
        "recipe": usual["recipe"] | {"lr": rate, "label_smoothing": 0.2, "drop_path": 0.3},
        "design": usual["design"] | {"drop_path": 0.3},
        "batch": batch,
        "replaced": {
            "recipe.label_smoothing": usual["recipe"]["label_smoothing"],
            "recipe.drop_path": usual["recipe"]["drop_path"],
            "batch.size": usual["batch"]["size"],
        },
    }
    variants = [flat(one)["variant"] for one in (usual, changed, changed | {"replaced": None})]
    assert variants[0] == variants[1] != variants[2]
    typed = [
        flat(record(["+step=gelu", *words], 80.0))["variant"]
        for words in (["recipe.lr=0.01"], ["batch.size=128", "recipe.lr=0.003"])
    ]
    assert len({variants[0], *typed}) == 3


def test_the_headline_is_of_the_averaged_weights_where_a_change_asked_for_them() -> None:
    typed = record(["+step=gelu", "recipe.ema=0.9"], 80.0, 81.0)
    changed = typed | {"replaced": {"recipe.ema": None}}
    off = typed | {"replaced": {"recipe.ema": None}, "top1_ema": None}  # recipe.without=[ema]
    assert [(flat(one)["top1"], flat(one)["averaged"]) for one in (typed, changed, off)] == [(80, 0), (81, 1), (80, 0)]


@pytest.mark.parametrize(
    "fields, unknown",
    [
        ({"step": None, "changes": ["magic"]}, "magic"),
        ({"step": "elsewhere.magic", "changes": ["magic", "gelu"]}, "magic"),
        ({"step": "elsewhere.magic", "changes": ["gelu"]}, ""),
        ({"step": None, "regime": "huge"}, "huge"),
    ],
)
def test_what_is_not_known_here_is_read_and_at_no_step(fields: dict[str, Any], unknown: str) -> None:
    found = flat(record(["+step=gelu"], 80.0) | fields)
    assert found["unknown"] == unknown
    assert records.located(pd.DataFrame([found]), DEFAULT)["step"].tolist() == [None]


def test_a_claim_that_is_known_to_be_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match="claims step kernel_7"):
        flat(record(["+step=gelu"], 80.0) | {"step": "kernel_7"})


def test_a_run_at_two_steps_is_at_the_first_unless_another_run_holds_the_change() -> None:
    """As if gelu had nothing to do: kernel_7 is the network of both. A run that holds it shows that it has."""
    runs = [record(["+step=kernel_7"], 80.0), record(["+step=fewer_activations"], 81.0)]
    runs = [
        one | {"idle": ["gelu"], "changes": [c for c in one["changes"] if c != "gelu"], "step": None} for one in runs
    ]
    frame = pd.DataFrame([flat(one) for one in runs]).assign(plain=1)
    assert records.located(frame, DEFAULT)["step"].tolist() == ["kernel_7", "fewer_activations"]
    held = pd.DataFrame([flat(record(["+step=gelu"], 80.0))])
    both = records.located(pd.concat([frame, held], ignore_index=True), DEFAULT)
    assert both["step"].tolist() == ["kernel_7", None, "gelu"]


STARTS = [
    {"start": "001-a", "from_step": 0, "to_step": 10, "threads": 1, "versions": {"torch": "2.5"}},
    {"start": "002-b", "from_step": 10, "to_step": 30, "threads": 2, "versions": {"torch": "2.5"}},
]


@pytest.mark.parametrize(
    "starts, number, mixed", [(None, None, ""), (STARTS[:1], 1, ""), (STARTS, 2, "from step 10 on: threads 1 -> 2")]
)
def test_a_run_of_several_starts_says_what_changed(starts: Any, number: int | None, mixed: str) -> None:
    found = row() if starts is None else row(starts=starts)
    assert (found["starts"], found["mixed"]) == (number, mixed)
