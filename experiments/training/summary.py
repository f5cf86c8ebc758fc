"""What a run leaves as its result: the fields of `result.json` (schema: experiments.store.result)."""

import math
import os
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from experiments.config.settings import Settings
from experiments.store.origin import changes, until
from experiments.store.run_dir import public
from experiments.training.job import Job
from experiments.training.losses import Loss
from roadmap import Design, complexity_of
from roadmap.files import INSTALLED
from roadmap.regimes import stem_stride_in

PACKAGES = ("convnext-roadmap", "torch", "torchvision", "timm", "numpy", "safetensors")
CHANCE = 0.98  # a loss above this share of ln(classes) is no better than guessing
AVERAGED = 100  # steps until BatchNorm's running averages surely describe the network; seen to lag after 66


def compose_result(job: Job, diverged: dict[str, Any] | None = None) -> dict[str, Any]:
    """The record to seal, from the run's own metrics; `diverged` names the step and the last good checkpoint."""
    settings, source, counters = job.settings, job.source, job.state.counters
    history = job.run_dir.history()
    asked = public(settings)
    last = history[-1] if history else {"top1": None, "top1_ema": None, "loss": None}
    cost = complexity_of(
        settings.design, image_size=settings.image_size, num_classes=source.num_classes, in_chans=source.in_chans
    )
    published = settings.design.replace(stem_stride=stem_stride_in(settings.regime))
    paper = complexity_of(published, image_size=224, num_classes=1000)
    warning = chance_warning(history, source.num_classes, settings.design, job.loss)
    starts = until(job.starts, job.step)
    warnings = [f"mixed: {line}" for line in changes(starts)] + ([warning] if warning else [])
    return {
        "run_id": job.identity.run_id,
        "config_id": job.identity.config_id,
        **{key: asked[key] for key in ("step", "changes", "label", "study", "regime", "seed", "design")},
        **{key: asked[key] for key in ("recipe", "budget", "batch", "data", "precision", "image_size")},
        "eval_size": source.eval_size,
        "class_names": list(source.class_names),
        "top5": last.get("top5"),
        "epochs": len(history),
        "top1": last["top1"],
        "top1_best": max((line["top1"] for line in history), default=None),
        "top1_ema": last["top1_ema"],
        "loss": last["loss"],
        "params": cost.params,
        "gmacs": cost.gmacs,
        "params_1k": paper.params,
        "gmacs_224": paper.gmacs,
        "images_per_second": counters.images / counters.train_seconds if counters.train_seconds else 0.0,
        "wall_seconds": counters.wall_seconds,
        "status": "diverged" if diverged else "finished",
        "versions": versions(),
        "device": device_name(job.device),
        "threads": torch.get_num_threads(),
        "git": git_state(),
        **{key: asked[key] for key in ("idle", "replaced") if asked[key]},
        **({"init_from": asked["init_weights"]} if asked["init_weights"] else {}),
        **({"diverged": diverged} if diverged else {}),
        **({"damaged_images": source.damage.count} if source.damage.count else {}),
        **({"warnings": warnings} if warnings else {}),
        **({"starts": starts} if starts else {}),
    }


def origin_of(settings: Settings, device: torch.device, world_size: int) -> dict[str, Any]:
    """What may change the bits that a start computes, and whose code it is."""
    timed = device.type == "cuda" and not settings.deterministic
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")  # oneDNN chooses for itself
    return {
        **git_state(),
        "versions": versions(),
        "device": device_name(device),
        "instruction_set": torch.backends.cpu.get_cpu_capability() + (f", oneDNN {limit}" if limit else ""),
        "threads": torch.get_num_threads(),
        "world_size": world_size,
        "compile": settings.compile,
        "kernels": "deterministic" if settings.deterministic else "chosen by time" if timed else "default",
    }


def chance_warning(history: Sequence[dict[str, Any]], classes: int, design: Design, loss: Loss) -> str | None:
    """One line when no epoch's training or validation loss was clearly below that of guessing.

    Guessing costs ln(classes) in evaluation and `loss.guessing` in training, smoothed and mixed targets included. The
    validation loss alone tells nothing as long as BatchNorm's averages lag behind the network.
    """
    if not history or (design.norm == "bn" and history[-1]["step"] < AVERAGED):
        return None
    trained, evaluated = (min(line[name] for line in history) for name in ("train_loss", "loss"))
    if trained < CHANCE * loss.guessing(classes) or evaluated < CHANCE * math.log(classes):
        return None
    level = f"ln {classes} = {math.log(classes):.3f}"
    if loss.guessing(classes) != math.log(classes):
        level += f", {loss.guessing(classes):.3f} in training"
    return (
        f"neither the training nor the validation loss ever left chance level ({level}): nothing was learned."
        " Likely causes: a learning rate that is far too small or too large (the highest was"
        f" {max(line['lr'] for line in history):.3g}), labels that do not belong to the images, images without content"
    )


def device_name(device: torch.device) -> str:
    """The device's model where it has one, else its kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any]:
    """Commit of this code and whether tracked files differ from it; nulls outside a checkout.

    An installed package may lie in an environment inside a repository that has nothing to do with it.
    """
    if INSTALLED:
        return {"commit": None, "dirty": None}
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(Path(__file__).resolve().parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
