"""How fast a run will be: a few steps of its own training loop, or what finished runs have recorded."""

import dataclasses
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from experiments.config.settings import Settings
from experiments.data import open_data
from experiments.runtime.device import autocast, pick_device, process_switches, synchronize
from experiments.store import atomic
from experiments.store.result import read_result
from experiments.store.run_dir import RunDir
from experiments.training.batches import BatchLayout
from experiments.training.loop import Job, NonFiniteError, save, train_step

WARM_UP = 2  # micro batches that are not counted: allocation, kernel choice, compilation
LAUNCH = 0.25  # seconds: composing the job, claiming, the files of the record; measured on two CPU cores


@dataclass(frozen=True)
class Speed:
    """Seconds that a run spends.

    Attributes:
        start: from nothing to the first step: data, network.
        train, evaluate: per image.
        save: by which a checkpoint holds training up: the copy, and the share of the processor that writing takes.
        written: after which a checkpoint is on disk; the next one waits for it.
        train_images: of an epoch, whole batches only.
        eval_images: of an evaluation.
        saves: checkpoints of an epoch.
    """

    start: float
    train: float
    evaluate: float
    save: float
    written: float
    train_images: int
    eval_images: int
    saves: int = 1

    def seconds(self, epochs: int) -> float:
        """Wall time of a run of this many epochs."""
        work = self.train_images * self.train + self.eval_images * self.evaluate
        epoch = max(work + self.saves * self.save, self.saves * self.written)
        return LAUNCH + self.start + epochs * epoch


def network_key(settings: Settings) -> tuple[Any, ...]:
    """What a speed depends on: runs that share it are measured once."""
    data, recipe = settings.data, settings.recipe
    policies = (recipe.auto_augment is None, recipe.randaugment is None, recipe.trivial_augment)
    images = (*policies, recipe.crop, recipe.erasing > 0, settings.train_side)
    pipeline = (*images, recipe.optimizer, recipe.loss, recipe.ema and recipe.ema_every)
    amount = (data.name, data.train_images, data.eval_images, data.holdout)
    how = (settings.compile, settings.grad_checkpointing, settings.threads, settings.device)
    return (settings.design, settings.image_size, settings.precision, settings.batch, *pipeline, *amount, *how)


def measure(settings: Settings, seconds: float = 2.0) -> Speed:
    """Train and evaluate for about `seconds` with the run's own data, network and loop, and save two checkpoints.

    The checkpoints go to a folder in runs_dir, where a run's would go, and are removed.
    """
    began = time.monotonic()
    device = pick_device(settings.device)
    runs_dir = Path(settings.runs_dir)
    atomic.make_folder(runs_dir)
    switches = process_switches(device, settings.threads, settings.precision, settings.deterministic)
    with switches, TemporaryDirectory(prefix=".measured-", dir=runs_dir) as folder:
        source = open_data(settings, device=device)
        try:
            layout = BatchLayout.of(settings.batch, source.train_size, 1)
            one_micro_batch_a_step = dataclasses.replace(layout, accumulation=1)
            job = Job.of(settings, source, RunDir(Path(folder)), device=device, layout=one_micro_batch_a_step)
            ready = time.monotonic()
            training = _training(job)
            train = _seconds_per_image(training, device, seconds)
            evaluate = _seconds_per_image(_evaluating(job), device, seconds / 4)
            job.network.train()
            save, written = _seconds_per_save(job, training, train)
        finally:
            source.close()
    every = settings.checkpoint.every_steps
    return Speed(
        start=ready - began,
        train=train,
        evaluate=evaluate,
        save=save,
        written=written,
        train_images=layout.steps * layout.size,
        eval_images=source.eval_size,
        saves=1 + ((layout.steps - 1) // every if every else 0),
    )


def _training(job: Job) -> Iterator[int]:
    """One optimizer step per item, over and over the first epochs; yields its number of images."""
    job.network.train()
    for epoch in range(10**6):
        micro = range(job.layout.size // job.layout.micro)
        batches = iter(job.source.train(epoch, range(job.layout.steps), micro))
        for _ in range(job.layout.steps * len(micro)):
            train_step(job, islice(batches, 1))
            yield job.layout.micro


@torch.no_grad()
def _evaluating(job: Job) -> Iterable[int]:
    job.network.eval()
    while True:
        for images, _ in job.source.evaluate(0, 1):
            with autocast(job.settings.precision, job.device):
                job.network(images)
            yield len(images)


def _seconds_per_image(work: Iterable[int], device: torch.device, seconds: float) -> float:
    """The time per image of a stream of work, after a warm-up, over about `seconds`."""
    stream = iter(work)
    for _ in range(WARM_UP):
        next(stream)
    synchronize(device)
    images, began = 0, time.perf_counter()
    while images == 0 or time.perf_counter() - began < seconds:
        images += next(stream)
        if images % 64 == 0:
            synchronize(device)  # the host runs ahead of the device
    synchronize(device)
    return (time.perf_counter() - began) / images


def _seconds_per_save(job: Job, training: Iterator[int], train: float) -> tuple[float, float]:
    """By how much a checkpoint holds training up, and after how long it is written: the second of two.

    The first one allocates memory. A network that is not finite any more after this training is not saved: 0, 0.
    """
    held_up = elapsed = 0.0
    try:
        for _ in range(2):
            synchronize(job.device)
            images, began = 0, time.perf_counter()
            save(job)
            while job.checkpoints.saving:
                images += next(training)
            job.checkpoints.wait()
            synchronize(job.device)
            elapsed = time.perf_counter() - began
            held_up = max(0.0, elapsed - images * train)
    except NonFiniteError:
        pass
    job.checkpoints.close()
    return held_up, elapsed


def recorded(runs: Iterable[Settings], wanted: Settings) -> float | None:
    """Wall seconds of the newest finished run that computes the same as `wanted` but for its seed and epochs."""
    alike = [RunDir.locate(settings) for settings in runs if network_key(settings) == network_key(wanted)]
    finished = [place.result for place in alike if place.state() == "finished"]
    if not finished:
        return None
    result = read_result(max(finished, key=lambda path: path.stat().st_mtime))
    seconds: float = result["wall_seconds"] / max(1, result["epochs"])
    return seconds * wanted.recipe.epochs
