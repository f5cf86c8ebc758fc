"""The plan of a network: every operation in order, from the flags of a `Design`.

Pure Python, so that it can be printed, counted and tested without torch. Each flag is read in exactly one place.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from roadmap.design import Design
from roadmap.errors import DesignError
from roadmap.operations import Op

Ops = tuple[Op, ...]


@dataclass(frozen=True)
class BlockPlan:
    """A residual block: after(shortcut(x) + branch(x))."""

    branch: Ops
    shortcut: Ops  # none: identity
    after: Ops  # behind the sum

    @property
    def convs(self) -> Ops:
        """The branch's convolutions in op order."""
        return tuple(op for op in self.branch if op.kind == "conv")

    @property
    def c_in(self) -> int:
        """Input channels."""
        return self.branch[0].c_in

    @property
    def c_out(self) -> int:
        """Output channels."""
        return self.branch[-1].c_out


@dataclass(frozen=True)
class StagePlan:
    """What stands between the stage before and this one, if anything, then blocks at one resolution."""

    downsample: Ops
    blocks: tuple[BlockPlan, ...]


@dataclass(frozen=True)
class NetworkPlan:
    """Stem, stages, head."""

    stem: Ops
    stages: tuple[StagePlan, ...]
    head: Ops

    @property
    def features(self) -> int:
        """Channels of the last stage, the classifier's input."""
        return self.stages[-1].blocks[-1].c_out


def plan_network(design: Design, in_chans: int = 3, num_classes: int = 1000) -> NetworkPlan:
    """Plan the whole network of a design for images of `in_chans` channels.

    Raises:
        DesignError: `groups` does not divide the channels of a spatial convolution.
    """
    stem = STEMS[design.stem](design, in_chans)
    rates = iter(design.drop_rates())
    stages, channels = [], stem[-1].c_out
    for stage, depth in enumerate(design.depths):
        downsample = plan_downsample(design, stage, channels)
        channels = downsample[-1].c_out if downsample else channels
        stride = 2 if stage and not downsample else 1
        blocks = []
        for index in range(depth):
            block = plan_block(design, stage, channels, stride if index == 0 else 1, next(rates))
            blocks.append(block)
            channels = block.c_out
        stages.append(StagePlan(downsample, tuple(blocks)))
    return NetworkPlan(stem, tuple(stages), plan_head(design, channels, num_classes))


def _norm(design: Design, role: str, channels: int) -> Op:
    return Op(role, "norm", design.norm, channels, channels)


def _act(design: Design, role: str, channels: int) -> Op:
    return Op(role, "act", design.act, channels, channels)


def _boundary_norm(design: Design, role: str, channels: int) -> Ops:
    return (_norm(design, role, channels),) if design.boundary_norms else ()


def _resnet_stem(design: Design, in_chans: int) -> Ops:
    """7x7 convolution, norm, activation; of the stride 4, max-pooling does the second half."""
    width = design.stage_width(0)
    conv = Op("stem", "conv", "conv", in_chans, width, kernel=7, stride=min(design.stem_stride, 2))
    pool = Op("stem", "pool", "max_pool", width, width, kernel=3, stride=2)
    return (conv, _norm(design, "stem", width), _act(design, "stem", width), *[pool] * (design.stem_stride == 4))


def _patchify_stem(design: Design, in_chans: int) -> Ops:
    """A convolution whose stride is its kernel."""
    stride, width = design.stem_stride, design.stage_width(0)
    conv = Op("stem", "conv", "conv", in_chans, width, kernel=stride, stride=stride, bias=True)
    return (conv, *_boundary_norm(design, "stem", width))


STEMS: Mapping[str, Callable[[Design, int], Ops]] = {"resnet": _resnet_stem, "patchify": _patchify_stem}


def plan_downsample(design: Design, stage: int, c_in: int) -> Ops:
    """Plan what halves the resolution in front of a stage; nothing where the stage's first block does."""
    if not (design.separate_downsample and stage):
        return ()
    outer, _ = design.block_channels(stage)
    conv = Op("downsample", "conv", "conv", c_in, outer, kernel=2, stride=2, bias=True)
    return (*_boundary_norm(design, "downsample", c_in), conv)


def plan_block(design: Design, stage: int, c_in: int, stride: int = 1, drop_path: float = 0.0) -> BlockPlan:
    """Plan one residual block of a stage that receives `c_in` channels.

    Raises:
        DesignError: `groups` does not divide the channels of the spatial convolution.
    """
    outer, hidden = design.block_channels(stage)
    order = ("spatial", "pw_in", "pw_out") if design.spatial_first else ("pw_in", "spatial", "pw_out")
    branch: list[Op] = []
    channels = c_in
    for index, role in enumerate(order):
        out = {"pw_in": hidden, "spatial": channels, "pw_out": outer}[role]
        spatial = _spatial(design, channels, stride) if role == "spatial" else {}
        branch.append(Op(role, "conv", "conv", channels, out, bias=design.norm == "ln", **spatial))
        channels = out
        if role == "spatial" or not design.fewer_norms:
            branch.append(_norm(design, role, channels))
        if index == 1 or (index == 0 and not design.fewer_acts):
            branch.append(_act(design, role, channels))
    if design.layer_scale is not None:
        branch.append(Op("", "gamma", "layer_scale", outer, outer, value=design.layer_scale))
    if drop_path:
        branch.append(Op("", "drop_path", "drop_path", outer, outer, value=drop_path))
    after = () if design.fewer_acts else (_act(design, "", outer),)
    return BlockPlan(tuple(branch), _shortcut(design, c_in, outer, stride), after)


def _spatial(design: Design, channels: int, stride: int) -> dict[str, int]:
    """What belongs to the spatial role alone: kernel, groups and the block's stride."""
    groups = channels if design.groups == "depthwise" else int(design.groups)
    if channels % groups:
        raise DesignError(
            f"design.groups={groups} does not divide the {channels} channels that a spatial convolution meets; "
            f"allowed: depthwise or a divisor such as {math.gcd(channels, groups)}"
        )
    return {"kernel": design.kernel_size, "groups": groups, "stride": stride}


def _shortcut(design: Design, c_in: int, c_out: int, stride: int) -> Ops:
    """Identity where channels and stride agree, else a 1x1 convolution and a norm."""
    if c_in == c_out and stride == 1:
        return ()
    return Op("shortcut", "conv", "conv", c_in, c_out, stride=stride), _norm(design, "shortcut", c_out)


def plan_head(design: Design, features: int, num_classes: int) -> Ops:
    """Plan global average pooling and the classifier."""
    pool = Op("head", "pool", "global_pool", features, features)
    fc = Op("head", "fc", "linear", features, num_classes, bias=True)
    return (pool, *_boundary_norm(design, "head", features), fc)
