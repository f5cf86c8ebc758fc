"""The plan of a network: every convolution with its norm and activation slots, from the flags of a `Design`.

Pure Python, so that it can be printed, counted and tested without torch. Each flag is read in exactly one place.
"""

import math
from dataclasses import dataclass, replace

from roadmap.design import Design
from roadmap.errors import DesignError


@dataclass(frozen=True)
class Conv:
    """A convolution and the slots behind it. Its output side is ceil(side / stride)."""

    role: str
    c_in: int
    c_out: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    norm: bool = False  # a norm follows
    act: bool = False  # an activation follows (after the norm)

    @property
    def params(self) -> int:
        """Weights, bias, and scale and shift of the norm."""
        weights = self.c_out * (self.c_in // self.groups) * self.kernel**2
        return weights + self.c_out * (self.bias + 2 * self.norm)

    def macs(self, positions: int) -> int:
        """Multiply-accumulates for `positions` output locations."""
        return positions * self.c_out * (self.c_in // self.groups) * self.kernel**2


@dataclass(frozen=True)
class BlockPlan:
    """A residual block: act?(shortcut(x) + gamma * branch(x))."""

    convs: tuple[Conv, ...]  # of the branch, in op order
    shortcut: Conv | None  # None: identity
    act_after_sum: bool
    drop_path: float = 0.0

    @property
    def c_in(self) -> int:
        """Input channels."""
        return self.convs[0].c_in

    @property
    def c_out(self) -> int:
        """Output channels."""
        return self.convs[-1].c_out


@dataclass(frozen=True)
class StagePlan:
    """An optional downsampling convolution, then blocks at one resolution."""

    downsample: Conv | None
    norm_before: bool  # a norm in front of the downsampling convolution
    blocks: tuple[BlockPlan, ...]


@dataclass(frozen=True)
class NetworkPlan:
    """Stem, stages, head."""

    stem: Conv
    max_pool: bool  # 3x3, stride 2, behind the stem
    stages: tuple[StagePlan, ...]
    head_norm: bool  # a norm after global pooling

    @property
    def features(self) -> int:
        """Channels of the last stage, the classifier's input."""
        return self.stages[-1].blocks[-1].c_out


def plan_block(design: Design, stage: int, c_in: int, stride: int = 1, drop_path: float = 0.0) -> BlockPlan:
    """Plan one residual block of a stage that receives `c_in` channels.

    Raises:
        DesignError: `groups` does not divide the channels of the spatial convolution.
    """
    outer, hidden = design.block_channels(stage)
    order = ("spatial", "pw_in", "pw_out") if design.spatial_first else ("pw_in", "spatial", "pw_out")
    convs, channels = [], c_in
    for index, role in enumerate(order):
        conv = Conv(
            role,
            c_in=channels,
            c_out={"pw_in": hidden, "spatial": channels, "pw_out": outer}[role],
            bias=design.norm == "ln",
            norm=role == "spatial" if design.fewer_norms else True,
            act=index == 1 or (index == 0 and not design.fewer_acts),
        )
        convs.append(_spatial(conv, design, stride) if role == "spatial" else conv)
        channels = conv.c_out
    identity = c_in == outer and stride == 1
    shortcut = None if identity else Conv("shortcut", c_in, outer, stride=stride, norm=True)
    return BlockPlan(tuple(convs), shortcut, act_after_sum=not design.fewer_acts, drop_path=drop_path)


def _spatial(conv: Conv, design: Design, stride: int) -> Conv:
    """Give a block's convolution what belongs to the spatial role: kernel, groups and the block's stride."""
    groups = conv.c_in if design.groups == "depthwise" else int(design.groups)
    if conv.c_in % groups:
        raise DesignError(
            f"design.groups={groups} does not divide the {conv.c_in} channels that a spatial convolution meets; "
            f"allowed: depthwise or a divisor such as {math.gcd(conv.c_in, groups)}"
        )
    return replace(conv, kernel=design.kernel_size, groups=groups, stride=stride)


def plan_stem(design: Design, in_chans: int) -> tuple[Conv, bool]:
    """Plan the stem; returns its convolution and whether a max-pool follows it."""
    stride, width = design.stem_stride, design.stage_width(0)
    if design.stem == "patchify":
        return Conv("stem", in_chans, width, stride, stride, bias=True, norm=design.boundary_norms), False
    conv_stride = min(stride, 2)
    return Conv("stem", in_chans, width, 7, conv_stride, norm=True, act=True), stride == 4


def plan_network(design: Design, in_chans: int = 3) -> NetworkPlan:
    """Plan the whole network of a design for images of `in_chans` channels.

    Raises:
        DesignError: `groups` does not divide the channels of a spatial convolution.
    """
    stem, max_pool = plan_stem(design, in_chans)
    rates = iter(design.drop_rates())
    stages, channels = [], stem.c_out
    for stage, depth in enumerate(design.depths):
        stride = 2 if stage else 1
        downsample = None
        if design.separate_downsample and stage:
            outer, _ = design.block_channels(stage)
            downsample = Conv("downsample", channels, outer, kernel=2, stride=2, bias=True)
            channels, stride = outer, 1
        blocks = []
        for index in range(depth):
            block = plan_block(design, stage, channels, stride if index == 0 else 1, next(rates))
            blocks.append(block)
            channels = block.c_out
        stages.append(StagePlan(downsample, downsample is not None and design.boundary_norms, tuple(blocks)))
    return NetworkPlan(stem, max_pool, tuple(stages), head_norm=design.boundary_norms)
