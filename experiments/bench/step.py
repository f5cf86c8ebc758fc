"""A training step (forward, loss, backward, optimizer) of the ladder's networks beside other libraries' modules."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from experiments.bench import ceilings
from experiments.bench.apart import Apart
from experiments.bench.options import ENDS, PRECISIONS, add_rounds, check_rounds, chosen, chosen_rows
from experiments.bench.timing import interleave, ratio
from experiments.errors import ConfigError
from experiments.runtime.device import arithmetic, autocast, reproducible_products
from roadmap import build
from roadmap.steps import BY_NAME, END

HELP = "a full training step of ladder rows beside torchvision's and timm's modules"
CLASSES = 1000
LAYER_SCALE = 1e-6  # Table 5, and what timm's convnext_tiny has
DETERMINISTIC = ", deterministic"
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--rows", default=",".join(ENDS), help="steps, or all (default: the two ends)")
    parser.add_argument("--peers", default="all", help=f"all, or of {', '.join(PEERS)}")
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--batch", type=int, default=8)
    add_rounds(parser)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--apart", action="store_true", help="each in a process of its own, allocator as in use")
    parser.add_argument("--compile", action="store_true", help="torch.compile every contender")
    parser.add_argument("--deterministic", action="store_true", help="each row also with deterministic algorithms")
    parser.add_argument(
        "--ceilings", action="store_true", help="the device's copy and matrix rates, and each row's share"
    )


def run(options: argparse.Namespace, device: torch.device) -> tuple[str, list[dict[str, Any]]]:
    """Images per second of each row and peer, and each row's ratio to its peers."""
    check_rounds(options.rounds)
    rows, peers = chosen_rows(options.rows), chosen("--peers", options.peers, tuple(PEERS))
    name = f"step {options.size}px {options.precision} {'compiled' if options.compile else 'eager'}"
    measure = _measure_apart if options.apart else _measure
    seconds = measure([*peers, *rows], options, device)
    limits = ceilings.measured(seconds, device, options.precision) if options.ceilings else None
    found = [line for contender in seconds for line in _lines(contender, seconds, options, limits)]
    return f"{name}, apart" if options.apart else name, found


def _measure(names: Sequence[str], options: argparse.Namespace, device: torch.device) -> dict[str, list[float]]:
    """Seconds per step of everyone, in this process."""
    if options.deterministic:
        reproducible_products()
    how = (options.size, options.batch, device, options.precision, options.compile)
    contenders: dict[str, Callable[[], object]] = {}
    for name in names:
        contenders[name] = make_step(network_of(name, options.size), *how)
        if options.deterministic and name not in PEERS:
            contenders[name + DETERMINISTIC] = _deterministic(contenders[name], options.precision)
    if options.ceilings:
        contenders |= ceilings.contenders(device, options.precision)
    return interleave(contenders, options.rounds, device)


def _measure_apart(names: Sequence[str], options: argparse.Namespace, device: torch.device) -> dict[str, list[float]]:
    """Seconds per step of everyone, each in a process of its own."""
    if options.deterministic or options.ceilings:
        raise ConfigError("--apart cannot be combined with --deterministic or --ceilings: leave one out")
    task = {key: getattr(options, key) for key in ("size", "batch", "precision", "compile")}
    task |= {"device": str(device), "threads": torch.get_num_threads()}
    with ExitStack() as stack:
        contenders = {name: stack.enter_context(Apart(name=name, **task)) for name in names}
        return interleave(contenders, options.rounds, device)


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


def _deterministic(step: Callable[[], object], precision: str) -> Callable[[], object]:
    """The same step as a run with deterministic=true takes it."""

    def deterministic() -> None:
        with arithmetic(precision, deterministic=True):
            step()

    return deterministic


def _lines(
    name: str, seconds: dict[str, list[float]], options: argparse.Namespace, limits: ceilings.Limits | None
) -> list[dict[str, Any]]:
    """A contender's rows of the table: one per peer that was measured, one alone where there is none."""
    if name in ceilings.NAMES:
        return [{"network": name, "limit": limits.text(name)}] if limits else []
    speed = options.batch / sorted(seconds[name])[len(seconds[name]) // 2]
    line: dict[str, Any] = {"network": name, "images_per_second": speed}
    peers = () if name in PEERS else peers_of(name)
    if name.endswith(DETERMINISTIC):
        peers = (name.removesuffix(DETERMINISTIC),)
    elif limits and name not in PEERS:
        line |= limits.shares(name, options.size, options.batch, speed)
    found = [line | {"peer": peer} | ratio(seconds[name], seconds[peer]) for peer in _measured(peers, seconds)]
    return found or [line]


def _measured(peers: Sequence[str], seconds: dict[str, list[float]]) -> list[str]:
    return [peer for peer in peers if peer in seconds]
