"""Epochs: train, evaluate, record, save. Nothing waits for the device outside the logging interval."""

import contextlib
import logging
import math
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from experiments.data import MicroBatch
from experiments.errors import InterruptedRun
from experiments.randomness import derive
from experiments.runtime.device import autocast
from experiments.runtime.signals import unhurried, working
from experiments.store.origin import until
from experiments.training.job import Job
from experiments.training.optim import set_learning_rate
from experiments.training.summary import chance_warning
from experiments.training.validate import Validation, validate

log = logging.getLogger(__name__)


class NonFiniteError(Exception):
    """A loss, or a weight, is no longer a finite number; `step` optimizer steps had been started."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} at step {step}")
        self.step = step


def run_epoch(job: Job) -> dict[str, Any]:
    """Finish the epoch under way and return its line of metrics, which is on disk by then.

    Raises InterruptedRun (after saving) or NonFiniteError, on all ranks at the same step.
    """
    counters = job.state.counters
    first, began = counters.step, time.monotonic()
    # ---- train
    job.reporter.start_epoch(counters.epoch, first)
    train_epoch(job)
    trained = time.monotonic()
    images = (job.layout.steps - first) * job.layout.size
    speed = images / max(1e-9, trained - began)
    # ---- evaluate
    line = _evaluated(job)
    ended = time.monotonic()
    # ---- record and save
    counters.images, counters.train_seconds = counters.images + images, counters.train_seconds + trained - began
    counters.epoch, counters.step, counters.loss_sum, counters.loss_count = line["epoch"], 0, 0.0, 0
    timing = {"epoch": line["epoch"], "train_seconds": trained - began, "eval_seconds": ended - trained}
    if job.ranks.main:
        job.run_dir.append_metrics(line)
        job.run_dir.append_timing({**timing, "images_per_second": speed})
    save(job)
    job.reporter.end_epoch(line, ended - began, speed)
    _flag_chance(job, line["epoch"])
    if line["epoch"] < job.settings.recipe.epochs and job.ranks.any(job.stop.requested):
        with unhurried():
            job.ranks.on_main(job.checkpoints.wait)
        raise InterruptedRun(f"stopped after epoch {line['epoch']} with a checkpoint: the same command continues")
    return line


def _evaluated(job: Job) -> dict[str, Any]:
    """The line of metrics of the epoch just trained. BN's running averages become their mean over ranks first."""
    counters, state = job.state.counters, job.state
    job.ranks.mean(list(state.running_averages().values()))
    raw = _validated(job, state.model)
    averaged = _validated(job, state.ema.module) if state.ema else None
    if not math.isfinite(raw.loss):
        raise NonFiniteError(job.step, f"the validation loss became {raw.loss}")
    return {
        "epoch": counters.epoch + 1,
        "step": job.step,
        "lr": job.rate(job.step - 1),
        "train_loss": counters.loss_sum / counters.loss_count,
        "loss": raw.loss,
        "top1": raw.top1,
        "top5": raw.top5,
        "top1_ema": averaged.top1 if averaged else None,
    }


def _validated(job: Job, network: nn.Module) -> Validation:
    return validate(network, job.source, job.ranks, device=job.device, precision=job.settings.precision)


