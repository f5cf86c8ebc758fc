"""Large images: class folders of JPEG files to augmented batches, beside timm's loader with as many workers."""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from experiments.bench.options import add_rounds, at_least, check_rounds
from experiments.bench.photos import CLASSES, write_photos
from experiments.bench.processes import alternate
from experiments.bench.timing import ratio

HELP = "JPEG folder to augmented batches beside timm's loader: throughput, first batch, memory"
SIDES = ("ours", "timm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=5_000, help="JPEG files, read once per round; fewer for trials")
    add_rounds(parser)
    parser.add_argument("--workers", type=int, default=2, help="worker processes of both sides")


def run(options: argparse.Namespace, device: torch.device) -> tuple[str, list[dict[str, Any]]]:
    """Every round is a fresh process of each side, which reads all files once."""
    check_rounds(options.rounds)
    at_least("--images", options.images, max(CLASSES, options.batch))
    at_least("--workers", options.workers, 0)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), options.images, CLASSES)
        task = {"folder": folder, "size": options.size, "batch": options.batch, "workers": options.workers}
        task |= {"threads": threads, "device": str(device)}
        sides = {side: ["-m", "experiments.bench.large_side", json.dumps({"side": side, **task})] for side in SIDES}
        reports = alternate(sides, options.rounds, {})
    peer = f"timm's loader, {options.workers} workers"
    images = options.images // options.batch * options.batch
    rows = []
    for name, key, scale in (
        ("images per second", "pass", images),
        ("seconds to the first batch", "first batch", None),
        ("GB of memory, all processes", "peak_bytes", None),
    ):
        ours, theirs = ([report[key] for report in reports[side]] for side in SIDES)
        shown = [_shown(values, key, scale) for values in (ours, theirs)]
        rows.append({"large images": name, "peer": peer, "ours": shown[0], "theirs": shown[1], **ratio(ours, theirs)})
    return f"large images {options.size}px", rows


def _shown(values: Sequence[float], key: str, images: int | None) -> float:
    """The median in the unit of its row."""
    value = median(values)
    return images / value if images else value / 1e9 if key == "peak_bytes" else value
