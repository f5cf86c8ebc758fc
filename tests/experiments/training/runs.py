"""Tiny runs for the engine's tests, in this process and in fresh ones."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from experiments.config.compose import settings_from
from experiments.config.schema import compose
from experiments.config.settings import Settings
from experiments.store.result import comparable

ROOT = Path(__file__).resolve().parents[3]
BN, LN = "kernel_7", "separate_downsampling"
SMALL = (
    *("regime=micro", "budget=paper", "data=synthetic", "data.train_images=64", "data.eval_images=24"),
    *("batch.size=16", "batch.micro=8", "recipe.epochs=2", "recipe.warmup_epochs=0.5", "recipe.lr=2e-3"),
    *("device=cpu", "threads=1", "workers=0", "precision=fp32", "logger.log_every=3"),
)


# What the recipes of the other ladders add, all at once.
LATER = (
    *("recipe.optimizer=lamb", "recipe.loss=bce", "recipe.trivial_augment=true", "recipe.repeats=2"),
    *("recipe.train_scale=0.75", "recipe.ema=0.9", "recipe.ema_every=3", "recipe.dropout=0.2"),
)


def settings_of(runs_dir: Path, *overrides: str, step: str = LN) -> Settings:
    """A run of four steps per epoch and two epochs, unless `overrides` say otherwise."""
    typed = _last_wins([f"+step={step}", *SMALL, *overrides, f"runs_dir={runs_dir}"])
    return settings_from(compose(typed), typed)


def _last_wins(overrides: Sequence[str]) -> list[str]:
    """Hydra refuses some repeated keys; the later value counts."""
    return list({override.split("=", 1)[0].lstrip("+"): override for override in overrides}.values())


def command(runs_dir: Path, *overrides: str, step: str = LN, ranks: int = 1) -> list[str]:
    """The same run as a command line, under torchrun with several ranks."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    typed = _last_wins([f"+step={step}", *SMALL, *overrides, f"runs_dir={runs_dir}"])
    return [sys.executable, *launcher, str(ROOT / "run.py"), *typed]


def environment(**more: str) -> dict[str, str]:
    """One thread for each process, nothing of an outer launcher, and no W&B service that a killed run could haunt."""
    foreign = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "WANDB_SERVICE")
    own = {key: value for key, value in os.environ.items() if key not in foreign}
    return {**own, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}


def launch(arguments: Sequence[str], **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(arguments, capture_output=True, text=True, timeout=240, cwd=ROOT, env=environment(**more))


def only_run(runs_dir: Path) -> Path:
    """The one run below a folder."""
    (path,) = (path for path in runs_dir.iterdir() if path.is_dir() and path.name != "studies")
    return path


def lines(run: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def result(run: Path) -> dict[str, Any]:
    """The sealed record."""
    record: dict[str, Any] = json.loads((run / "result.json").read_text())
    return record


def fingerprint(run: Path) -> dict[str, str]:
    """Hashes of everything that may not depend on how a run was computed; timing fields and commit apart."""
    record = {key: value for key, value in comparable(result(run)).items() if key != "git"}
    parts = {name: (run / name).read_bytes() for name in ("last.safetensors", "config.json", "metrics.jsonl")}
    parts["result.json"] = json.dumps(record, sort_keys=True).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}


class StopAfter:
    """Stands in for StopFlag: asks to stop once `steps` optimizer steps have looked at it."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0

    def __enter__(self) -> "StopAfter":
        return self

    def __exit__(self, *details: object) -> None:
        pass


@contextmanager
def stopping(patch: pytest.MonkeyPatch, steps: int) -> Iterator[None]:
    """Runs in this block are asked to stop after their step number `steps`, counted from 0."""
    with patch.context() as inner:
        inner.setattr("experiments.training.run.StopFlag", lambda: StopAfter(steps))
        yield
