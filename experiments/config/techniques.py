"""The training techniques that `recipe.without` can take away by name, and what switched off means for each."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from experiments.config.settings import Recipe
from experiments.errors import ConfigError

# name -> the recipe's fields with their off values
TECHNIQUES: Mapping[str, Mapping[str, Any]] = {
    "weight_decay": {"weight_decay": 0.0},
    "warmup": {"warmup_epochs": 0.0},
    "cosine": {"schedule": "constant"},
    "clip_grad": {"clip_grad": None},
    "ema": {"ema": None},
    "bce": {"loss": "cross_entropy"},
    "label_smoothing": {"label_smoothing": 0.0},
    "mixup": {"mixup": 0.0},
    "cutmix": {"cutmix": 0.0},
    "randaugment": {"randaugment": None},
    "auto_augment": {"auto_augment": None},
    "trivial_augment": {"trivial_augment": False},
    "erasing": {"erasing": 0.0},
    "drop_path": {"drop_path": 0.0},
    "dropout": {"dropout": 0.0},
    "layer_scale": {"layer_scale": None},
    "trunc_normal": {"init": "kaiming"},
    "repeats": {"repeats": 1},
    "fixres": {"train_scale": 1.0},
    "crop": {"crop": "none"},
    "flip": {"flip": 0.0},
}


def is_on(recipe: Recipe, name: str) -> bool:
    """Whether a recipe uses a technique."""
    off = TECHNIQUES[name]
    if name == "cosine":
        return recipe.schedule == "cosine"
    return any(getattr(recipe, key) != value for key, value in off.items())


def active(recipe: Recipe) -> list[str]:
    """The techniques that a recipe uses, in the order of `TECHNIQUES`."""
    return [name for name in TECHNIQUES if is_on(recipe, name)]


def without(recipe: Recipe, names: Iterable[str], set_by_hand: Iterable[str] = ()) -> Recipe:
    """The recipe with techniques switched off; its `without` lists them in the order of `TECHNIQUES`.

    Args:
        recipe: any recipe; its own `without` is replaced.
        names: techniques to switch off.
        set_by_hand: config keys that the user typed; switching off what was just set is a contradiction.

    Raises:
        ConfigError: a name that is unknown, listed twice, already off, or typed as well.
    """
    names = list(names)
    changes: dict[str, Any] = {}
    for name in names:
        if name not in TECHNIQUES:
            raise ConfigError(f"recipe.without={name} is not one of: {', '.join(TECHNIQUES)}")
        if names.count(name) > 1:
            raise ConfigError(f"recipe.without names {name} twice")
        if not is_on(recipe, name):
            raise ConfigError(f"recipe.without={name}: it is already off; on are: {', '.join(active(recipe))}")
        for key in TECHNIQUES[name]:
            if f"recipe.{key}" in set_by_hand or f"design.{key}" in set_by_hand:
                raise ConfigError(
                    f"recipe.without={name} contradicts the {key} that is set beside it: keep one of them"
                )
        changes |= TECHNIQUES[name]
    return dataclasses.replace(recipe, **changes, without=tuple(name for name in TECHNIQUES if name in names))
