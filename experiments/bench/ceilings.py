"""What a device can do at best, measured in the run that it is compared with, and what a training step asks of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from experiments.runtime.device import DTYPES
from roadmap.complexity import complexity_of, walk
from roadmap.plan import plan_network
from roadmap.resolve import design_for

COPY, MATMUL = "copy of memory", "matrix product"
NAMES = (COPY, MATMUL)
FLOPS_PER_MAC = 6  # multiply and add in the forward pass, and twice that in the backward pass
PASSES = 3  # over a convolution's input and output: forward, input gradient, weight gradient
OPTIMIZER_BYTES = 7 * 4  # of AdamW per parameter: weight, gradient and both moments read, all but the gradient written


def _sizes(device: torch.device) -> tuple[int, int]:
    """Bytes that are copied, too many for a cache, and the side of the matrices."""
    return (2**30, 8192) if device.type == "cuda" else (2**28, 1536)


def contenders(device: torch.device, precision: str) -> dict[str, Callable[[], object]]:
    """A copy and a matrix product of `_sizes`."""
    count, side = _sizes(device)
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    factor = torch.randn(side, side, device=device).to(DTYPES[precision])
    return {COPY: lambda: target.copy_(source), MATMUL: lambda: factor @ factor}


@dataclass(frozen=True)
class Limits:
    """Bytes per second (read and written) and floating-point operations per second."""

    bytes_per_second: float
    flops: float
    width: int  # bytes of an activation

    def text(self, name: str) -> str:
        """One of the two for a table."""
        return f"{self.bytes_per_second / 1e9:.3g} GB/s" if name == COPY else f"{self.flops / 1e12:.3g} TFLOP/s"

    def shares(self, step: str, size: int, batch: int, speed: float) -> dict[str, float]:
        """How much of both limits a step's row reaches at `speed` images per second."""
        return {
            "share_of_bytes": speed * bytes_of(step, size, batch, self.width) / self.bytes_per_second,
            "share_of_flops": speed * flops_of(step, size) / self.flops,
        }


def measured(seconds: Mapping[str, Sequence[float]], device: torch.device, precision: str) -> Limits:
    """The limits from the shortest time of each contender."""
    count, side = _sizes(device)
    width = DTYPES[precision].itemsize
    return Limits(2 * count / min(seconds[COPY]), 2 * side**3 / min(seconds[MATMUL]), width)


def flops_of(step: str, size: int) -> int:
    """Floating-point operations of convolutions and linear layers per training image."""
    return FLOPS_PER_MAC * complexity_of(step, image_size=size).macs


def bytes_of(step: str, size: int, batch: int, width: int) -> float:
    """Bytes per training image that no fusion of neighbouring operations saves: a model, not a measurement.

    Every convolution reads or writes its input and its output once in each of the three PASSES, `width` bytes per
    element; what stands between two convolutions costs nothing. The optimizer's bytes are shared by the batch.
    """
    plan = plan_network(design_for(step), 3)
    elements = 0
    for _, op, positions in walk(plan, size):
        if op.kind == "conv":
            elements += positions * (op.c_out + op.c_in * op.stride**2)
    params = complexity_of(step, image_size=size).params
    return PASSES * elements * width + OPTIMIZER_BYTES * params / batch
