"""Synthetic run records that follow the schema of result.json, and ladders of them with known gains and noise."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from roadmap import STEPS, complexity_of, design_for
from roadmap.steps import BY_NAME

SEEDS = (0, 1, 2)
RECIPES = {
    "original": {"name": "original", "epochs": 90, "optimizer": "sgd", "lr": 0.1, "without": []},
    "enhanced": {"name": "enhanced", "epochs": 300, "optimizer": "adamw", "lr": 4e-3, "without": []},
}
FLAGS = {
    "original": {"layer_scale": None, "init": "kaiming", "drop_path": 0.0},
    "enhanced": {"layer_scale": 1e-6, "init": "trunc_normal", "drop_path": 0.1},
}


def record(
    step: str | None = "kernel_7",
    seed: int = 0,
    top1: float | None = 80.0,
    *,
    changes: Iterable[str] | None = None,
    recipe: str | None = None,
    regime: str = "micro",
    data: str = "fashion_mnist",
    budget: str = "proxy",
    flags: dict[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """One valid result.json; `fields` replaces any top-level field after everything else is consistent."""
    changes = tuple(BY_NAME[step].changes if changes is None else changes)
    recipe = recipe or (BY_NAME[step].recipe if step else "enhanced")
    design = design_for(changes, regime, **(FLAGS[recipe] | (flags or {})))
    cost = _cost(design_for(changes, regime), regime)
    content = {
        "step": step,
        "changes": list(changes),
        "study": None,
        "regime": regime,
        "seed": seed,
        "design": vars(design) | {"depths": list(design.depths)},
        "recipe": RECIPES[recipe],
        "budget": {"name": budget},
        "data": {"name": data, "checksum": "c" * 64, "eval_images": None},
        "epochs": 12,
        "top1": top1,
        "top1_best": top1,
        "top1_ema": None,
        "loss": 0.5 if top1 is not None else None,
        "params": cost[0],
        "gmacs": cost[1],
        "params_1k": cost[0],
        "gmacs_224": cost[1],
        "images_per_second": 900.0 / (1 + cost[1]),
        "wall_seconds": 75.0,
        "status": "finished",
        "versions": {"torch": "2.15.0", "roadmap": "0.1.0"},
        "device": "cpu",
        "threads": 2,
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "batch": {"size": 256, "micro": 128},
        "precision": "fp32",
        "image_size": 32,
        "eval_size": 10000,
        "label": step or "+".join(changes),
    } | fields
    asked = {key: content[key] for key in ("regime", "design", "recipe", "budget", "data", "batch", "precision")}
    config = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    run = hashlib.sha256(f"{config}-{content['seed']}".encode()).hexdigest()
    return {"run_id": run, "config_id": config} | content


_COSTS: dict[Any, tuple[int, float]] = {}


def _cost(design: Any, regime: str) -> tuple[int, float]:
    if design not in _COSTS:
        counted = complexity_of(design, regime=regime)
        _COSTS[design] = (counted.params, counted.gmacs)
    return _COSTS[design]


def write(runs: Path, content: dict[str, Any], metrics: bool = False) -> Path:
    """Write one record the way a run does; returns its folder."""
    name = f"{content['label']}-{content['regime']}-s{content['seed']}-{content['run_id'][:12]}"
    folder = runs / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(content))
    if metrics and content["top1"] is not None:
        epochs = content["epochs"]
        lines = []
        for epoch in range(1, epochs + 1):
            top1 = content["top1"] * (1 - 0.6 * np.exp(-4 * epoch / epochs))
            line = {"epoch": epoch, "step": epoch * 10, "lr": 1e-3, "train_loss": 1 / epoch, "loss": 1 / epoch}
            lines.append(json.dumps(line | {"top1": top1, "top1_ema": None}))
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def ladder(
    value: Callable[[str], float],
    *,
    seeds: Iterable[int] = SEEDS,
    noise: float = 0.1,
    seed_effect: float = 0.1,
    rng: int = 0,
    steps: Iterable[str] | None = None,
    **fields: Any,
) -> list[dict[str, Any]]:
    """Records of a ladder with true top-1 `value(step)`, a shared effect per seed and independent noise per run."""
    random = np.random.default_rng(rng)
    names = [step.name for step in STEPS] if steps is None else list(steps)
    records = []
    for seed in seeds:
        shift = seed_effect * random.standard_normal()
        for name in names:
            top1 = round(value(name) + shift + noise * random.standard_normal(), 4)
            records.append(record(name, seed, top1, **fields))
    return records


def write_all(runs: Path, records: Iterable[dict[str, Any]], metrics: bool = False) -> Path:
    """Write many records below `runs`."""
    for content in records:
        write(runs, content, metrics)
    return runs
