"""The ladder as it is read from conf/step: order, deltas, path, recipes, the paper's words for it."""

import pytest
import yaml

from roadmap import STEPS, DesignError, paper
from roadmap.files import CONF
from roadmap.regimes import REGIMES, regime
from roadmap.steps import BY_NAME, CHANGES, alternatives, step_named

LADDER = [
    ("resnet50", None, {}),
    ("enhanced_recipe", "resnet50", {}),
    ("stage_ratio", "enhanced_recipe", {"depths": (3, 3, 9, 3)}),
    ("patchify_stem", "stage_ratio", {"stem": "patchify"}),
    ("depthwise", "patchify_stem", {"groups": "depthwise"}),
    ("width", "depthwise", {"width": 96}),
    ("inverted_bottleneck", "width", {"inverted": True}),
    ("move_up_depthwise", "inverted_bottleneck", {"spatial_first": True}),
    ("kernel_5", "move_up_depthwise", {"kernel_size": 5}),
    ("kernel_7", "move_up_depthwise", {"kernel_size": 7}),
    ("kernel_9", "move_up_depthwise", {"kernel_size": 9}),
    ("kernel_11", "move_up_depthwise", {"kernel_size": 11}),
    ("gelu", "kernel_7", {"act": "gelu"}),
    ("fewer_activations", "gelu", {"fewer_acts": True}),
    ("fewer_norms", "fewer_activations", {"fewer_norms": True}),
    ("layer_norm", "fewer_norms", {"norm": "ln"}),
    ("separate_downsampling", "layer_norm", {"separate_downsample": True, "boundary_norms": True}),
]
SIDE_BRANCHES = {"kernel_5", "kernel_9", "kernel_11"}
KERNELS = SIDE_BRANCHES | {"kernel_7"}


def test_names_parents_and_deltas_in_ladder_order() -> None:
    assert [(step.name, step.parent, step.delta) for step in STEPS] == LADDER


def test_base_regime_widens_with_the_stage_ratio() -> None:
    assert BY_NAME["stage_ratio"].delta_in("base") == {"depths": (3, 3, 27, 3), "width": 84}
    assert BY_NAME["width"].delta_in("base") == {"width": 128}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_changes_are_the_deltas_met_on_the_way_up(step) -> None:
    names, name = [], step.name
    while name is not None:
        if BY_NAME[name].delta:
            names.insert(0, name)
        name = BY_NAME[name].parent
    assert step.changes == tuple(names)


def test_changes_leave_out_the_two_recipe_steps() -> None:
    assert tuple(name for name, _, delta in LADDER if delta) == tuple(name for name in CHANGES if name in BY_NAME)


def test_path_and_recipes() -> None:
    assert {step.name for step in STEPS if not step.on_path} == SIDE_BRANCHES
    assert [step.name for step in STEPS if step.recipe == "original"] == ["resnet50"]
    assert {step.recipe for step in STEPS} == {"original", "enhanced"}


@pytest.mark.parametrize("name", [name for name in CHANGES if name in BY_NAME])
def test_of_its_own_only_kernels_are_alternatives_of_each_other(name) -> None:
    assert alternatives(name) & set(BY_NAME) == (KERNELS - {name} if name in KERNELS else set())


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_file_holds_its_own_name_and_only_its_own_change(step) -> None:
    content = yaml.safe_load((CONF / "step" / f"{step.name}.yaml").read_text())
    assert content["step"] == step.name
    assert set(content) <= {"defaults", "step", "changes"}
    assert set(content.get("changes", {step.name: None})) == {step.name}


def test_the_paper_has_every_step_in_the_same_order_in_both_regimes() -> None:
    for name in ("tiny", "base"):
        rows = [row for row in paper.rows() if row.regime == name and not row.is_reference]
        assert [row.step for row in rows] == [step.name for step in STEPS]
        assert [row.order for row in rows] == list(range(len(STEPS)))
        assert all(70 < row.top1 < 90 for row in rows)


def test_labels_and_sections_are_the_papers() -> None:
    assert BY_NAME["resnet50"].label == "ResNet-50 (PyTorch)"
    assert BY_NAME["separate_downsampling"].label == "separate d.s. conv (ConvNeXt-T)"
    assert BY_NAME["kernel_9"].section == "large kernel"
    assert [row.step for row in paper.rows() if not row.adopted and not row.is_reference] == [
        "kernel_9",
        "kernel_11",
    ] * 2


def test_paper_has_no_row_for_other_regimes_or_steps() -> None:
    assert paper.row("kernel_7", "micro") is None
    assert paper.row("no_such_step") is None


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(DesignError, match=r"step='kernel_8' is not one of: resnet50, enhanced_recipe, .*kernel_11"):
        step_named("kernel_8")
    with pytest.raises(DesignError, match="regime='huge' is not one of: tiny, base, micro"):
        regime("huge")


@pytest.mark.parametrize("name", REGIMES)
def test_regime_files_hold_the_same_keys(name) -> None:
    values = regime(name)
    assert values["name"] == name
    assert set(values) - {"stem_factor"} == {"name", "depths", "width", "stage_ratio", "wide", "drop_path"}


def test_steps_are_hashable_and_frozen() -> None:
    assert len(set(STEPS)) == 17
    with pytest.raises(AttributeError):
        STEPS[0].name = "other"
