"""Settings and jobs as a run has them, for benchmarks that time parts of a run."""

from collections.abc import Callable
from pathlib import Path

import torch

from experiments.config.settings import Settings
from experiments.data import DataSource
from experiments.store.run_dir import RunDir
from experiments.training.batches import BatchLayout
from experiments.training.loop import Job, train_epoch

PLAIN = tuple(
    f"recipe.{key}" for key in ("mixup=0", "cutmix=0", "randaugment=null", "erasing=0", "crop=none", "flip=0")
)


def settings_of(row: str, batch: int, size: int, *overrides: str) -> Settings:
    """The enhanced recipe, as published, for one row of the ladder at this batch and image side."""
    from experiments.config.compose import settings_from
    from experiments.config.schema import compose

    typed = [f"+step={row}", "budget=paper", f"batch.size={batch}", f"batch.micro={batch}", f"image_size={size}"]
    typed += ["recipe=enhanced", "recipe.lr=1e-3", *overrides]
    return settings_from(compose(typed), typed)


def job_of(settings: Settings, device: torch.device, source: DataSource, folder: Path, steps: int) -> Job:
    """A run's own job with epochs of `steps` steps, as `experiments.training.run` builds it."""
    layout = BatchLayout(settings.batch.size, settings.batch.micro, 1, settings.batch.accumulation(1), steps)
    return Job.of(settings, source, RunDir(folder), device=device, layout=layout)


def epoch_of(job: Job) -> Callable[[], None]:
    """Train the next epoch of a job; nothing is evaluated or saved."""

    def epoch() -> None:
        job.state.counters.step = 0
        train_epoch(job)
        job.state.counters.epoch += 1

    return epoch
