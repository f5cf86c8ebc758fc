"""Generated lists of runs: the sets they hold, the balance of the factorial, the techniques of the recipe study."""

import itertools
from typing import Any

import pytest
import yaml

from experiments.config.compose import settings_from
from experiments.config.schema import compose
from experiments.config.settings import Recipe, Settings
from experiments.config.techniques import TECHNIQUES, is_on
from experiments.errors import ConfigError
from experiments.studies import lists
from roadmap.effects import paired, subsets
from roadmap.files import CONF
from roadmap.steps import CHANGES, END

PLAYERS = END.changes
CONVNEXT = lists.Lists()
BUDGET = ("budget=paper", "data=imagenet", "device=cpu", "regime=micro")


def settings(entry: list[str]) -> Settings:
    typed = [*BUDGET, *entry]
    return settings_from(compose(typed), typed)


def recipe_of(entry: Any) -> Recipe:
    return settings(list(entry)).recipe


def sets_of(runs: lists.Runs) -> list[frozenset[str]]:
    """The sets of changes, read from the overrides without composing."""
    found = []
    for run in runs:
        assert run[0] == CONVNEXT.plain
        names = run[1].removeprefix("add=[").removesuffix("]").split(",") if len(run) > 1 else []
        assert set(names) <= set(CHANGES)
        found.append(frozenset(names))
    return found


def test_subset_is_what_it_says() -> None:
    assert settings(CONVNEXT.subset(("gelu", "width"))).changes == ("width", "gelu")
    assert settings(CONVNEXT.subset(())).step == "enhanced_recipe"
    assert settings(CONVNEXT.subset(PLAYERS)).step == "separate_downsampling"


def test_orders_factorial_and_subsets_are_the_sets_of_the_combinatorics() -> None:
    drawn = subsets.orders(PLAYERS, 10, seed=3)
    assert lists.orders_of("orders", {"orders": 10, "seed": 3}) == drawn
    assert lists.orders_of("factorial", {}) == []
    for runs, sets in (
        (CONVNEXT.orders(10, 3), subsets.sets_of_orders(drawn, PLAYERS)),
        (CONVNEXT.paired_sets(40, 3), paired.paired_sets(PLAYERS, 40, 3)),
        (CONVNEXT.factorial(), subsets.factorial(PLAYERS)),
        (CONVNEXT.subsets(["layer_norm", "gelu"]), subsets.all_subsets(("gelu", "layer_norm"))),
    ):
        assert sets_of(runs) == [frozenset(one) for one in sets]


@pytest.mark.parametrize("count", [0, 3, -2])
def test_orders_come_in_pairs(count: int) -> None:
    with pytest.raises(ConfigError, match=r"study\.params\.orders"):
        CONVNEXT.orders(count, 0)


def test_paired_sets_are_as_many_as_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"study\.params\.sets=3 must be 4 to 4096"):
        CONVNEXT.paired_sets(3)


def test_all_subsets_of_chosen_changes() -> None:
    sets = sets_of(CONVNEXT.subsets(["gelu", "width", "depthwise"]))
    assert len(set(sets)) == 8
    assert sets[0] == frozenset()
    for bad in ([], ["kernel_6"], [*PLAYERS], ["gelu", "gelu"], ["kernel_5", "kernel_7"], "gelu"):
        with pytest.raises(ConfigError, match=r"study\.params\.changes"):
            CONVNEXT.subsets(bad)


def test_kernels_with_and_without_the_move() -> None:
    study = yaml.safe_load((CONF / "study" / "kernel_without_move.yaml").read_text())["study"]
    runs = lists.runs_of(study["list"], study["params"], recipe_of)
    composed = [settings(run) for run in runs]
    assert len({frozenset(item.changes) for item in composed}) == len(runs) == 20
    table = {(item.design.inverted, item.design.spatial_first, item.design.kernel_size) for item in composed}
    assert table == set(itertools.product((False, True), (False, True), (3, 5, 7, 9, 11)))
    assert {item.design.groups for item in composed} == {"depthwise"}
    steps = {item.step for item in composed}
    assert {"inverted_bottleneck", "move_up_depthwise", "kernel_5", "kernel_7", "kernel_9", "kernel_11"} <= steps


def test_leave_one_out_and_add_one_in() -> None:
    full, *less = [settings(run) for run in CONVNEXT.leave_one_out()]
    assert full.step == "separate_downsampling"
    assert [set(full.changes) - set(item.changes) for item in less] == [{name} for name in PLAYERS]
    none, *more = sets_of(CONVNEXT.add_one_in())
    assert none == frozenset()
    assert more == [frozenset((name,)) for name in PLAYERS]


def test_small_lists() -> None:
    scales = [settings(run) for run in CONVNEXT.layer_scale()]
    assert [(item.step, item.design.layer_scale) for item in scales] == [
        (step, value) for step in ("enhanced_recipe", "separate_downsampling") for value in (1e-6, None)
    ]
    with_norms, without = (settings(run).design for run in CONVNEXT.diverging_downsampling())
    assert without == with_norms.replace(boundary_norms=False)


def test_the_recipe_study_switches_one_technique_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [settings(run) for run in lists.Lists(recipe_of=recipe_of).recipe()]
    enhanced, original = (item.recipe for item in runs[:2])
    techniques = lambda recipe: {name for name in TECHNIQUES if is_on(recipe, name)}  # noqa: E731
    minus = [item.recipe for item in runs[2:] if item.recipe.name == "enhanced"]
    plus = [item.recipe for item in runs[2:] if item.recipe.name == "original"]
    assert [techniques(enhanced) - techniques(item) for item in minus] == [
        {name} for name in TECHNIQUES if is_on(enhanced, name)
    ]
    assert [techniques(item) - techniques(original) for item in plus] == [
        {name} for name in TECHNIQUES if is_on(enhanced, name) and not is_on(original, name)
    ]
    assert "left out: ema is off" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, params, key",
    [
        ("best", {}, "study.list=best"),
        ("leave_one_out", {"depth": 3}, "study.params.depth"),
        ("orders", {"orders": "many"}, "study.params.orders"),
        ("orders", {"recipe_of": 1}, "study.params.recipe_of"),
        ("next", {"question": "best"}, "study.params.question=best must be shapley"),
        ("next", {"question": ["gelu"]}, "study.params.question"),
        ("next", {"round": 0}, "study.params.round must be at least 1"),
        ("crossed", {"base": ["gelu"], "factors": [["gelu"]]}, "study.params.base and factors: add=gelu"),
        ("crossed", {"factors": [["silu"]]}, "'silu' is not one of: stage_ratio"),
    ],
)
def test_unknown_lists_and_parameters(name: str, params: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lists.runs_of(name, params, recipe_of)
    assert key in str(caught.value)
