"""The peer of our loop and data pipelines: timm's own parts, put together as its train.py does.

That script is in none of timm's packages, so what is timed is named "timm's parts": `create_loader` with its
prefetcher, `Mixup` and the scheduler, with the values of our recipe.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from experiments.config.settings import Recipe
from experiments.runtime.device import autocast
from experiments.training.loop import Job


def train_loader(
    dataset: Any, recipe: Recipe, shape: tuple[int, int, int], batch: int, mean: Sequence[float], std: Sequence[float],
    workers: int, device: torch.device,
) -> Any:  # fmt: skip
    """Make timm's training loader over an ImageDataset, or anything with a `transform`, for a recipe."""
    from timm.data import create_loader

    return create_loader(
        dataset, shape, batch, is_training=True, re_prob=recipe.erasing, re_mode="pixel", hflip=recipe.flip,
        auto_augment=recipe.randaugment, color_jitter=0.0, interpolation=recipe.interpolation, num_workers=workers,
        mean=tuple(mean), std=tuple(std), device=device, pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
    )  # fmt: skip


def mixup_of(recipe: Recipe, classes: int, device: torch.device) -> Any:
    """Make timm's Mixup with the recipe's values."""
    from timm.data import Mixup

    mix = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=classes)
    return lambda images, labels: mix(images.to(device), labels.to(device))


def epoch_of(job: Job, dataset: Any, workers: int) -> Callable[[], None]:
    """What timm's train.py does in an epoch, with our network and optimizer."""
    from timm.loss import SoftTargetCrossEntropy
    from timm.scheduler import CosineLRScheduler

    settings, size = job.settings, job.settings.train_side
    shape, statistics = (job.source.in_chans, size, size), (settings.data.mean, settings.data.std)
    loader = train_loader(dataset, settings.recipe, shape, job.layout.micro, *statistics, workers, job.device)
    mix = mixup_of(settings.recipe, job.source.num_classes, job.device)
    loss_of: nn.Module = SoftTargetCrossEntropy()
    model, optimizer, scaler = job.state.model, job.state.optimizer, job.state.scaler
    scheduler = CosineLRScheduler(optimizer, t_initial=10_000, warmup_t=100, t_in_epochs=False)

    def epoch() -> None:
        model.train()
        for update, (images, labels) in enumerate(loader):
            images, targets = mix(images.contiguous(memory_format=torch.channels_last), labels)
            with autocast(settings.precision, job.device):
                loss = loss_of(model(images), targets)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            scheduler.step_update(update)
        loss.item()

    return epoch
