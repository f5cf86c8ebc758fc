"""Parameters, multiply-accumulates and activations of a design, counted from its plan without torch."""

import math
from collections.abc import Iterable, Iterator
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
    parts = complexity_by_part(design, image_size=image_size, num_classes=num_classes, in_chans=in_chans)
    return sum_of(parts.values())


def complexity_by_part(
    design: Design,
    *,
    image_size: int | tuple[int, int] = 224,
    num_classes: int = 1000,
    in_chans: int = 3,
) -> dict[str, Complexity]:
    """The same count, split over "stem", "stages.0" to "stages.3" (each with its downsampling) and "head"."""
    plan = plan_network(design, in_chans)
    parts = {part: [params, 0, 0] for part, params in _extras(design, plan).items()}
    for name, conv, positions in walk(plan, image_size):
        part = parts[".".join(name.split(".", 2)[:2])]
        part[0] += conv.params
        part[1] += conv.macs(positions)
        part[2] += conv.c_out * positions
    head = parts["head"]
    head[0] += (plan.features + 1) * num_classes
    head[1] += plan.features * num_classes
    head[2] += num_classes
    return {part: Complexity(*counts) for part, counts in parts.items()}


def sum_of(parts: Iterable[Complexity]) -> Complexity:
    """The cost of several parts together."""
    params, macs, activations = zip(*((part.params, part.macs, part.activations) for part in parts), strict=True)
    return Complexity(sum(params), sum(macs), sum(activations))


def _extras(design: Design, plan: NetworkPlan) -> dict[str, int]:
    """Parameters outside the convolutions and their norms, in every part: boundary norms and layer scale."""
    extras = {"stem": 0}
    for index, stage in enumerate(plan.stages):
        extras[f"stages.{index}"] = 2 * stage.downsample.c_in if stage.downsample and stage.norm_before else 0
        if design.layer_scale is not None:
            extras[f"stages.{index}"] += sum(block.c_out for block in stage.blocks)
    return {**extras, "head": 2 * plan.features * plan.head_norm}
