"""A training script of timm's own parts, in the order of its train.py, for networks that are registered with timm.

    python -m experiments.bench.timm_script TASK.json

timm's package does not ship train.py. This has what that script does for such a run: create_model, create_optimizer_v2,
create_dataset and create_loader for both splits, create_scheduler_v2, an evaluation, a checkpoint (CheckpointSaver) and
a line of summary.csv per epoch.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.bench.clock import Clock


@dataclass(frozen=True)
class Task:
    """What to train, and how; `folder` has train/CLASS/ and val/CLASS/ below it."""

    folder: str
    out: str
    model: str
    classes: int
    size: int  # image side, pixels
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch: int  # images of a forward pass
    accumulation: int  # forward passes of an optimizer step
    epochs: int
    optimizer: dict[str, Any]  # of create_optimizer_v2
    schedule: dict[str, Any]  # of create_scheduler_v2
    smoothing: float
    flip: float
    interpolation: str
    workers: int
    device: str
    threads: int | None = None
    until_first_step: bool = False
    network: dict[str, Any] = field(default_factory=dict)  # of create_model


def main() -> None:
    """Train the task of the file that the command line names; reports its accuracy, or its way to the first step."""
    mark = Clock()
    mark("interpreter")
    task = Task(**json.loads(Path(sys.argv[1]).read_text()))
    import timm
    import torch
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import CheckpointSaver, random_seed, update_summary

    import roadmap.timm_models  # noqa: F401  (registers the networks)

    mark("imports")
    if torch.cuda.is_available():  # as in that script
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    if task.threads:
        torch.set_num_threads(task.threads)
    random_seed(42, 0)
    model = timm.create_model(task.model, num_classes=task.classes, **task.network)
    model.to(task.device).to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, **task.optimizer)
    mark("network built")
    if task.until_first_step:
        optimizer.register_step_post_hook(lambda *_: mark.end("first step"))
    train, val = (_loader(task, split) for split in ("train", "val"))
    updates = len(train) // task.accumulation
    scheduler, _ = create_scheduler_v2(optimizer, updates_per_epoch=updates, **task.schedule)
    loss_of = LabelSmoothingCrossEntropy(task.smoothing) if task.smoothing else torch.nn.CrossEntropyLoss()
    mark("data opened")
    saver = CheckpointSaver(model, optimizer, checkpoint_dir=task.out, recovery_dir=task.out, max_history=2)
    top1 = 0.0
    for epoch in range(task.epochs):
        loss = _train(task, epoch, model, train, optimizer, scheduler, loss_of)
        top1 = _evaluate(model, val)
        update_summary(epoch, {"loss": loss}, {"top1": top1}, Path(task.out) / "summary.csv", write_header=epoch == 0)
        saver.save_checkpoint(epoch, metric=top1)
        scheduler.step(epoch + 1, top1)
    mark.write(top1=top1)


def _loader(task: Task, split: str) -> Any:
    import torch
    from timm.data import create_dataset, create_loader

    return create_loader(
        create_dataset("", task.folder, split=split), (3, task.size, task.size), task.batch,
        is_training=split == "train", no_aug=not task.flip, hflip=task.flip, scale=(1.0, 1.0), ratio=(1.0, 1.0),
        color_jitter=0.0, interpolation=task.interpolation, mean=task.mean, std=task.std, num_workers=task.workers,
        crop_pct=1.0, device=torch.device(task.device), persistent_workers=task.workers > 0,
    )  # fmt: skip


def _train(task: Task, epoch: int, model: Any, loader: Any, optimizer: Any, scheduler: Any, loss_of: Any) -> float:
    """One epoch; returns the mean loss of its forward passes."""
    import torch
    from timm.utils import AverageMeter

    model.train()
    losses, updates = AverageMeter(), len(loader) // task.accumulation
    for index, (images, labels) in enumerate(loader):
        loss = loss_of(model(images.contiguous(memory_format=torch.channels_last)), labels)
        (loss / task.accumulation).backward()
        losses.update(loss.item(), len(images))
        if (index + 1) % task.accumulation == 0:
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step_update(epoch * updates + (index + 1) // task.accumulation)
    return float(losses.avg)


def _evaluate(model: Any, loader: Any) -> float:
    """Top-1 accuracy, per cent."""
    import torch

    model.eval()
    right = seen = 0
    with torch.inference_mode():
        for images, labels in loader:
            right += int((model(images.contiguous(memory_format=torch.channels_last)).argmax(1) == labels).sum())
            seen += len(labels)
    return 100 * right / seen


if __name__ == "__main__":
    main()
