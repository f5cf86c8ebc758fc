"""The training loop beside a bare one, and beside a loop of timm's parts on the same files, network and workers."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.batches import BatchPlan
from experiments.bench.timing import Ratio, interleave
from experiments.checkpoint import Checkpoints
from experiments.data import DataSource, open_data
from experiments.distributed import Ranks
from experiments.loop import Job, LossLog, train_epoch
from experiments.mixing import Mixing, loss_of
from experiments.precision import autocast
from experiments.progress import Reporter
from experiments.records import RunDir
from experiments.settings import Settings
from experiments.signals import StopFlag
from experiments.train import build_state

IMAGES = 256  # generated JPEG files for the comparison with timm
SIDE = 160  # their side in pixels


def settings_of(rows: str, batch: int, size: int, precision: str, *overrides: str) -> Settings:
    """The enhanced recipe for one row of the ladder at this batch and image size."""
    from experiments.compose import settings_from
    from experiments.schema import compose

    typed = [f"+step={rows}", "budget=paper", f"batch.size={batch}", f"batch.micro={batch}", f"image_size={size}"]
    typed += [f"precision={precision}", "recipe=enhanced", "recipe.lr=1e-3", *overrides]
    return settings_from(compose(typed), typed)


def job_of(settings: Settings, device: torch.device, source: DataSource, folder: Path, steps: int) -> Job:
    """A run's own job with epochs of `steps` steps, as `experiments.train` builds it."""
    state = build_state(settings, source, device)
    plan = BatchPlan(settings.batch.size, settings.batch.micro, 1, 1, steps)
    return Job(
        settings=settings,
        ranks=Ranks(),
        device=device,
        source=source,
        plan=plan,
        mixing=Mixing.of(settings.recipe, source.num_classes),
        state=state,
        network=state.model,
        losses=LossLog(settings.logger.log_every, device),
        run_dir=RunDir(folder),
        checkpoints=Checkpoints(folder, "0" * 64),
        stop=StopFlag(),
        reporter=Reporter(plan, 1, enabled=False),
    )


def _epoch_of(job: Job) -> Callable[[], None]:
    """Train the next epoch of a job; nothing is evaluated or saved."""

    def epoch() -> None:
        job.state.counters.step = 0
        train_epoch(job)
        job.state.counters.epoch += 1

    return epoch


def against_bare(
    row: str, batch: int, size: int, steps: int, rounds: int, device: torch.device, precision: str
) -> dict[str, Any]:
    """One row: our loop, its data pipeline included, beside forward, backward and optimizer on batches made before."""
    off = [f"recipe.{key}" for key in ("mixup=0", "cutmix=0", "randaugment=null", "erasing=0", "crop=none", "flip=0")]
    data = ["data=synthetic", f"data.train_images={batch * steps}", f"data.eval_images={batch}"]
    settings = settings_of(row, batch, size, precision, f"device={device}", *off, *data)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        source = open_data(settings, device=device)
        stack.callback(source.close)
        ours, bare = (job_of(settings, device, source, Path(folder), steps) for _ in range(2))
        batches = cycle([(part.images, part.labels) for part in source.train(0, range(steps), range(1))])
        calls = {"ours": _epoch_of(ours), "bare": lambda: _bare(bare, islice(batches, steps))}
        seconds = interleave(calls, rounds, device)
    return _row(f"{row} beside a bare loop", seconds["ours"], seconds["bare"], batch * steps)


def _bare(job: Job, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
    model, optimizer = job.state.model, job.state.optimizer
    model.train()
    for images, labels in batches:
        with autocast(job.settings.precision, job.device):
            logits = model(images)
        loss_of(logits, labels, job.mixing.smoothing).backward()
        optimizer.step()
        optimizer.zero_grad()


def against_timm(
    row: str, batch: int, size: int, rounds: int, workers: int, device: torch.device, precision: str
) -> Any:
    """One row: an epoch of the enhanced recipe over JPEG files, ours beside timm's loader, mixup and scheduler."""
    steps = IMAGES // batch
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        _write_images(Path(folder))
        data = [f"device={device}", "data=imagefolder", f"data.root={folder}", f"workers={workers}"]
        settings = settings_of(row, batch, size, precision, *data)
        source = open_data(settings, device=device)
        stack.callback(source.close)
        ours, theirs = (job_of(settings, device, source, Path(folder), steps) for _ in range(2))
        timm_epoch = _timm_epoch(theirs, Path(folder), workers)
        seconds = interleave({"ours": _epoch_of(ours), "timm": timm_epoch}, rounds, device, warmup=1)
    return _row(f"{row} beside timm's parts, {workers} workers", seconds["ours"], seconds["timm"], batch * steps)


def _timm_epoch(job: Job, folder: Path, workers: int) -> Callable[[], None]:
    """What timm's train.py does in an epoch, from the same library parts, with our network and optimizer."""
    from timm.data import ImageDataset, Mixup, create_loader
    from timm.loss import SoftTargetCrossEntropy
    from timm.scheduler import CosineLRScheduler

    recipe, size = job.settings.recipe, job.settings.image_size
    loader = create_loader(
        ImageDataset(str(folder / "train")), (job.source.in_chans, size, size), job.plan.micro, is_training=True,
        use_prefetcher=job.device.type == "cuda", re_prob=recipe.erasing, re_mode="pixel", hflip=recipe.flip,
        auto_augment=recipe.randaugment, color_jitter=0.0, interpolation=recipe.interpolation, num_workers=workers,
        mean=job.settings.data.mean, std=job.settings.data.std, device=job.device, pin_memory=job.device.type == "cuda",
        persistent_workers=workers > 0,
    )  # fmt: skip
    mixup = Mixup(
        recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=job.source.num_classes
    )
    loss_of_soft: nn.Module = SoftTargetCrossEntropy()
    model, optimizer = job.state.model, job.state.optimizer
    scheduler = CosineLRScheduler(optimizer, t_initial=10_000, warmup_t=100, t_in_epochs=False)

    def epoch() -> None:
        model.train()
        for update, (images, labels) in enumerate(loader):
            images, labels = images.to(job.device), labels.to(job.device)
            images, targets = mixup(images.contiguous(memory_format=torch.channels_last), labels)
            with autocast(job.settings.precision, job.device):
                loss = loss_of_soft(model(images), targets)
            job.state.scaler.scale(loss).backward()
            job.state.scaler.step(optimizer)
            job.state.scaler.update()
            optimizer.zero_grad()
            scheduler.step_update(update)
        loss.item()

    return epoch


def _write_images(folder: Path) -> None:
    """Smooth random pictures as JPEG files in class folders."""
    from PIL import Image

    noise = np.random.default_rng(0)
    for split, count in {"train": IMAGES, "val": 8}.items():
        for index in range(count):
            place = folder / split / f"class{index % 4}"
            place.mkdir(parents=True, exist_ok=True)
            small = Image.fromarray(noise.integers(0, 256, (20, 20, 3), dtype=np.uint8))
            small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(place / f"{index}.jpg", quality=90)


def _row(name: str, ours: list[float], peer: list[float], images: int) -> dict[str, Any]:
    ratio = Ratio.of(ours, peer)
    speeds = {key: images / float(np.median(seconds)) for key, seconds in {"ours": ours, "peer": peer}.items()}
    return {
        "loop": name,
        "ratio": ratio.median,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "images_per_second": speeds["ours"],
        "peer_images_per_second": speeds["peer"],
    }
