"""The plan against the rules of the network, stated here flag by flag, over the whole product of flags."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadmap import STEPS, Design, DesignError, design_for
from roadmap.complexity import walk
from roadmap.design import STEMS as STEM_NAMES
from roadmap.layers import MODULES
from roadmap.operations import OPERATIONS, Op
from roadmap.plan import STEMS, BlockPlan, NetworkPlan, Ops, plan_network
from roadmap.regimes import REGIMES
from tests.roadmap.designs import SMALL, STRUCTURE, flag_product

# (flag's value) -> the roles in op order, and in which of them norms and activations stand: written down, not computed.
ROLES = {False: ["pw_in", "spatial", "pw_out"], True: ["spatial", "pw_in", "pw_out"]}
NORM_SLOTS = {  # (fewer_norms, spatial_first)
    (False, False): [True, True, True],
    (False, True): [True, True, True],
    (True, False): [False, True, False],
    (True, True): [True, False, False],
}
ACT_SLOTS = {False: ([True, True, False], True), True: ([False, True, False], False)}  # in the branch, after the sum


def paths_and_kinds(ops: Ops) -> list[tuple[str, str]]:
    """Where the modules of operations are, and what they are."""
    return [(op.path, op.kind) for op in ops]


def check_block(block: BlockPlan, design: Design, thin: int, c_in: int, stride: int) -> None:
    """Every rule about one block of a stage that is `thin` channels wide on its thin side."""
    outer, hidden = (thin, 4 * thin) if design.inverted else (4 * thin, thin)
    acts, act_after_sum = ACT_SLOTS[design.fewer_acts]
    expected = []
    for role, norm, act in zip(
        ROLES[design.spatial_first], NORM_SLOTS[design.fewer_norms, design.spatial_first], acts, strict=True
    ):
        expected += [(f"{role}.conv", "conv")]
        expected += [(f"{role}.norm", design.norm)] * norm + [(f"{role}.act", design.act)] * act
    expected += [("gamma", "layer_scale")] * (design.layer_scale is not None)
    assert paths_and_kinds(block.branch) == expected
    assert paths_and_kinds(block.after) == [("act", design.act)] * act_after_sum
    assert all(op.c_out == following.c_in for op, following in itertools.pairwise(block.branch))
    assert {op.c_in == op.c_out for op in block.branch if op.kind != "conv"} <= {True}

    convs = {conv.role: conv for conv in block.convs}
    assert {conv.bias for conv in block.convs} == {design.norm == "ln"}
    assert (block.c_in, block.c_out, convs["pw_in"].c_out) == (c_in, outer, hidden)
    assert convs["spatial"].c_in == convs["spatial"].c_out == (c_in if design.spatial_first else hidden)

    spatial = convs.pop("spatial")
    assert spatial.groups == (spatial.c_in if design.groups == "depthwise" else design.groups)
    assert (spatial.kernel, spatial.stride) == (design.kernel_size, stride)
    assert {(conv.kernel, conv.stride, conv.groups) for conv in convs.values()} == {(1, 1, 1)}

    if (c_in, stride) == (outer, 1):
        assert block.shortcut == ()
    else:
        assert block.shortcut == (
            Op("shortcut", "conv", "conv", c_in, outer, stride=stride),
            Op("shortcut", "norm", design.norm, outer, outer),
        )


def check_stem(stem: Ops, design: Design) -> int:
    """The stem's rules; returns its channels."""
    width, stride = round(design.width), design.stem_stride
    norm = [("stem.norm", design.norm)]
    if design.stem == "patchify":
        assert stem[0] == Op("stem", "conv", "conv", 3, width, kernel=stride, stride=stride, bias=True)
        assert paths_and_kinds(stem[1:]) == norm * design.boundary_norms
    else:
        first, pool = {4: (2, [("stem.pool", "max_pool")]), 2: (2, []), 1: (1, [])}[stride]
        assert stem[0] == Op("stem", "conv", "conv", 3, width, kernel=7, stride=first)
        assert paths_and_kinds(stem[1:]) == [*norm, ("stem.act", design.act), *pool]
        assert {(op.kernel, op.stride) for op in stem if op.kind == "max_pool"} <= {(3, 2)}
    assert {op.c_out for op in stem} == {width}
    return width


def check(design: Design) -> None:
    """Every rule about a network's plan."""
    plan = plan_network(design, num_classes=7)
    channels = check_stem(plan.stem, design)
    assert len(plan.stages) == 4
    for index, stage in enumerate(plan.stages):
        thin = round(design.width * 2**index)
        outer = thin if design.inverted else 4 * thin
        stride = 1 if index == 0 else 2
        if design.separate_downsample and index > 0:
            assert stage.downsample[-1] == Op("downsample", "conv", "conv", channels, outer, 2, 2, bias=True)
            norm = Op("downsample", "norm", design.norm, channels, channels)
            assert stage.downsample[:-1] == (norm,) * design.boundary_norms
            channels, stride = outer, 1
        else:
            assert stage.downsample == ()
        assert len(stage.blocks) == design.depths[index]
        for block in stage.blocks:
            check_block(block, design, thin, channels, stride)
            channels, stride = outer, 1
    assert plan.features == channels
    head = [("head.pool", "global_pool"), *[("head.norm", design.norm)] * design.boundary_norms, ("head.fc", "linear")]
    assert paths_and_kinds(plan.head) == head
    assert (plan.head[-1].c_in, plan.head[-1].c_out, plan.head[-1].bias) == (channels, 7, True)
    assert total_stride(plan) == 8 * design.stem_stride


def total_stride(plan: NetworkPlan) -> int:
    """Product of all strides along the branch."""
    strides = [op.stride for op in plan.stem]
    for stage in plan.stages:
        strides += [op.stride for op in stage.downsample]
        strides += [op.stride for block in stage.blocks for op in block.branch]
    return math.prod(strides)


def test_the_whole_product_of_flags_keeps_every_rule() -> None:
    count = 0
    for flags in flag_product(STRUCTURE):
        check(Design(**SMALL, **flags))
        count += 1
    assert count == math.prod(len(values) for values in STRUCTURE.values()) >= 23_040


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


def test_layer_scale_and_stochastic_depth_end_the_branch() -> None:
    design = Design(**SMALL, layer_scale=0.5, drop_path=0.4)
    ends = [block.branch[-2:] for stage in plan_network(design).stages for block in stage.blocks]
    assert [op.path for op in ends[0]][1:] == ["gamma"]  # the first block drops nothing
    for rate, end in zip((0.1, 0.2, 0.3, 0.4), ends[1:], strict=True):
        assert [(op.path, op.value) for op in end] == [("gamma", 0.5), ("drop_path", pytest.approx(rate))]


def test_every_stem_has_its_plan() -> None:
    assert tuple(STEMS) == STEM_NAMES


def test_every_kind_of_operation_has_its_row_and_its_module() -> None:
    assert set(OPERATIONS) == set(MODULES)
    planned = set()
    for flags in flag_product(STRUCTURE | {"kernel_size": (3,), "groups": (1,)}):
        for _, op, _ in walk(plan_network(Design(**SMALL, **flags, layer_scale=1.0, drop_path=0.1)), 32):
            planned.add(op.kind)
    assert planned == set(OPERATIONS)
