"""Folders of finished runs that nobody trained: as many as a benchmark or a storm wants, sealed like any other."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from experiments.bench.tasks import digits_settings
from experiments.config.identity import Identity
from experiments.config.settings import Settings
from experiments.store.result import sealed
from experiments.store.run_dir import RunDir, public
from experiments.strict_json import dump
from experiments.studies import frozen
from roadmap import Design, complexity_of
from roadmap.pretrained import Pretrained
from roadmap.steps import STEPS

NAME = "made_up"
CLASSES = tuple(map(str, range(10)))
CHECKSUM = "0" * 32


def write_runs(runs_dir: Path, count: int) -> list[RunDir]:
    """`count` runs of one frozen study, the micro ladder with as many seeds as that takes; without weights."""
    asked = [[f"+step={STEPS[i % len(STEPS)].name}", f"seed={i // len(STEPS)}"] for i in range(count)]
    path = frozen.study_path(NAME, asked, runs_dir)
    study = frozen.freeze(NAME, path, asked, lambda words: settings_of(runs_dir, *words))
    return [write_run(settings) for settings in study.runs]


def write_run(settings: Settings, weights: Mapping[str, bytes] = MappingProxyType({})) -> RunDir:
    """One run: what it was asked for, made-up lines for its epochs, and the record that seals them.

    Args:
        settings: whose data has its checksum.
        weights: contents of the files of weights, by name.
    """
    identity, asked = Identity.of(settings), public(settings)
    place = RunDir.locate(settings, identity)
    place.path.mkdir(parents=True)
    config = {"run_id": identity.run_id, "config_id": identity.config_id, **asked}
    described = Pretrained.of_run({**asked, "run_id": identity.run_id}, CLASSES)
    place.config.write_text(yaml.safe_dump(config, sort_keys=False))
    place.described.write_bytes(dump(described.config(), indent=1))
    lines = list(_epochs(settings))
    place.metrics.write_bytes(b"".join(map(dump, lines)))
    place.timing.write_bytes(b"".join(dump({"epoch": line["epoch"], **_TIMES}) for line in lines))
    for name, content in weights.items():
        (place.path / name).write_bytes(content)
    record = {"run_id": identity.run_id, "config_id": identity.config_id, **_record(settings, asked, lines)}
    place.result.write_bytes(dump(sealed(record, place.final_files), indent=1))
    return place


_TIMES = {"train_seconds": 3.1, "eval_seconds": 0.7, "images_per_second": 612.5}


@cache
def _of_step(step: str) -> Settings:
    settings = digits_settings(step.rpartition(".")[2], "regime=micro", "device=cpu", "threads=1")
    return settings.replace(data=dataclasses.replace(settings.data, checksum=CHECKSUM))


def settings_of(runs_dir: Path, step: str, seed: str) -> Settings:
    """What `+step=NAME seed=N` asks for there."""
    return _of_step(step.partition("=")[2]).replace(seed=int(seed.partition("=")[2]), runs_dir=str(runs_dir))


def _epochs(settings: Settings) -> Iterator[dict[str, Any]]:
    """Learning curves that differ between seeds and have numbers of full length."""
    for epoch in range(1, settings.recipe.epochs + 1):
        loss = math.exp(-epoch / 5) + math.sin(settings.seed + 1) / 50 + 0.05
        top1 = round(98 - 30 * loss, 2)
        line = {"epoch": epoch, "step": 22 * epoch, "lr": settings.lr / epoch, "train_loss": 1.1 * loss, "loss": loss}
        yield {**line, "top1": top1, "top5": 99.5, "top1_ema": None}


def _record(settings: Settings, asked: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    cost, last = _cost(settings.design), lines[-1]
    return {
        **{key: asked[key] for key in ("step", "changes", "label", "study", "regime", "seed", "design")},
        **{key: asked[key] for key in ("recipe", "budget", "batch", "data", "precision", "image_size")},
        "eval_size": 360,
        "class_names": list(CLASSES),
        "epochs": len(lines),
        **{key: last[key] for key in ("top1", "top5", "top1_ema", "loss")},
        "top1_best": max(line["top1"] for line in lines),
        "params": cost[0],
        "gmacs": cost[1],
        "params_1k": cost[0],
        "gmacs_224": cost[1],
        "images_per_second": _TIMES["images_per_second"],
        "wall_seconds": 3.8 * len(lines),
        "status": "finished",
        "versions": {"torch": "2.15.0", "convnext-roadmap": "0.1.0"},
        "device": "cpu",
        "threads": 1,
        "git": {"commit": None, "dirty": None},
    }


@cache
def _cost(design: Design) -> tuple[int, float]:
    found = complexity_of(design)
    return found.params, found.gmacs
