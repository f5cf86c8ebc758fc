"""The plan against the rules of the network, stated here flag by flag, over the whole product of flags."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadmap import STEPS, Design, DesignError, design_for
from roadmap.plan import BlockPlan, NetworkPlan, plan_network
from roadmap.regimes import REGIMES
from tests.roadmap.designs import SMALL, STRUCTURE, flag_product

# (flag's value) -> slots of the three convolutions in op order, written down rather than computed.
ROLES = {False: ["pw_in", "spatial", "pw_out"], True: ["spatial", "pw_in", "pw_out"]}
NORM_SLOTS = {  # (fewer_norms, spatial_first)
    (False, False): [True, True, True],
    (False, True): [True, True, True],
    (True, False): [False, True, False],
    (True, True): [True, False, False],
}
ACT_SLOTS = {False: ([True, True, False], True), True: ([False, True, False], False)}  # in the branch, after the sum


def check_block(block: BlockPlan, design: Design, thin: int, c_in: int, stride: int) -> None:
    """Every rule about one block of a stage that is `thin` channels wide on its thin side."""
    outer, hidden = (thin, 4 * thin) if design.inverted else (4 * thin, thin)
    convs = {conv.role: conv for conv in block.convs}
    assert [conv.role for conv in block.convs] == ROLES[design.spatial_first]
    assert [conv.norm for conv in block.convs] == NORM_SLOTS[design.fewer_norms, design.spatial_first]
    assert ([conv.act for conv in block.convs], block.act_after_sum) == ACT_SLOTS[design.fewer_acts]
    assert {conv.bias for conv in block.convs} == {design.norm == "ln"}

    assert (block.c_in, block.c_out, convs["pw_in"].c_out) == (c_in, outer, hidden)
    assert all(conv.c_out == following.c_in for conv, following in zip(block.convs, block.convs[1:], strict=False))
    assert convs["spatial"].c_in == convs["spatial"].c_out == (c_in if design.spatial_first else hidden)

    spatial = convs.pop("spatial")
    assert spatial.groups == (spatial.c_in if design.groups == "depthwise" else design.groups)
    assert (spatial.kernel, spatial.stride) == (design.kernel_size, stride)
    assert {(conv.kernel, conv.stride, conv.groups) for conv in convs.values()} == {(1, 1, 1)}

    if (c_in, stride) == (outer, 1):
        assert block.shortcut is None
    else:
        short = block.shortcut
        assert short is not None
        assert (short.c_in, short.c_out, short.kernel, short.stride, short.groups) == (c_in, outer, 1, stride, 1)
        assert (short.bias, short.norm, short.act) == (False, True, False)


def check_stem(plan: NetworkPlan, design: Design) -> int:
    """The stem's rules; returns its channels."""
    stem = plan.stem
    assert (stem.c_in, stem.c_out, stem.groups) == (3, round(design.width), 1)
    if design.stem == "patchify":
        stride = design.stem_stride
        assert (stem.kernel, stem.stride, plan.max_pool) == (stride, stride, False)
        assert (stem.bias, stem.norm, stem.act) == (True, design.boundary_norms, False)
    else:
        assert (stem.kernel, stem.bias, stem.norm, stem.act) == (7, False, True, True)
        assert (stem.stride, plan.max_pool) == {4: (2, True), 2: (2, False), 1: (1, False)}[design.stem_stride]
    return stem.c_out


def check(design: Design) -> None:
    """Every rule about a network's plan."""
    plan = plan_network(design)
    channels = check_stem(plan, design)
    assert len(plan.stages) == 4
    for index, stage in enumerate(plan.stages):
        thin = round(design.width * 2**index)
        outer = thin if design.inverted else 4 * thin
        stride = 1 if index == 0 else 2
        if design.separate_downsample and index > 0:
            down = stage.downsample
            assert down is not None
            assert (down.c_in, down.c_out, down.kernel, down.stride, down.groups) == (channels, outer, 2, 2, 1)
            assert (down.bias, down.norm, down.act) == (True, False, False)
            assert stage.norm_before == design.boundary_norms
            channels, stride = outer, 1
        else:
            assert (stage.downsample, stage.norm_before) == (None, False)
        assert len(stage.blocks) == design.depths[index]
        for block in stage.blocks:
            check_block(block, design, thin, channels, stride)
            channels, stride = outer, 1
    assert plan.head_norm == design.boundary_norms
    assert plan.features == channels
    assert total_stride(plan) == 8 * design.stem_stride


def total_stride(plan: NetworkPlan) -> int:
    """Product of all strides along the branch."""
    strides = [plan.stem.stride, 2 if plan.max_pool else 1]
    for stage in plan.stages:
        strides.append(stage.downsample.stride if stage.downsample else 1)
        strides += [conv.stride for block in stage.blocks for conv in block.convs]
    return math.prod(strides)


def test_the_whole_product_of_flags_keeps_every_rule() -> None:
    count = 0
    for flags in flag_product(STRUCTURE):
        check(Design(**SMALL, **flags))
        count += 1
    assert count == 23_040


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_every_step_keeps_every_rule(step, regime) -> None:
    check(design_for(step.name, regime))


@given(
    flags=st.fixed_dictionaries({flag: st.sampled_from(values) for flag, values in STRUCTURE.items()}),
    depths=st.tuples(*[st.integers(1, 5)] * 4),
    width=st.floats(1, 200) | st.integers(1, 200),
    kernel_size=st.integers(0, 15).map(lambda half: 2 * half + 1),
)
def test_loose_values_keep_every_rule(flags, depths, width, kernel_size) -> None:
    loose = {"depths": depths, "width": width, "kernel_size": kernel_size, "groups": "depthwise"}
    check(Design(**flags | loose))


@given(
    flags=st.fixed_dictionaries({flag: st.sampled_from(values) for flag, values in STRUCTURE.items()}),
    width=st.integers(1, 64),
    groups=st.integers(1, 80),
)
def test_groups_must_divide_every_spatial_convolution(flags: dict[str, Any], width: int, groups: int) -> None:
    flags = flags | {"width": width, "depths": (1, 2, 1, 2)}
    depthwise = plan_network(Design(**flags | {"groups": "depthwise"}))
    met = [conv.c_in for stage in depthwise.stages for block in stage.blocks for conv in block.convs if conv.groups > 1]
    fits = all(channels % groups == 0 for channels in met or [width])
    design = Design(**flags | {"groups": groups})
    if fits:
        check(design)
    else:
        with pytest.raises(DesignError, match=rf"^design\.groups={groups} does not divide the \d+ channels"):
            plan_network(design)


def test_resnet_and_convnext_blocks_as_their_papers_draw_them() -> None:
    resnet = plan_network(design_for("resnet50")).stages[0].blocks[1]
    convnext = plan_network(design_for("separate_downsampling")).stages[0].blocks[0]
    assert [(c.role, c.kernel, c.c_in, c.c_out, c.groups) for c in resnet.convs] == [
        ("pw_in", 1, 256, 64, 1),
        ("spatial", 3, 64, 64, 1),
        ("pw_out", 1, 64, 256, 1),
    ]
    assert [(c.role, c.kernel, c.c_in, c.c_out, c.groups) for c in convnext.convs] == [
        ("spatial", 7, 96, 96, 96),
        ("pw_in", 1, 96, 384, 1),
        ("pw_out", 1, 384, 96, 1),
    ]
