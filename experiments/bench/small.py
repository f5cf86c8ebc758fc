"""Small images: augmented batches from data on the device, beside timm's loader on the same pixels and recipe."""

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch

from experiments.bench import timm_parts
from experiments.bench.contenders import make_step
from experiments.bench.jobs import settings_of
from experiments.bench.options import ENDS, add_rounds, at_least, check_rounds
from experiments.bench.timing import interleave, ratio
from experiments.config.settings import Settings
from experiments.data import DataSource, open_data
from experiments.data.readers import synthetic
from experiments.data.splits import ImageArrays
from experiments.training.mixing import Mixing
from roadmap import build

HELP = "data in memory: crop, flip, RandAugment, erasing and mixing of small images beside timm's loader"
KINDS = {"grey": 1, "RGB": 3}
STEP = "ConvNeXt-T step"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--size", type=int, default=32, help="image side in pixels")
    parser.add_argument("--batch", type=int, default=128, help="images of a micro batch")
    parser.add_argument("--images", type=int, default=25_600, help="images of our round")
    parser.add_argument("--peer-images", type=int, default=6_400, help="images of timm's round")
    add_rounds(parser)
    parser.add_argument("--workers", type=int, default=2, help="timm's worker processes; ours has none")


def run(options: argparse.Namespace, device: torch.device) -> tuple[str, list[dict[str, Any]]]:
    """Images per second of both pipelines, and what ours costs beside a training step."""
    check_rounds(options.rounds)
    for key in ("images", "peer_images"):
        at_least(f"--{key.replace('_', '-')}", getattr(options, key), options.batch)
    calls: dict[str, Callable[[], object]] = {}
    for kind, channels in KINDS.items():
        settings = _settings(channels, options, device)
        pixels = synthetic.read(settings.data, options.size).train
        assert isinstance(pixels, ImageArrays)
        calls[f"ours {kind}"] = _ours(settings, open_data(settings, device=device))
        calls[f"timm {kind}"] = _timm(settings, pixels, options, device)
    network = build(ENDS[1], layer_scale=1e-6)
    calls[STEP] = make_step(network, options.size, options.batch, device, "fp32", compiled=False)
    seconds = interleave(calls, options.rounds, device, warmup=1)
    images = {"ours": options.images // options.batch * options.batch, "timm": options.peer_images, STEP: options.batch}
    images["timm"] = options.peer_images // options.batch * options.batch
    per_image = {
        name: [value / images[name if name == STEP else name[:4]] for value in seconds[name]] for name in calls
    }
    return f"small images {options.size}px", [_line(kind, per_image, options.workers) for kind in KINDS]


def _settings(channels: int, options: argparse.Namespace, device: torch.device) -> Settings:
    data = ["data=synthetic", f"data.train_images={options.images}", f"data.eval_images={options.batch}"]
    if channels == 1:
        data += ["data.channels=1", "data.mean=[0.5]", "data.std=[0.5]"]
    return settings_of(ENDS[1], options.batch, options.size, f"device={device}", *data)


def _ours(settings: Settings, source: DataSource) -> Callable[[], None]:
    mixing = Mixing.of(settings.recipe, source.num_classes)
    steps = range(source.train_size // settings.batch.size)
    epochs = iter(range(10**9))

    def epoch() -> None:
        for batch in source.train(next(epochs), steps, range(1)):
            mixing(batch.images, batch.labels, settings.seed, batch.step, batch.index)

    return epoch


class Pictures(torch.utils.data.Dataset[Any]):
    """Arrays as a data set of PIL images, as torchvision's CIFAR10 gives them; timm's loader sets `transform`."""

    transform: Any = None

    def __init__(self, images: ImageArrays, count: int) -> None:
        pixels = images.pixels[:count]
        self.pixels = np.ascontiguousarray(pixels[..., 0] if pixels.shape[3] == 1 else pixels)
        self.labels = images.labels[:count]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])


def _timm(
    settings: Settings, images: ImageArrays, options: argparse.Namespace, device: torch.device
) -> Callable[[], None]:
    data, size = settings.data, options.size
    pictures = Pictures(images, options.peer_images)
    how = (settings.recipe, (data.channels, size, size), options.batch, data.mean, data.std, options.workers, device)
    loader = timm_parts.train_loader(pictures, *how)
    mix = timm_parts.mixup_of(settings.recipe, data.classes or 10, device)

    def epoch() -> None:
        for images, labels in loader:
            mix(images, labels)

    return epoch


def _line(kind: str, per_image: dict[str, list[float]], workers: int) -> dict[str, Any]:
    ours, peer = per_image[f"ours {kind}"], per_image[f"timm {kind}"]
    return {
        "pipeline": f"{kind} in memory",
        "peer": f"timm's loader, {workers} workers",
        "images_per_second": 1 / median(ours),
        "peer_images_per_second": 1 / median(peer),
        **ratio(ours, peer),
        "share_of_convnext_step": median(ours) / median(per_image[STEP]),
    }
