"""Who takes part in `bench step`: rows of the ladder and other libraries' modules, each as a training step."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from experiments.runtime.device import autocast
from roadmap import build
from roadmap.steps import BY_NAME, END

CLASSES = 1000
LAYER_SCALE = 1e-6  # Table 5, and what timm's convnext_tiny has
WITH_LAYER_NORM = ("layer_norm", "separate_downsampling")


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


def peers_of(step: str) -> tuple[str, ...]:
    """Whom a row is compared with; the ends of the ladder are the same functions as the first two of theirs.

    Rows with LayerNorm stand beside ConvNeXt and the Transformer that it answers, the others beside ResNet-50.
    """
    if step in WITH_LAYER_NORM:
        return "timm convnext_tiny", "timm swin_tiny"
    return "torchvision resnet50", "timm resnet50"


def network_of(name: str, size: int) -> nn.Module:
    """A peer, or a row with layer scale in the enhanced recipe's rows, as in the paper's Table 5."""
    if name in PEERS:
        return PEERS[name](size)
    scaled = BY_NAME[name].recipe == END.recipe
    return build(name, layer_scale=LAYER_SCALE if scaled else None)


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
