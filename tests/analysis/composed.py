"""Records of runs as the command line asks for them, with results made up: `record(["+step=kernel_7"], top1=80.0)`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments.config.compose import settings_from
from experiments.config.identity import Identity
from experiments.config.schema import compose, register
from experiments.store.run_dir import public
from roadmap import complexity_of


def record(typed: Sequence[str], top1: float, top1_ema: float | None = None) -> dict[str, Any]:
    """One valid result.json of the run that these overrides ask for."""
    register()
    words = ["regime=micro", *typed]
    settings = settings_from(compose(words), words)
    settings = settings.replace(data=dataclasses.replace(settings.data, checksum="c" * 32))
    identity, asked = Identity.of(settings), public(settings)
    cost = complexity_of(settings.design, image_size=32)
    return {
        "run_id": identity.run_id,
        "config_id": identity.config_id,
        **{key: asked[key] for key in ("step", "changes", "idle", "replaced", "label", "study", "regime", "seed")},
        **{key: asked[key] for key in ("design", "recipe", "budget", "batch", "data", "precision", "image_size")},
        "eval_size": 360,
        "epochs": settings.recipe.epochs,
        "top1": top1,
        "top1_best": top1,
        "top1_ema": top1_ema,
        "loss": 0.5,
        "params": cost.params,
        "gmacs": cost.gmacs,
        "params_1k": cost.params,
        "gmacs_224": cost.gmacs,
        "images_per_second": 900.0,
        "wall_seconds": 75.0,
        "status": "finished",
        "versions": {"torch": "2.15.0"},
        "device": "cpu",
        "threads": 1,
        "git": {"commit": None, "dirty": None},
    }
