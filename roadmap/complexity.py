"""Parameters, multiply-accumulates and activations of a design, counted from its plan without torch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from roadmap.design import Design
from roadmap.plan import Conv, NetworkPlan, plan_network
from roadmap.resolve import design_for


@dataclass(frozen=True)
class Complexity:
    """What one forward pass of one image costs.

    Attributes:
        params: learned parameters.
        macs: multiply-accumulates of convolutions and linear layers (the paper's "FLOPs", half of what torch counts).
        activations: elements of the outputs of convolutions and linear layers.
    """

    params: int
    macs: int
    activations: int

    @property
    def gmacs(self) -> float:
        """Multiply-accumulates in units of 1e9, the paper's "GFLOPs"."""
        return self.macs / 1e9


def walk(plan: NetworkPlan, image_size: int | tuple[int, int]) -> Iterator[tuple[str, Conv, int]]:
    """Yield (name, convolution, output positions) for every convolution of the network in op order.

    `image_size` is the side of a square image or (height, width), in pixels.
    """
    side = (image_size, image_size) if isinstance(image_size, int) else image_size
    side = _down(side, plan.stem.stride)
    yield "stem", plan.stem, math.prod(side)
    if plan.max_pool:
        side = _down(side, 2)
    for i, stage in enumerate(plan.stages):
        if stage.downsample:
            side = _down(side, stage.downsample.stride)
            yield f"stages.{i}.downsample", stage.downsample, math.prod(side)
        for j, block in enumerate(stage.blocks):
            before = side
            for conv in block.convs:
                side = _down(side, conv.stride)
                yield f"stages.{i}.blocks.{j}.{conv.role}", conv, math.prod(side)
            if block.shortcut:
                after = _down(before, block.shortcut.stride)
                yield f"stages.{i}.blocks.{j}.shortcut", block.shortcut, math.prod(after)


def _down(side: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-side[0] // stride), -(-side[1] // stride)


def complexity_of(
    step_or_design: str | Design,
    *,
    regime: str = "tiny",
    image_size: int | tuple[int, int] = 224,
    num_classes: int = 1000,
    in_chans: int = 3,
) -> Complexity:
    """Count a step or a design at an image size in pixels (224 and 1000 classes are what the paper counts).

    Raises:
        DesignError: an unknown step or regime.
    """
    design = step_or_design if isinstance(step_or_design, Design) else design_for(step_or_design, regime)
    plan = plan_network(design, in_chans)
    params, macs, activations = _extras(design, plan), 0, 0
    for _, conv, positions in walk(plan, image_size):
        params += conv.params
        macs += conv.macs(positions)
        activations += conv.c_out * positions
    return Complexity(
        params=params + (plan.features + 1) * num_classes,
        macs=macs + plan.features * num_classes,
        activations=activations + num_classes,
    )


def _extras(design: Design, plan: NetworkPlan) -> int:
    """Parameters outside the convolutions and their norms: boundary norms and layer scale."""
    extra = 2 * plan.features * plan.head_norm
    for stage in plan.stages:
        if stage.downsample and stage.norm_before:
            extra += 2 * stage.downsample.c_in
        if design.layer_scale is not None:
            extra += sum(block.c_out for block in stage.blocks)
    return extra
