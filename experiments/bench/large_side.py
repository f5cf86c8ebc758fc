"""One pass over a folder of JPEG files in a fresh process, by our pipeline or timm's: first batch, then all of them."""

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from experiments.bench import timm_parts
from experiments.bench.clock import Clock
from experiments.bench.jobs import settings_of
from experiments.bench.options import ENDS
from experiments.config.settings import Settings
from experiments.runtime.device import synchronize
from experiments.training.mixing import Mixing


def main() -> None:
    """Read what the command line's JSON object asks for; imports and settings are not on the clock."""
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    device = torch.device(task["device"])
    data = [f"data.root={task['folder']}", "data=imagefolder", f"workers={task['workers']}", f"device={device}"]
    settings = settings_of(ENDS[1], task["batch"], task["size"], *data)
    batches = {"ours": _ours, "timm": _timm}[task["side"]]
    import timm.data  # noqa: F401  (on both sides, so that what they hold in memory is alike)

    began = time.perf_counter()
    stream = iter(batches(settings, Path(task["folder"]), device))
    next(stream)
    synchronize(device)
    first = time.perf_counter() - began
    for _ in stream:
        pass
    synchronize(device)
    Clock().write(**{"first batch": first, "pass": time.perf_counter() - began})


def _ours(settings: Settings, folder: Path, device: torch.device) -> Iterable[Any]:
    from experiments.data import open_data

    source = open_data(settings, device=device)
    mixing = Mixing.of(settings.recipe, source.num_classes)
    for batch in source.train(0, range(source.train_size // settings.batch.size), range(1)):
        yield mixing(batch.images, batch.labels, settings.seed, batch.step, batch.index)
    source.close()


def _timm(settings: Settings, folder: Path, device: torch.device) -> Iterable[Any]:
    from timm.data import create_dataset

    data, size = settings.data, settings.train_side
    files = create_dataset("", str(folder), split="train")
    how = (settings.recipe, (3, size, size), settings.batch.micro, data.mean, data.std, settings.workers, device)
    loader = timm_parts.train_loader(files, *how)
    mix = timm_parts.mixup_of(settings.recipe, len(files.reader.class_to_idx), device)
    for images, labels in loader:
        yield mix(images, labels)


if __name__ == "__main__":
    main()
