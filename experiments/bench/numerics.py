"""The gate in front of every speed-up: the fast form of a network computes what its plain form computes.

Fast: as it is in use, channels-last, with the project's own ways of computing convolutions. Plain: torch's ways. Both
are held against fp64 in outputs, and against each other over a training run, where the plain form in the other memory
layout says how far apart rounding alone takes two curves. Layer scale starts at 1, since at the recipe's 1e-6 a block
could compute anything unnoticed.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from experiments.bench.options import ENDS, at_least, chosen_rows
from roadmap import build
from roadmap.layers import OWN_WAYS
from roadmap.regimes import REGIMES

HELP = "the fast form of the ends against their plain form and fp64"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--rows", default=",".join(ENDS))
    parser.add_argument("--regime", choices=REGIMES, default="tiny")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of the two loss curves")


def run(options: argparse.Namespace, device: torch.device) -> tuple[str, list[dict[str, Any]]]:
    """Both forms of each row."""
    at_least("--steps", options.steps)
    how = (options.regime, options.size, options.batch, options.steps, device)
    return "numerics", [compare(row, *how) for row in chosen_rows(options.rows)]


def compare(step: str, regime: str, size: int, batch: int, steps: int, device: torch.device) -> dict[str, Any]:
    """Relative error of both forms' outputs against fp64, and the largest gaps between loss curves."""
    images, labels = _batch(size, batch, device)
    reference = _plain(_network(step, regime)).double().to(device)(images.double())
    losses, errors = {}, {}
    for form, (change, layout) in FORMS.items():
        network = change(_network(step, regime)).to(device).to(memory_format=layout)
        view = images.to(memory_format=layout)
        errors[form] = ((network(view) - reference).abs().max() / reference.abs().max()).item()
        losses[form] = _loss_curve(network, view, labels, steps)
    return {
        "network": step,
        "error_fast": errors["fast"],
        "error_plain": errors["plain"],
        "steps": steps,
        "loss_gap": _gap(losses["fast"], losses["plain"]),
        "loss_gap_of_layouts": _gap(losses["contiguous"], losses["plain"]),
        "last_loss": losses["plain"][-1],
    }


def _gap(curve: list[float], other: list[float]) -> float:
    return max(abs(one - two) for one, two in zip(curve, other, strict=True))


def _plain(network: nn.Module) -> nn.Module:
    """Let every convolution be torch's."""
    for module in network.modules():
        if isinstance(module, OWN_WAYS):
            module.forward = partial(nn.Conv2d.forward, module)  # type: ignore[method-assign]
    return network


FORMS: dict[str, tuple[Callable[[nn.Module], nn.Module], torch.memory_format]] = {
    "fast": (lambda network: network, torch.channels_last),
    "plain": (_plain, torch.channels_last),
    "contiguous": (_plain, torch.contiguous_format),
}


def _network(step: str, regime: str) -> nn.Module:
    torch.manual_seed(0)
    return build(step, regime=regime, num_classes=10, layer_scale=1.0, init="trunc_normal").train()


def _batch(size: int, batch: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=generator)
    return images.to(device), torch.randint(10, (batch,), generator=generator).to(device)


def _loss_curve(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    return [loss.item() for loss in losses]
