"""The plan of a network: every operation in order, from the flags of a `Design`.

Pure Python, so that it can be printed, counted and tested without torch. Each flag is read in exactly one place.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

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
    def closing_norms(self) -> Ops:
        """The norm that nothing but scaling follows in the branch, if it has one: it can silence the branch."""
        *_, last = (op for op in self.branch if op.row.look != "scale")
        return (last,) if last.row.look == "norm" else ()

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
    stem = STEMS[design.stem](design, in_chans, design.stem_stride)
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


def _resnet_stem(design: Design, in_chans: int, stride: int) -> Ops:
    """7x7 convolution; of the stride, max-pooling does what is left."""
    width = design.stage_width(0)
    return (*_stem_layer(design, 1, in_chans, width, 7, min(stride, 2)), *_max_pools(width, stride))


def _deep_stem(design: Design, in_chans: int, stride: int) -> Ops:
    """ResNet-C: three 3x3 convolutions in place of the 7x7 one (arXiv 1812.01187, Figure 2b)."""
    return (*_deep_layers(design, in_chans, stride), *_max_pools(design.stage_width(0), stride))


def _deep_conv_stem(design: Design, in_chans: int, stride: int) -> Ops:
    """The same with strided 3x3 convolutions in place of max-pooling (arXiv 2103.07579, as timm builds it)."""
    width = design.stage_width(0)
    halvings = (_stem_layer(design, 4 + i, width, width, 3, 2) for i in range(_halvings_left(stride)))
    return (*_deep_layers(design, in_chans, stride), *(op for layer in halvings for op in layer))


def _deep_layers(design: Design, in_chans: int, stride: int) -> Ops:
    width = design.stage_width(0)
    thin = -(-width // 2)
    return (
        *_stem_layer(design, 1, in_chans, thin, 3, min(stride, 2)),
        *_stem_layer(design, 2, thin, thin, 3, 1),
        *_stem_layer(design, 3, thin, width, 3, 1),
    )


def _stem_layer(design: Design, number: int, c_in: int, c_out: int, kernel: int, stride: int) -> Ops:
    """Convolution, norm, activation."""
    conv = Op("stem", "conv", "conv", c_in, c_out, kernel=kernel, stride=stride)
    ops = (conv, _norm(design, "stem", c_out), _act(design, "stem", c_out))
    return tuple(replace(op, name=_numbered(op.name, number)) for op in ops)


def _max_pools(width: int, stride: int) -> Ops:
    pool = Op("stem", "pool", "max_pool", width, width, kernel=3, stride=2)
    return tuple(replace(pool, name=_numbered("pool", 1 + i)) for i in range(_halvings_left(stride)))


def _numbered(name: str, number: int) -> str:
    """Name in a part that has several of a kind: conv, conv_2, conv_3."""
    return name if number == 1 else f"{name}_{number}"


def _halvings_left(stride: int) -> int:
    """How often a stem of that stride still halves the resolution behind its first convolution."""
    return max(stride.bit_length() - 2, 0)


def _patchify_stem(design: Design, in_chans: int, stride: int) -> Ops:
    """A convolution whose stride is its kernel."""
    width = design.stage_width(0)
    conv = Op("stem", "conv", "conv", in_chans, width, kernel=stride, stride=stride, bias=True)
    # The authors' norm stands wherever the resolution has changed between stages. Their isotropic networks (Table 2),
    # whose one stage has no such place, have none behind the stem either (22.3 and 87.1 M parameters).
    return (conv, *_boundary_norm(design, "stem", width)) if len(design.depths) > 1 else (conv,)


STEMS: Mapping[str, Callable[[Design, int, int], Ops]] = {
    "resnet": _resnet_stem,
    "deep": _deep_stem,
    "deep_conv": _deep_conv_stem,
    "patchify": _patchify_stem,
}


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
    strided = order[0] if design.early_stride else "spatial"
    branch: list[Op] = []
    channels = c_in
    for index, role in enumerate(order):
        out = {"pw_in": hidden, "spatial": channels, "pw_out": outer}[role]
        if design.grn and role == order[-1]:
            branch.append(Op(role, "grn", "grn", channels, channels))
        kernel = _spatial(design, channels) if role == "spatial" else {}
        step = stride if role == strided else 1
        branch.append(Op(role, "conv", "conv", channels, out, stride=step, bias=design.norm == "ln", **kernel))
        channels = out
        if role == "spatial" or not design.fewer_norms:
            branch.append(_norm(design, role, channels))
        if index == 1 or (index == 0 and not design.fewer_acts):
            branch.append(_act(design, role, channels))
    after = () if design.fewer_acts else (_act(design, "", outer),)
    return BlockPlan((*branch, *_scalings(design, outer, drop_path)), _shortcut(design, c_in, outer, stride), after)


def _scalings(design: Design, channels: int, drop_path: float) -> Ops:
    """What scales the branch before the sum."""
    scalings = []
    if design.squeeze_excite is not None:
        hidden = max(8, int(channels * design.squeeze_excite + 4) // 8 * 8)  # the nearest multiple of 8, as timm's
        scalings.append(Op("", "se", "squeeze_excite", channels, channels, value=hidden))
    if design.layer_scale is not None:
        scalings.append(Op("", "gamma", "layer_scale", channels, channels, value=design.layer_scale))
    if drop_path:
        scalings.append(Op("", "drop_path", "drop_path", channels, channels, value=drop_path))
    return tuple(scalings)


def _spatial(design: Design, channels: int) -> dict[str, int]:
    """What belongs to the spatial role alone: kernel and groups."""
    groups = channels if design.groups == "depthwise" else int(design.groups)
    if channels % groups:
        raise DesignError(
            f"design.groups={groups} does not divide the {channels} channels that a spatial convolution meets; "
            f"allowed: depthwise or a divisor such as {math.gcd(channels, groups)}"
        )
    return {"kernel": design.kernel_size, "groups": groups}


def _shortcut(design: Design, c_in: int, c_out: int, stride: int) -> Ops:
    """Identity where channels and stride agree, else a 1x1 convolution (ResNet-D: behind an average) and a norm."""
    if c_in == c_out and stride == 1:
        return ()
    pool = Op("shortcut", "pool", "avg_pool", c_in, c_in, kernel=stride, stride=stride)
    pooled = design.pooled_shortcut and stride > 1
    conv = Op("shortcut", "conv", "conv", c_in, c_out, stride=1 if pooled else stride)
    return (*[pool] * pooled, conv, _norm(design, "shortcut", c_out))


def plan_head(design: Design, features: int, num_classes: int) -> Ops:
    """Plan global average pooling and the classifier."""
    drop = Op("head", "drop", "dropout", features, features, value=design.dropout)
    pool = Op("head", "pool", "global_pool", features, features)
    fc = Op("head", "fc", "linear", features, num_classes, bias=True)
    return (pool, *_boundary_norm(design, "head", features), *[drop] * bool(design.dropout), fc)
