"""Sets of changes: which set is meant, its name, the design it gives, and every request that is refused."""

import itertools

import pytest

from roadmap import STEPS, Design, DesignError, design_for, label_of, set_of, step_at
from roadmap.regimes import REGIMES
from roadmap.steps import BY_NAME, CHANGES, alternatives

FULL = BY_NAME["separate_downsampling"].changes
KERNELS = ("kernel_5", "kernel_7", "kernel_9", "kernel_11")
OWN = tuple(name for name in CHANGES if name in BY_NAME)  # ConvNeXt's
OTHERS = tuple(name for name in OWN if name not in KERNELS)


def all_subsets() -> list[tuple[str, ...]]:
    """Every set of ConvNeXt's changes that can be: any of the others, with one kernel or none."""
    subsets = (
        {*others, *kernel}
        for count in range(len(OTHERS) + 1)
        for others in itertools.combinations(OTHERS, count)
        for kernel in ((), *((name,) for name in KERNELS))
    )
    return [tuple(name for name in OWN if name in subset) for subset in subsets]


def test_labels_are_unique_over_all_subsets_and_readable_as_file_names() -> None:
    subsets = all_subsets()
    assert len(subsets) == 2**11 * 5
    labels = {label_of(subset) for subset in subsets}
    assert len(labels) == len(subsets)
    assert all(label.replace("_", "").replace("-", "").replace("+", "").isalnum() for label in labels)


def test_labels_say_how_to_get_there() -> None:
    for subset in all_subsets()[::7]:
        parts = label_of(subset).replace("+", " +").replace("-", " -").split()
        drop = [part[1:] for part in parts[1:] if part[0] == "-"]
        add = [part[1:] for part in parts[1:] if part[0] == "+"]
        assert set_of(parts[0], drop=drop, add=add) == subset


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step_is_its_own_label_and_found_by_its_changes(step) -> None:
    expected = "resnet50" if step.name == "enhanced_recipe" else step.name  # the same network
    assert label_of(step.changes) == expected
    assert label_of(tuple(reversed(step.changes))) == expected
    assert step_at(step.changes, step.recipe) == step.name
    assert step_at(step.changes, "no_such_recipe") is None


def test_labels_of_neighbours() -> None:
    assert label_of(set_of("separate_downsampling", drop=["kernel_7"])) == "separate_downsampling-kernel_7"
    assert label_of(("gelu", "layer_norm")) == "resnet50+gelu+layer_norm"
    assert step_at(("gelu", "layer_norm")) is None


@pytest.mark.parametrize("name", FULL)
def test_leave_one_out_and_add_one_in(name) -> None:
    assert set_of("separate_downsampling", drop=[name]) == tuple(other for other in FULL if other != name)
    assert set_of("enhanced_recipe", add=[name]) == (name,)
    assert set_of([name]) == (name,)


def test_alternatives_replace_each_other() -> None:
    assert set_of("gelu", add=["kernel_11"]) == set_of("gelu", drop=["kernel_7"], add=["kernel_11"])
    assert "kernel_7" not in set_of("gelu", add=["kernel_11"])


def test_order_of_names_does_not_matter() -> None:
    assert set_of("resnet50", add=["gelu", "width"]) == set_of(["gelu", "width"]) == ("width", "gelu")


REFUSED = [
    (("kernel_8",), {}, r"^step='kernel_8' is not one of: resnet50, .*separate_downsampling$"),
    ((["kernel_8"],), {}, r"^changes='kernel_8' is not one of: stage_ratio, .*separate_downsampling; "),
    ((["resnet50"],), {}, r"^changes=resnet50: it chooses the training recipe and is no change; use recipe=$"),
    (("gelu",), {"add": ["gelu"]}, r"^add=gelu: it is already in the set: stage_ratio, .*gelu$"),
    (("gelu",), {"add": ["swish"]}, r"^add='swish' is not one of: stage_ratio, "),
    (("gelu",), {"add": ["enhanced_recipe"]}, r"^add=enhanced_recipe: .*use recipe=$"),
    (("gelu",), {"drop": ["resnet50"]}, r"^drop=resnet50: .*use recipe=$"),
    (("gelu",), {"drop": ["layer_norm"]}, r"^drop=layer_norm: it is not in the set; there is: stage_ratio, .*gelu$"),
    (("resnet50",), {"drop": ["gelu"]}, r"^drop=gelu: it is not in the set; there is: nothing$"),
    (("gelu",), {"drop": ["swish"]}, r"^drop='swish' is not one of: "),
    (("gelu",), {"drop": ["gelu", "gelu"]}, r"^drop=gelu: gelu is in the same list"),
    (("width",), {"add": ["kernel_5", "kernel_7"]}, r"^add=kernel_7: kernel_5 is in the same list"),
    ((["kernel_5", "kernel_9"],), {}, r"^changes=kernel_9: kernel_5 is in the same list"),
    (("gelu",), {"add": "layer_norm"}, r"^add='layer_norm' must be a list of changes, e\.g\. add=\[layer_norm\]$"),
    (("gelu",), {"regime": "huge"}, r"^regime='huge' is not one of: tiny, base, micro, "),
    (("gelu",), {"kernel": 7}, r"^unknown design flag 'kernel'; the flags are: depths, "),
    (("gelu",), {"kernel_size": 8}, r"^design\.kernel_size=8 must be an odd"),
    (("resnet50",), {"groups": 48}, r"^design\.groups=48 does not divide the 64 channels .* such as 16$"),
]


@pytest.mark.parametrize("args, kwargs, message", REFUSED)
def test_impossible_requests_name_the_key_and_what_is_allowed(args, kwargs, message) -> None:
    with pytest.raises(DesignError, match=message) as caught:
        design_for(*args, **kwargs)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step_differs_from_its_parent_by_its_own_delta(step, regime) -> None:
    before = design_for(step.parent or step.name, regime)
    assert design_for(step.name, regime) == before.replace(**step.delta_in(regime))


def test_ends_of_the_ladder() -> None:
    assert design_for("resnet50") == design_for("enhanced_recipe") == Design()
    assert design_for("resnet50", "base") == Design(depths=(3, 24, 36, 3))
    assert design_for("separate_downsampling", "base") == Design(
        depths=(3, 3, 27, 3),
        width=128,
        stem="patchify",
        groups="depthwise",
        kernel_size=7,
        inverted=True,
        spatial_first=True,
        act="gelu",
        fewer_acts=True,
        fewer_norms=True,
        norm="ln",
        separate_downsample=True,
        boundary_norms=True,
    )


def test_typed_flags_come_last() -> None:
    assert design_for("kernel_7", kernel_size=13).kernel_size == 13
    assert design_for("kernel_7", add=["gelu"], drop=["width"], act="relu", width=80) == design_for(
        "kernel_7", width=80
    )


def test_any_change_can_stand_alone_or_be_left_out() -> None:
    for name in OWN:
        alone = design_for([name])
        assert {flag: getattr(alone, flag) for flag in BY_NAME[name].delta} == BY_NAME[name].delta
        if name in FULL:
            assert design_for("separate_downsampling", drop=[name]) != design_for("separate_downsampling")
    assert all(name in alternatives(other) for name, other in itertools.permutations(KERNELS, 2))
