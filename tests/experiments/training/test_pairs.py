"""No pair of a recipe's choices is forbidden: every pair of their values trains two steps with a finite loss."""

import math
from pathlib import Path
from typing import Any

import pytest

from experiments.config.registry import CROPS, LOSSES, OPTIMIZERS, SCHEDULES
from experiments.config.techniques import TECHNIQUES
from experiments.training import run as engine
from roadmap.design import INITS
from tests.experiments.training.runs import lines, only_run, settings_of
from tests.roadmap.designs import all_pairs, covering_array, name_of, pairs_of

OURS = [name for name, entry in OPTIMIZERS.items() if entry.home != "experiments.training.timm_optim:build"]
CHOICES: dict[str, tuple[Any, ...]] = {
    "optimizer": (*OURS, "muon", "lion recipe.opt={caution:true}"),  # two for timm's, which one function makes
    "loss": (*LOSSES, "bce recipe.bce_sum=true recipe.bce_target_thresh=0.2"),
    "schedule": tuple(SCHEDULES),
    "crop": tuple(CROPS),
    "init": INITS,
    "weight_decay": (0.0, 0.05),
    "warmup_epochs": (0, 0.5),
    "clip_grad": ("null", 1.0),
    "ema": ("null", 0.9, "0.9 recipe.ema_every=2"),
    "label_smoothing": (0.0, 0.1),
    "mixup": (0.0, 0.8),
    "cutmix": (0.0, 1.0),
    "randaugment": ("null", "rand-m9-mstd0.5-inc1"),
    "auto_augment": ("null", "original-mstd0.5"),
    "trivial_augment": ("false", "true"),
    "erasing": (0.0, 0.25),
    "flip": (0.0, 0.5),
    "drop_path": (0.0, 0.2),
    "dropout": (0.0, 0.2),
    "layer_scale": ("null", 1e-6),
    "repeats": (1, 3),
    "train_scale": (1.0, 0.75, 1.5),
    "interpolation": ("bilinear", "bicubic"),
}
COVERING = covering_array(CHOICES, 0)
DIGITS = ("data=digits", "data.train_images=32", "data.eval_images=16", "recipe.epochs=1", "image_size=16")


def test_every_technique_takes_part_and_every_pair_is_covered() -> None:
    keys = {key for off in TECHNIQUES.values() for key in off}
    assert keys <= set(CHOICES)
    assert all(len(set(values)) > 1 for values in CHOICES.values())
    assert set().union(*(pairs_of(choice) for choice in COVERING)) == all_pairs(CHOICES)


@pytest.mark.parametrize("choice", COVERING, ids=name_of)
def test_every_pair_of_choices_trains_two_steps(choice: dict[str, Any], tmp_path: Path) -> None:
    asked = [word for key, value in choice.items() for word in f"recipe.{key}={value}".split()]
    record = engine.run(settings_of(tmp_path, *DIGITS, *asked))
    (line,) = lines(only_run(tmp_path))
    assert (record["status"], line["step"]) == ("finished", 2)
    assert math.isfinite(line["train_loss"]) and math.isfinite(line["loss"])
