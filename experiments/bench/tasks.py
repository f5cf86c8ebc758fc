"""The same run for timm's parts: our settings as a task of `timm_script`, digits as PNG files."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.timm_script import Task
from experiments.config.settings import Recipe, Settings
from experiments.data.readers import digits
from experiments.data.splits import ImageArrays


def digits_settings(row: str, *overrides: str) -> Settings:
    """What `python run.py +step=ROW ...` trains: digits with the demo budget."""
    from experiments.config.compose import settings_from
    from experiments.config.schema import compose

    typed = [f"+step={row}", *overrides]
    return settings_from(compose(typed), typed)


def write_digits(folder: Path, settings: Settings) -> None:
    """The digits at the size that the network sees, as `train/CLASS/*.png` and `val/CLASS/*.png`."""
    from PIL import Image

    splits = digits.read(settings.data, settings.image_size)
    for split, part in {"train": splits.train, "val": splits.evaluation}.items():
        assert isinstance(part, ImageArrays)
        for index, (pixels, label) in enumerate(zip(part.pixels, part.labels, strict=True)):
            place = folder / split / str(label)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(pixels[..., 0])).save(place / f"{index:04}.png")


def write_task(path: Path, folder: Path, settings: Settings, until_first_step: bool = False) -> list[str]:
    """Write the task that trains what `settings` ask for on the files in `folder`; returns Python's arguments."""
    recipe, design = settings.recipe, settings.design
    network = {"drop_path_rate": recipe.drop_path, "layer_scale": recipe.layer_scale, "init": recipe.init}
    out = path.with_suffix("")
    out.mkdir()
    task = Task(
        folder=str(folder),
        out=str(out),
        model=f"roadmap_{settings.regime}_{settings.step}",
        network={**network, "stem_stride": design.stem_stride},
        classes=settings.data.classes or 10,
        size=settings.image_size,
        mean=settings.data.mean,
        std=settings.data.std,
        batch=settings.batch.micro,
        accumulation=settings.batch.accumulation(1),
        epochs=recipe.epochs,
        optimizer=_optimizer(recipe, settings.lr),
        schedule=_schedule(recipe),
        smoothing=recipe.label_smoothing,
        flip=recipe.flip,
        interpolation=recipe.interpolation,
        workers=settings.workers,
        device=settings.device,
        threads=settings.threads,
        until_first_step=until_first_step,
    )
    path.write_text(json.dumps(dataclasses.asdict(task)))
    return ["-m", "experiments.bench.timm_script", str(path)]


def _optimizer(recipe: Recipe, rate: float) -> dict[str, Any]:
    """Keywords of timm's create_optimizer_v2; its "sgd" has Nesterov's momentum, "momentum" has not."""
    common = {"lr": rate, "weight_decay": recipe.weight_decay, "filter_bias_and_bn": not recipe.decay_all}
    if recipe.optimizer == "sgd":
        return {"opt": "momentum", "momentum": recipe.momentum, **common}
    return {"opt": "adamw", "betas": list(recipe.betas), **common}


def _schedule(recipe: Recipe) -> dict[str, Any]:
    """Keywords of timm's create_scheduler_v2."""
    common: dict[str, Any] = {"num_epochs": recipe.epochs, "step_on_epochs": False, "warmup_lr": 0.0}
    common |= {"warmup_epochs": round(recipe.warmup_epochs), "warmup_prefix": False}
    if recipe.schedule == "cosine":
        return {"sched": "cosine", "min_lr": recipe.min_lr, **common}
    return {"sched": "step", "decay_epochs": recipe.decay_every, "decay_rate": recipe.decay_factor, **common}
