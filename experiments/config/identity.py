"""What makes two runs the same run: a hash of everything that was asked for and changes the result."""

import dataclasses
import hashlib
import json
from typing import Any

from experiments.config.settings import Recipe, Settings

# Raised when a change of the code alters results, so that older records are not taken for new ones.
RESULTS_VERSION = 1

# Recipe fields that are part of the design or of the peak learning rate, which are hashed in their resolved form.
_RESOLVED_ELSEWHERE = {"lr", "base_lr", "lr_batch", "drop_path", "layer_scale", "init"}
# Data fields that say where the images come from or what the design and `image_size` start from.
_NOT_CONTENT = {"root", "download", "damaged_share", "image_size", "stem_stride"}


def idle_fields(recipe: Recipe) -> dict[str, str]:
    """Recipe fields that have no effect, each with the setting that makes it so."""
    idle = {}
    if recipe.optimizer == "sgd":
        idle["betas"] = "recipe.optimizer=sgd"
    if recipe.optimizer == "adamw":
        idle["momentum"] = "recipe.optimizer=adamw"
    if recipe.schedule != "cosine":
        idle["min_lr"] = f"recipe.schedule={recipe.schedule}"
    if recipe.schedule != "steps":
        idle |= dict.fromkeys(("decay_every", "decay_factor"), f"recipe.schedule={recipe.schedule}")
    if recipe.weight_decay == 0:
        idle["decay_all"] = "recipe.weight_decay=0"
    if not (recipe.mixup and recipe.cutmix):
        idle["mixup_switch"] = "recipe.mixup=0" if not recipe.mixup else "recipe.cutmix=0"
    if recipe.crop != "resized":
        idle["crop_scale"] = f"recipe.crop={recipe.crop}"
    if recipe.crop != "shift":
        idle["crop_pad"] = f"recipe.crop={recipe.crop}"
    return idle


def identity(settings: Settings) -> dict[str, Any]:
    """Everything that the run's id covers, as JSON-able values."""
    recipe = dataclasses.asdict(settings.recipe)
    for key in _RESOLVED_ELSEWHERE | set(idle_fields(settings.recipe)):
        del recipe[key]
    data = {key: value for key, value in dataclasses.asdict(settings.data).items() if key not in _NOT_CONTENT}
    asked = {
        "results_version": RESULTS_VERSION,
        "regime": settings.regime,
        "design": settings.design.asked(),
        "recipe": recipe | {"lr": settings.lr},
        "budget": dataclasses.asdict(settings.budget),
        "batch": dataclasses.asdict(settings.batch),
        "data": data,
        "image_size": settings.image_size,
        "precision": settings.precision,
        "seed": settings.seed,
    }
    plain: dict[str, Any] = json.loads(json.dumps(asked, allow_nan=False))
    return plain


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def run_id(settings: Settings) -> str:
    """SHA-256 (64 hex digits) of `identity`."""
    return _digest(identity(settings))


def config_id(settings: Settings) -> str:
    """The same without the seed: runs that may be averaged share it."""
    return _digest({key: value for key, value in identity(settings).items() if key != "seed"})
