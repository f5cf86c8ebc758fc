"""How fast a run will be: a few steps of its own training loop, or what finished runs have recorded."""

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import torch

from experiments.batches import BatchPlan
from experiments.data import open_data
from experiments.device import pick_device, process_switches
from experiments.distributed import Ranks
from experiments.loop import Job, LossLog, train_step
from experiments.mixing import Mixing
from experiments.precision import autocast
from experiments.records import RunDir
from experiments.result import read_result
from experiments.settings import Settings
from experiments.state import TrainState
from experiments.train import build_state

WARM_UP = 2  # micro batches that are not counted: allocation, kernel choice, compilation


@dataclass(frozen=True)
class Speed:
    """Seconds that a run spends: to start, per training image, per evaluation image, per checkpoint."""

    start: float
    train: float
    evaluate: float
    save: float
    train_images: int  # images of an epoch, whole batches only
    eval_images: int

    def seconds(self, epochs: int) -> float:
        """Wall time of a run of this many epochs."""
        epoch = self.train_images * self.train + self.eval_images * self.evaluate + self.save
        return self.start + epochs * epoch


def network_key(settings: Settings) -> tuple[Any, ...]:
    """What a speed depends on: runs that share it are measured once."""
    data, recipe = settings.data, settings.recipe
    pipeline = (recipe.optimizer, bool(recipe.ema), recipe.randaugment is None, recipe.crop, recipe.erasing > 0)
    amount = (data.name, data.train_images, data.eval_images, data.holdout)
    how = (settings.compile, settings.grad_checkpointing, settings.threads, settings.device)
    return (settings.design, settings.image_size, settings.precision, settings.batch, *pipeline, *amount, *how)


def measure(settings: Settings, seconds: float = 2.0) -> Speed:
    """Train and evaluate for about `seconds` with the run's own data, network and loop; nothing is written."""
    began = time.monotonic()
    device = pick_device(settings.device)
    with process_switches(settings, device):
        source = open_data(settings, device=device)
        try:
            plan = BatchPlan.of(settings, source.train_size, 1)
            state = build_state(settings, source, device)
            job = _job(settings, device, source, plan, state)
            ready = time.monotonic()
            train = _seconds_per_image(_training(job), device, seconds)
            evaluate = _seconds_per_image(_evaluating(job), device, seconds / 4)
            size = sum(tensor.nbytes for tensor in state.tensors(job.ranks).values())
        finally:
            source.close()
    return Speed(
        start=ready - began,
        train=train,
        evaluate=evaluate,
        save=size / 500e6,  # a background write; what the loop waits for is the copy and a share of the disk
        train_images=plan.steps * plan.size,
        eval_images=source.eval_size,
    )


def _job(settings: Settings, device: torch.device, source: Any, plan: BatchPlan, state: TrainState) -> Job:
    """A job without record, checkpoints and progress, whose optimizer steps are one micro batch long."""
    none = cast(Any, None)
    return Job(
        settings=settings,
        ranks=Ranks(),
        device=device,
        source=source,
        plan=dataclasses.replace(plan, accumulation=1),
        mixing=Mixing.of(settings.recipe, source.num_classes),
        state=state,
        network=state.model,
        losses=LossLog(1, device),
        run_dir=none,
        checkpoints=none,
        stop=none,
        reporter=none,
    )


def _training(job: Job) -> Iterable[int]:
    """One optimizer step per item, over and over the first epochs; yields its number of images."""
    job.network.train()
    for epoch in range(10**6):
        micro = range(job.plan.size // job.plan.micro)
        batches = iter(job.source.train(epoch, range(job.plan.steps), micro))
        for _ in range(job.plan.steps * len(micro)):
            train_step(job, islice(batches, 1))
            yield job.plan.micro


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
    _wait(device)
    images, began = 0, time.perf_counter()
    while images == 0 or time.perf_counter() - began < seconds:
        images += next(stream)
        if device.type == "cuda" and images % 64 == 0:
            _wait(device)  # the host runs ahead of the device
    _wait(device)
    return (time.perf_counter() - began) / images


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def recorded(runs: Iterable[Settings], wanted: Settings) -> float | None:
    """Wall seconds of the newest finished run that computes the same as `wanted` but for its seed and epochs."""
    for settings in runs:
        if network_key(settings) != network_key(wanted):
            continue
        place = RunDir.locate(settings)
        if place.state() == "finished":
            result = read_result(place.result)
            seconds: float = result["wall_seconds"] / max(1, result["epochs"])
            return seconds * wanted.recipe.epochs
    return None