def _flag_chance(job: Job, epoch: int) -> None:
    """Warn once a quarter of the epochs is over, and at the end, when the run has learned nothing."""
    total = job.settings.recipe.epochs
    if not job.ranks.main or epoch not in (max(1, total // 4), total):
        return
    warning = chance_warning(job.run_dir.history(), job.source.num_classes, job.settings.design, job.loss)
    if warning:
        log.warning("%s", warning)


def train_epoch(job: Job) -> None:
    """Train the rest of the epoch under way.

    Raises InterruptedRun after saving when any rank was asked to stop, NonFiniteError on all ranks at the same step.
    """
    counters, every = job.state.counters, job.settings.checkpoint.every_steps
    steps = range(counters.step, job.layout.steps)
    batches = iter(job.source.train(counters.epoch, steps, job.layout.micro_batches(job.ranks.rank)))
    job.network.train()
    for part in job.state.frozen:
        part.eval()  # or its running averages would go on
    for _ in steps:
        job.losses.push(train_step(job, islice(batches, job.layout.accumulation)))
        counters.step += 1
        job.reporter.step()
        if job.losses.full:
            read_losses(job)
        if job.ranks.vote(job.stop.requested):
            stop_here(job)
        if every and job.step % every == 0 and counters.step < job.layout.steps:
            save(job)
    if job.ranks.drain_vote():
        stop_here(job)
    read_losses(job)


def train_step(job: Job, batches: Iterable[MicroBatch]) -> Tensor:
    """One optimizer step over this rank's micro batches; returns their mean loss, still on the device."""
    state, step, share = job.state, job.step, 1.0 / job.layout.accumulation
    set_learning_rate(state.optimizer, job.rate(step))
    total = torch.zeros((), device=job.device)
    for position, batch in enumerate(batches, start=1):
        working()
        with _gradients_shared(job.network, position == job.layout.accumulation):
            loss = forward(job, batch, step)
            state.scaler.scale(loss * share).backward()
        total += loss.detach() * share
    if job.settings.recipe.clip_grad is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), job.settings.recipe.clip_grad)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    if state.ema is not None and (step + 1) % job.settings.recipe.ema_every == 0:
        state.ema.update()
    return total


def forward(job: Job, batch: MicroBatch, step: int) -> Tensor:
    """The mean loss of one micro batch; its noise depends on (seed, step, index of the micro batch) only."""
    seed = job.settings.seed
    images, targets = job.mixing(batch.images, batch.labels, seed, step, batch.index)
    torch.manual_seed(derive("noise", seed, step, batch.index))
    with autocast(job.settings.precision, job.device):
        logits = job.network(images)
    return job.loss.of(logits, targets, job.mixing.smoothing)


def _gradients_shared(network: nn.Module, last: bool) -> contextlib.AbstractContextManager:
    """Ranks exchange gradients once per step, with the last micro batch."""
    if last or not isinstance(network, nn.parallel.DistributedDataParallel):
        return contextlib.nullcontext()
    return network.no_sync()


def read_losses(job: Job) -> None:
    """Fold the losses since the last look into the epoch's; NonFiniteError names the first step that broke."""
    counters = job.state.counters
    if not job.losses.count:
        return
    first = job.step - job.losses.count
    for offset, loss in enumerate(job.losses.read(job.ranks), start=1):
        if not math.isfinite(loss):
            raise NonFiniteError(first + offset, f"the training loss became {loss}")
        counters.loss_sum += loss
        counters.loss_count += 1
    job.reporter.loss(counters.loss_sum / counters.loss_count)


def save(job: Job) -> None:
    """Write a checkpoint of this moment, unless the state holds a number that is not finite (NonFiniteError)."""
    read_losses(job)
    job.source.share_damage(job.ranks)
    if job.ranks.any(not job.state.finite()):
        raise NonFiniteError(job.step, "a weight or a statistic is not finite")
    now = time.monotonic()
    job.state.counters.wall_seconds += now - job.started
    job.started = now
    tensors = job.state.tensors(job.ranks)
    if job.ranks.main:
        listed = {"history": job.run_dir.history(), "starts": until(job.starts, job.step)}
        record = {**job.state.record(job.ranks), **listed}
        with unhurried():  # it waits for the one before
            job.checkpoints.save(job.step, tensors, record)


def stop_here(job: Job) -> None:
    """Save, wait until it is on disk, and leave."""
    with unhurried():
        save(job)
        job.ranks.on_main(job.checkpoints.wait)
    raise InterruptedRun(
        f"stopped after step {job.step} of {job.total_steps} with a checkpoint: the same command continues"
    )
