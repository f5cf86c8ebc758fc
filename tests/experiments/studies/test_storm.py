"""Launchers that are killed, and launchers that race: each run is trained once and ends as if nothing had happened."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.store.run_dir import RunDir
from roadmap.steps import STEPS
from tests.conftest import ROOT
from tests.experiments.studies.test_ray import contents

SMALL = (
    *("regime=micro", "device=cpu", "threads=1", "recipe.epochs=2", "recipe.lr=1e-3", "recipe.warmup_epochs=0"),
    *("batch.size=32", "batch.micro=32", "data.train_images=128", "data.eval_images=32"),
)
KILLS = 10


def start(folder: Path, *overrides: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(ROOT / "run.py"), *overrides, *SMALL]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: "subprocess.Popen[str]", *allowed: int) -> str:
    output, _ = process.communicate(timeout=500)
    assert process.returncode in (0, *allowed), output[-3000:]
    return output


def sealed(runs_dir: Path) -> dict[Path, int]:
    """The sealed records with the time at which each was written."""
    return {path: path.stat().st_mtime_ns for path in runs_dir.glob("*/result.json")}


@pytest.mark.slow
def test_a_killed_launcher_loses_nothing(tmp_path: Path) -> None:
    alone, stormy = tmp_path / "alone", tmp_path / "stormy"
    alone.mkdir()
    stormy.mkdir()
    began = time.monotonic()
    finish(start(alone, "+study=ladder", "seed=0"))
    length = time.monotonic() - began
    draw = random.Random(10)
    stamps: dict[Path, int] = {}
    kills = 0
    while kills < KILLS:
        study = start(stormy, "+study=ladder", "seed=0")
        try:
            study.wait(draw.uniform(0.1, 0.35) * length)
        except subprocess.TimeoutExpired:
            study.send_signal(signal.SIGKILL)
        study.communicate()
        kills += 1
        now = sealed(stormy / "runs")
        assert stamps.items() <= now.items()  # what was sealed has not been trained again
        stamps = now
    finish(start(stormy, "+study=ladder", "seed=0"))
    expected = contents(alone / "runs")
    assert len(expected) == len(STEPS)
    assert contents(stormy / "runs") == expected
    assert stamps.items() <= sealed(stormy / "runs").items()


def race(folder: Path) -> None:
    """Two launchers start one study at the same moment; what one of them leaves to the other, the other finishes."""
    folder.mkdir()
    arguments = ("-m", "+step=enhanced_recipe,patchify_stem,gelu")
    for process in [start(folder, *arguments) for _ in range(2)]:
        finish(process, 9)  # 9: the other one was still at it
    finish(start(folder, *arguments))
    places = [RunDir(path.parent) for path in (folder / "runs").glob("*/result.json")]
    assert len(places) == 3
    for place in places:
        sessions = json.loads(place.environment.read_text())["sessions"]
        assert len(sessions) == 1, f"{place.path} had {len(sessions)} owners"


def test_two_launchers_share_a_study(tmp_path: Path) -> None:
    race(tmp_path / "race")


@pytest.mark.slow
def test_twenty_races(tmp_path: Path) -> None:
    for number in range(20):
        race(tmp_path / f"race-{number}")
