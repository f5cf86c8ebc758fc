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
from tests.roadmap.designs import ANY_DEPTHS, FLAG_VALUES, SMALL, STRUCTURE, covering_array, flag_product

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
        expected += [("pw_out.grn", "grn")] * (design.grn and role == "pw_out") + [(f"{role}.conv", "conv")]
        expected += [(f"{role}.norm", design.norm)] * norm + [(f"{role}.act", design.act)] * act
    expected += [("se", "squeeze_excite")] * (design.squeeze_excite is not None)
    expected += [("gamma", "layer_scale")] * (design.layer_scale is not None)
    assert paths_and_kinds(block.branch) == expected
    assert paths_and_kinds(block.after) == [("act", design.act)] * act_after_sum
    assert all(op.c_out == following.c_in for op, following in itertools.pairwise(block.branch))
    assert {op.c_in == op.c_out for op in block.branch if op.kind != "conv"} <= {True}
    assert block.closing_norms == (() if design.fewer_norms else (Op("pw_out", "norm", design.norm, outer, outer),))

    convs = {conv.role: conv for conv in block.convs}
    assert {conv.bias for conv in block.convs} == {design.norm == "ln"}
    assert (block.c_in, block.c_out, convs["pw_in"].c_out) == (c_in, outer, hidden)
    assert convs["spatial"].c_in == convs["spatial"].c_out == (c_in if design.spatial_first else hidden)
    strided = block.convs[0].role if design.early_stride else "spatial"
    assert {role: conv.stride for role, conv in convs.items()} == {**dict.fromkeys(convs, 1), strided: stride}

    spatial = convs.pop("spatial")
    assert spatial.groups == (spatial.c_in if design.groups == "depthwise" else design.groups)
    assert spatial.kernel == design.kernel_size
    assert {(conv.kernel, conv.groups) for conv in convs.values()} == {(1, 1)}

    if (c_in, stride) == (outer, 1):
        assert block.shortcut == ()
        return
    *pool, conv, norm = block.shortcut
    averages = design.pooled_shortcut and stride == 2
    assert pool == [Op("shortcut", "pool", "avg_pool", c_in, c_in, kernel=2, stride=2)] * averages
    assert conv == Op("shortcut", "conv", "conv", c_in, outer, stride=1 if averages else stride)
    assert norm == Op("shortcut", "norm", design.norm, outer, outer)


# stem -> layers (kernel, share of the width it goes to) before the pooling, what halves again behind them.
LAYERS = {"resnet": [(7, 1)], "deep": [(3, 2), (3, 2), (3, 1)], "deep_conv": [(3, 2), (3, 2), (3, 1)]}
HALVINGS = {1: (1, 0), 2: (2, 0), 4: (2, 1), 8: (2, 2), 16: (2, 3)}  # of the first convolution, how often after it


def check_stem(stem: Ops, design: Design) -> int:
    """The stem's rules; returns its channels."""
    width, stride = round(design.width), design.stem_stride
    norm = [("stem.norm", design.norm)]
    if design.stem == "patchify":
        assert stem[0] == Op("stem", "conv", "conv", 3, width, kernel=stride, stride=stride, bias=True)
        assert paths_and_kinds(stem[1:]) == norm * (design.boundary_norms and len(design.depths) > 1)
        return width
    first, halvings = HALVINGS[stride]
    layers = [(kernel, math.ceil(width / share), 1) for kernel, share in LAYERS[design.stem]]
    layers[0] = (*layers[0][:2], first)
    layers += [(3, width, 2)] * (halvings if design.stem == "deep_conv" else 0)
    channels, at = 3, 0
    for number, (kernel, out, step) in enumerate(layers, 1):
        end = f"_{number}" if number > 1 else ""
        assert stem[at] == Op("stem", f"conv{end}", "conv", channels, out, kernel=kernel, stride=step)
        assert paths_and_kinds(stem[at + 1 : at + 3]) == [
            (f"stem.norm{end}", design.norm),
            (f"stem.act{end}", design.act),
        ]
        channels, at = out, at + 3
    pools = [Op("stem", name, "max_pool", width, width, kernel=3, stride=2) for name in ("pool", "pool_2", "pool_3")]
    assert list(stem[at:]) == pools[: 0 if design.stem == "deep_conv" else halvings]
    assert channels == width
    return width


def check(design: Design) -> None:
    """Every rule about a network's plan."""
    plan = plan_network(design, num_classes=7)
    channels = check_stem(plan.stem, design)
    assert len(plan.stages) == len(design.depths)
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
    assert total_stride(plan) == 2 ** (len(design.depths) - 1) * design.stem_stride


def total_stride(plan: NetworkPlan) -> int:
    """Product of all strides along the branch."""
    strides = [op.stride for op in plan.stem]
    for stage in plan.stages:
        strides += [op.stride for op in stage.downsample]
        strides += [op.stride for block in stage.blocks for op in block.branch]
    return math.prod(strides)


STEM_FLAGS = ("stem", "stem_stride", "act", "norm", "boundary_norms", "separate_downsample")
ONLY_STEM = ("stem", "stem_stride")


def test_the_whole_product_of_flags_keeps_every_rule() -> None:
    """That of the stem and that of the block; a covering array holds every pair of one of each."""
    stem = {flag: STRUCTURE[flag] for flag in STEM_FLAGS}
    block = {flag: values for flag, values in STRUCTURE.items() if flag not in ONLY_STEM}
    block |= {"kernel_size": (3, 7), "squeeze_excite": (None, 0.5)}
    for depths in ((1, 2, 1, 1), (2,)):
        for flags in flag_product(stem):
            check(Design(width=8, depths=depths, **flags))
    for flags in flag_product(block):
        check(Design(**SMALL, **flags))
    for flags in covering_array(STRUCTURE | {"depths": ANY_DEPTHS}, 500):
        check(Design(width=7, **{**flags, "groups": "depthwise"}))
        check(Design(width=8, **flags))
    assert math.prod(map(len, block.values())) >= 24_000


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_every_step_keeps_every_rule(step, regime) -> None:
    check(design_for(step.name, regime))


@given(
    flags=st.fixed_dictionaries({flag: st.sampled_from(values) for flag, values in STRUCTURE.items()}),
    depths=st.lists(st.integers(1, 5), min_size=1, max_size=5),
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
    for flags in covering_array(FLAG_VALUES, 0):
        for _, op, _ in walk(plan_network(Design(**SMALL, **flags)), 32):
            planned.add(op.kind)
    assert planned == set(OPERATIONS)
