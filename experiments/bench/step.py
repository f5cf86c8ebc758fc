"""A training step (forward, loss, backward, optimizer) of the ladder's networks beside other libraries' modules."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from experiments.bench.timing import Ratio, interleave
from experiments.precision import autocast
from roadmap import STEPS, build

CLASSES = 1000
LAYER_SCALE = 1e-6  # Table 5, and what timm's convnext_tiny has


def _timm(name: str, **options: Any) -> nn.Module:
    import timm

    return timm.create_model(name, num_classes=CLASSES, **options)


def _torchvision_resnet50() -> nn.Module:
    from torchvision.models import resnet50

    return resnet50()


PEERS: dict[str, Callable[[int], nn.Module]] = {
    "torchvision resnet50": lambda size: _torchvision_resnet50(),
    "timm resnet50": lambda size: _timm("resnet50"),
    "timm convnext_tiny": lambda size: _timm("convnext_tiny"),
    "timm swin_tiny": lambda size: _timm("swin_tiny_patch4_window7_224", img_size=size),
}
# The ends of the ladder are the same function as these modules; every other row is set beside the nearer one.
SAME_AS = {"resnet50": "torchvision resnet50", "separate_downsampling": "timm convnext_tiny"}


def peer_of(step: str) -> str:
    """The module that a row is compared with: BatchNorm rows with ResNet-50, LayerNorm rows with ConvNeXt."""
    return SAME_AS.get(step) or ("timm convnext_tiny" if step == "layer_norm" else "torchvision resnet50")


def make_step(
    network: nn.Module, size: int, batch: int, device: torch.device, precision: str, compiled: bool
) -> Callable[[], object]:
    """A closure that trains `network` one step on a fixed random batch of (batch, 3, size, size), channels-last."""
    network = network.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    images = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (batch,), device=device)
    forward = torch.compile(network) if compiled else network

    def step() -> None:
        with autocast(precision, device):
            logits = forward(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measure(
    steps: Sequence[str],
    peers: Sequence[str],
    size: int,
    batch: int,
    rounds: int,
    device: torch.device,
    precision: str,
    compiled: bool,
) -> list[dict[str, Any]]:
    """Images per second of each row and peer, and each row's ratio to its peer with the range over rounds."""
    networks = {name: PEERS[name](size) for name in peers}
    networks |= {name: build(name, layer_scale=LAYER_SCALE if name in _scaled() else None) for name in steps}
    contenders = {
        name: make_step(network, size, batch, device, precision, compiled) for name, network in networks.items()
    }
    seconds = interleave(contenders, rounds, device)
    return [_row(name, seconds, batch) for name in contenders]


def _scaled() -> set[str]:
    """Rows with layer scale: every row of the enhanced recipe, as in the paper's Table 5."""
    return {step.name for step in STEPS if step.recipe == "enhanced"}


def _row(name: str, seconds: dict[str, list[float]], batch: int) -> dict[str, Any]:
    times = sorted(seconds[name])
    row: dict[str, Any] = {"network": name, "images_per_second": batch / times[len(times) // 2], "peer": ""}
    peer = peer_of(name)
    if name not in PEERS and peer in seconds:
        ratio = Ratio.of(seconds[name], seconds[peer])
        row |= {"peer": peer, "ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high}
    return row
