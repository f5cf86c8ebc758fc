"""For contrast: a training loop of timm's own parts, killed and resumed like ours.

timm's package does not ship its train.py, so this is a short loop over what that script is made of (create_model,
create_optimizer_v2, create_scheduler_v2, Mixup, ModelEmaV3, CheckpointSaver, resume_checkpoint), in its order: one seed
at the start, a checkpoint per epoch, and a restart that resumes from `last.pth.tar` where there is one.
"""

import hashlib
import random
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from tests.storms import fleet

EPOCHS, STEPS, BATCH = 8, 12, 16


def train(folder: Path) -> None:
    """Train or resume in `folder`; writes the digest of the final weights, their average and the best metric."""
    import torch
    from timm import create_model
    from timm.data import Mixup
    from timm.loss import SoftTargetCrossEntropy
    from timm.models import resume_checkpoint
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import CheckpointSaver, ModelEmaV3, random_seed

    torch.set_num_threads(1)
    random_seed(42, 0)
    model = create_model("test_convnext", num_classes=10, drop_path_rate=0.2)
    optimizer = create_optimizer_v2(model, "adamw", lr=2e-3, weight_decay=0.05)
    ema = ModelEmaV3(model, decay=0.9)
    last, start = folder / "last.pth.tar", 0
    if last.exists():
        start = resume_checkpoint(model, str(last), optimizer, log_info=False) or 0
        state = torch.load(last, weights_only=True)
        ema.module.load_state_dict(state["state_dict_ema"])
    saver = CheckpointSaver(model, optimizer, model_ema=ema, checkpoint_dir=str(folder), max_history=2)
    scheduler, _ = create_scheduler_v2(optimizer, num_epochs=EPOCHS, warmup_epochs=1, updates_per_epoch=STEPS)
    if start:
        scheduler.step(start)
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=10)
    images = torch.randn(STEPS * BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(len(images)) % 10
    best = None
    for epoch in range(start, EPOCHS):
        model.train()
        order = torch.randperm(len(images))
        for step in range(STEPS):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            x, y = mixup(images[chosen], labels[chosen])
            optimizer.zero_grad()
            SoftTargetCrossEntropy()(model(x), y).backward()
            optimizer.step()
            ema.update(model)
            scheduler.step_update(epoch * STEPS + step + 1)
        model.eval()
        with torch.inference_mode():
            top1 = float((model(images).argmax(1) == labels).float().mean())
        best, _ = saver.save_checkpoint(epoch, metric=top1)
        scheduler.step(epoch + 1, top1)
    digest = hashlib.sha256(str(best).encode())
    for module in (model, ema.module):
        for tensor in module.state_dict().values():
            digest.update(tensor.numpy().tobytes())
    (folder / "digest").write_text(digest.hexdigest())


def start(folder: Path) -> fleet.Child:
    """`train` in a process of its own."""
    return fleet.fork(partial(train, folder), folder / "log")


def await_checkpoint(child: fleet.Child, folder: Path) -> None:
    """Wait for the first checkpoint: a run that is killed before it starts over, in any program, and proves nothing."""
    while not (folder / "last.pth.tar").exists() and child.poll() is None:
        time.sleep(0.002)


def trial(index: int, seed: int, expected: str, seconds: float) -> str:
    """One kill at a random moment after the first checkpoint, and a restart: identical, different, or failed."""
    random_ = random.Random(f"timm {seed} {index}")
    with tempfile.TemporaryDirectory(prefix="timm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        child = start(folder)
        await_checkpoint(child, folder)
        time.sleep(random_.uniform(0, seconds))
        child.kill()
        if start(folder).wait() != 0:
            return "failed"
        return "identical" if (folder / "digest").read_text() == expected else "different"


def run(count: int, seed: int, jobs: int) -> dict[str, Any]:
    """How many of `count` killed runs end as the undisturbed one."""
    import timm  # noqa: F401  (before the clock starts: children are forked)

    digests, seconds = set(), 0.0
    for _ in range(2):  # twice, to show that undisturbed runs do agree
        with tempfile.TemporaryDirectory(prefix="timm-") as name:
            child = start(Path(name))
            await_checkpoint(child, Path(name))
            began = time.monotonic()
            if child.wait() != 0:
                raise RuntimeError(f"the undisturbed run of timm's parts failed: {child.text()}")
            seconds = time.monotonic() - began
            digests.add((Path(name) / "digest").read_text())
    if len(digests) != 1:
        raise RuntimeError("two undisturbed runs of timm's parts differ")
    trials = partial(trial, seed=seed, expected=digests.pop(), seconds=seconds)
    found = fleet.every(trials, count, jobs, "timm's parts")
    return {
        f"timm's parts, killed after the first checkpoint, {verdict}": f"{found.count(verdict)} of {count}"
        for verdict in sorted(set(found))
    }
