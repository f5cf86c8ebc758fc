"""One epoch: train, evaluate, record, save."""

import logging
import math
import time
from functools import partial
from typing import Any

from experiments.errors import InterruptedRun
from experiments.evaluate import evaluate
from experiments.loop import Job, NonFiniteError, save, train_epoch
from experiments.outcome import chance_warning

log = logging.getLogger(__name__)


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
    images = (job.plan.steps - first) * job.plan.size
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
        job.ranks.on_main(job.checkpoints.wait)
        raise InterruptedRun(f"stopped after epoch {line['epoch']} with a checkpoint: the same command continues")
    return line


def _evaluated(job: Job) -> dict[str, Any]:
    """The line of metrics of the epoch just trained. BN's running averages become their mean over ranks first."""
    counters, state = job.state.counters, job.state
    job.ranks.mean(list(state.running_averages().values()))
    score = partial(evaluate, source=job.source, ranks=job.ranks, device=job.device, precision=job.settings.precision)
    raw = score(state.model)
    averaged = score(state.ema.module) if state.ema else None
    if not math.isfinite(raw.loss):
        raise NonFiniteError(job.step, f"the validation loss became {raw.loss}")
    return {
        "epoch": counters.epoch + 1,
        "step": job.step,
        "lr": job.rate(job.step - 1),
        "train_loss": counters.loss_sum / counters.loss_count,
        "loss": raw.loss,
        "top1": raw.top1,
        "top1_ema": averaged.top1 if averaged else None,
    }


def _flag_chance(job: Job, epoch: int) -> None:
    """Warn once a quarter of the epochs is over, and at the end, when the run has learned nothing."""
    total = job.settings.recipe.epochs
    warning = chance_warning(job.run_dir.history(), job.source.num_classes) if job.ranks.main else None
    if warning and epoch in (max(1, total // 4), total):
        log.warning("%s", warning)
