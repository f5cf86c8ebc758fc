"""The training loop beside a bare one, Lightning's where that is installed, and a loop of timm's parts."""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from experiments.bench import lightning_loop, timm_parts
from experiments.bench.jobs import PLAIN, epoch_of, job_of, settings_of
from experiments.bench.options import ENDS, PRECISIONS, add_rounds, at_least, check_rounds, chosen_rows
from experiments.bench.photos import CLASSES, write_photos
from experiments.bench.timing import interleave, ratio
from experiments.data import open_data
from experiments.runtime.device import autocast
from experiments.training.loop import Job

HELP = "the training loop beside a bare one, beside Lightning's and beside timm's parts"
PHOTOS = ((160, 160), (160, 120))  # sizes of the JPEG files for the comparison with timm: they are not the subject


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--rows", default=ENDS[1])
    parser.add_argument("--size", type=int, default=32, help="image side in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps of a round")
    add_rounds(parser)
    parser.add_argument("--workers", type=int, default=2, help="data workers of both sides beside timm")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")


def run(options: argparse.Namespace, device: torch.device) -> tuple[str, list[dict[str, Any]]]:
    """Each row's epochs of our loop beside the peers'."""
    check_rounds(options.rounds)
    at_least("--steps", options.steps)
    at_least("--batch x --steps", options.batch * options.steps, CLASSES)
    rows = []
    for name in chosen_rows(options.rows):
        rows += [*_on_ready_batches(name, options, device), _on_files(name, options, device)]
    return f"loop {options.size}px {options.precision}", rows


def _on_ready_batches(row: str, options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Our loop, its data pipeline included, beside loops over batches made before."""
    batch, steps = options.batch, options.steps
    data = ["data=synthetic", f"data.train_images={batch * steps}", f"data.eval_images={batch}"]
    how = [f"precision={options.precision}", f"device={device}"]
    settings = settings_of(row, batch, options.size, *how, *PLAIN, *data)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        source = open_data(settings, device=device)
        stack.callback(source.close)
        ours, bare, third = (job_of(settings, device, source, Path(folder), steps) for _ in range(3))
        ready = [(part.images, part.labels) for part in source.train(0, range(steps), range(1))]
        batches = cycle(ready)
        calls: dict[str, Callable[[], object]] = {
            "ours": epoch_of(ours),
            "a bare loop": lambda: _bare(bare, islice(batches, steps)),
        }
        if lightning_loop.installed():
            calls[lightning_loop.NAME] = lightning_loop.epoch_of(third, ready)
        seconds = interleave(calls, options.rounds, device)
    lines = [_line(row, seconds, peer, batch * steps) for peer in calls if peer != "ours"]
    if not lightning_loop.installed():
        lines.append({"loop": row, "peer": f"{lightning_loop.NAME}: not installed"})
    return lines


def _bare(job: Job, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Forward, backward and optimizer, and nothing else."""
    model, optimizer = job.state.model, job.state.optimizer
    model.train()
    for images, labels in batches:
        with autocast(job.settings.precision, job.device):
            logits = model(images)
        job.loss.of(logits, labels, job.mixing.smoothing).backward()
        optimizer.step()
        optimizer.zero_grad()


def _on_files(row: str, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """An epoch of the enhanced recipe over JPEG files, ours beside timm's loader, mixup and scheduler."""
    from timm.data import ImageDataset

    batch, images = options.batch, options.batch * options.steps
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        write_photos(folder, images, CLASSES, PHOTOS)
        how = [f"precision={options.precision}", f"device={device}", f"workers={options.workers}"]
        settings = settings_of(row, batch, options.size, *how, "data=imagefolder", f"data.root={folder}")
        source = open_data(settings, device=device)
        stack.callback(source.close)
        ours, theirs = (job_of(settings, device, source, folder, options.steps) for _ in range(2))
        peer = f"timm's parts, {options.workers} workers"
        their_epoch = timm_parts.epoch_of(theirs, ImageDataset(str(folder / "train")), options.workers)
        seconds = interleave({"ours": epoch_of(ours), peer: their_epoch}, options.rounds, device, warmup=1)
    return _line(row, seconds, peer, images)


def _line(row: str, seconds: dict[str, list[float]], peer: str, images: int) -> dict[str, Any]:
    return {
        "loop": row,
        "peer": peer,
        "images_per_second": images / median(seconds["ours"]),
        "peer_images_per_second": images / median(seconds[peer]),
        **ratio(seconds["ours"], seconds[peer]),
    }
