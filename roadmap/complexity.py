"""Parameters, multiply-accumulates and activations of a design, counted from its plan without torch."""

import math
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

from roadmap.design import Design
from roadmap.operations import Op
from roadmap.plan import NetworkPlan, Ops, plan_network
from roadmap.resolve import design_for
from roadmap.steps import DEFAULT

Side = tuple[int, int]


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


def walk(plan: NetworkPlan, image_size: int | Side) -> Iterator[tuple[str, Op, int]]:
    """Yield (name, operation, output positions) for every operation of the network in order; names as the modules'.

    `image_size` is the side of a square image or (height, width), in pixels.
    """
    side = (image_size, image_size) if isinstance(image_size, int) else image_size
    side = yield from _along(plan.stem, "", side)
    for i, stage in enumerate(plan.stages):
        side = yield from _along(stage.downsample, f"stages.{i}.", side)
        for j, block in enumerate(stage.blocks):
            at = f"stages.{i}.blocks.{j}."
            before = side
            side = yield from _along(block.branch, at, before)
            yield from _along(block.shortcut, at, before)
            yield from _along(block.after, at, side)
    yield from _along(plan.head, "", (1, 1))


def _along(ops: Ops, at: str, side: Side) -> Generator[tuple[str, Op, int], None, Side]:
    """The same for one row; returns the side of its output."""
    for op in ops:
        side = (-(-side[0] // op.stride), -(-side[1] // op.stride))
        yield at + op.path, op, math.prod(side)
    return side


def complexity_of(
    step_or_design: str | Design,
    *,
    regime: str = "tiny",
    image_size: int | Side = 224,
    num_classes: int = 1000,
    in_chans: int = 3,
    roadmap: str = DEFAULT.name,
) -> Complexity:
    """Count a step of a roadmap, or a design, at an image size in pixels (the paper counts 224 px and 1000 classes).

    Raises:
        DesignError: an unknown step or regime.
    """
    design = step_or_design
    if not isinstance(design, Design):
        design = design_for(design, regime, roadmap=roadmap)
    parts = complexity_by_part(design, image_size=image_size, num_classes=num_classes, in_chans=in_chans)
    return sum_of(parts.values())


def complexity_by_part(
    design: Design,
    *,
    image_size: int | Side = 224,
    num_classes: int = 1000,
    in_chans: int = 3,
) -> dict[str, Complexity]:
    """The same count, split over "stem", "stages.0", "stages.1", ... (each with its downsampling) and "head"."""
    parts: dict[str, list[Complexity]] = {}
    for name, op, positions in walk(plan_network(design, in_chans, num_classes), image_size):
        part = ".".join(name.split(".")[: 2 if name.startswith("stages") else 1])
        cost = Complexity(op.params, op.macs(positions), op.activations(positions))
        parts.setdefault(part, []).append(cost)
    return {part: sum_of(costs) for part, costs in parts.items()}


def sum_of(parts: Iterable[Complexity]) -> Complexity:
    """The cost of several parts together."""
    params, macs, activations = zip(*((part.params, part.macs, part.activations) for part in parts), strict=True)
    return Complexity(sum(params), sum(macs), sum(activations))
