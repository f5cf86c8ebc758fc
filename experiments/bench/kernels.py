"""The convolutions that a row computes in a way of its own, each beside what torch would do, forward and backward."""

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.bench.options import ENDS, PRECISIONS, add_rounds, check_rounds, chosen_rows
from experiments.bench.timing import interleave, ratio
from experiments.data.in_memory import keep_freed_memory
from experiments.runtime.device import autocast
from roadmap import build
from roadmap.layers import OWN_WAYS, PointwiseConv

HELP = "1x1 and depthwise convolutions of a row beside torch's own, forward and backward"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--rows", default=ENDS[1])
    parser.add_argument("--size", type=int, default=32, help="image side in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    add_rounds(parser)


def run(options: argparse.Namespace, device: torch.device) -> tuple[str, list[dict[str, Any]]]:
    """Milliseconds and ratios of every distinct one of them."""
    check_rounds(options.rounds)
    if device.type == "cpu":
        keep_freed_memory()  # as in a run
    shapes: dict[tuple[str, torch.Size], nn.Conv2d] = {}
    for row in chosen_rows(options.rows):
        shapes |= _convolutions(row, (options.batch, 3, options.size, options.size))
    found = [
        line
        for (text, shape), conv in shapes.items()
        for line in _compare(text, shape, conv, options.precision, options.rounds, device)
    ]
    return f"kernels {options.size}px {options.precision}", found


def _convolutions(row: str, shape: tuple[int, ...]) -> dict[tuple[str, torch.Size], nn.Conv2d]:
    """What a network computes its own way, by text and shape of the input, in order."""
    found: dict[tuple[str, torch.Size], nn.Conv2d] = {}

    def note(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(conv, nn.Conv2d)
        size, side = conv.kernel_size[0], inputs[0].shape[-1]
        what = f"{conv.in_channels}" if conv.groups > 1 else f"{conv.in_channels} to {conv.out_channels}"
        stride = f", stride {conv.stride[0]}" if conv.stride[0] > 1 else ""
        found[f"{size}x{size}, {what} channels, map {side}x{side}{stride}", inputs[0].shape] = conv

    with torch.device("meta"):
        network = build(row)
        for module in network.modules():
            if isinstance(module, OWN_WAYS):
                module.register_forward_pre_hook(note)
        network(torch.empty(shape))
    return found


def _compare(
    text: str, shape: torch.Size, conv: nn.Conv2d, precision: str, rounds: int, device: torch.device
) -> list[dict[str, Any]]:
    conv = conv.to_empty(device=device)
    nn.init.normal_(conv.weight)
    contenders: dict[str, Callable[..., Tensor]] = {
        "ours": type(conv).forward,
        "torch's convolution": nn.Conv2d.forward,
    }
    if isinstance(conv, PointwiseConv):
        contenders["torch's linear layer"] = lambda conv, x: conv.by(F.linear, x)
    steps = {name: _step(conv, form, shape, precision, device) for name, form in contenders.items()}
    seconds = interleave(steps, rounds, device)
    milliseconds = 1000 * sorted(seconds["ours"])[rounds // 2]
    return [
        {"convolution": text, "milliseconds": milliseconds, "peer": peer} | ratio(seconds["ours"], seconds[peer])
        for peer in contenders
        if peer != "ours"
    ]


def _step(
    conv: nn.Conv2d, forward: Callable[..., Tensor], shape: torch.Size, precision: str, device: torch.device
) -> Callable[[], object]:
    """A closure that computes the output and all gradients on fixed random numbers, channels-last."""
    x = torch.randn(shape, device=device).to(memory_format=torch.channels_last).requires_grad_()
    wanted = [tensor for tensor in (x, conv.weight, conv.bias) if tensor is not None]

    def output() -> Tensor:
        with autocast(precision, device):
            return forward(conv, x)

    gradient = torch.randn_like(output())
    return lambda: torch.autograd.grad(output(), wanted, gradient)
