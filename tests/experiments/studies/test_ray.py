"""A real Ray on this machine: many runs at once, equal to runs in sequence, and a killed worker loses nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.store.result import comparable
from experiments.store.run_dir import RunDir
from tests.conftest import ROOT

pytestmark = pytest.mark.ray
SMALL = (
    *("regime=micro", "device=cpu", "threads=1", "recipe.lr=1e-3", "recipe.warmup_epochs=0", "batch.size=32"),
    *("batch.micro=32", "data.train_images=320", "data.eval_images=64"),
)
STEPS = "+step=resnet50,stage_ratio,kernel_5,kernel_7,gelu,separate_downsampling"
NOT_COMPARED = {"study", "git"}


def command(folder: Path, *overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "run.py"), "-m", f"runs_dir={folder}", *SMALL, *overrides]


def start(folder: Path, *overrides: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(folder, *overrides), cwd=folder.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: "subprocess.Popen[str]") -> None:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output[-4000:]


def contents(runs_dir: Path) -> dict[str, tuple[object, bytes, bytes]]:
    """Of every run: its record without times, its metrics and its weights, byte for byte."""
    found = {}
    for path in sorted(runs_dir.glob("*-s*-*")):
        place = RunDir(path)
        record = comparable(json.loads(place.result.read_text()))
        record = {k: v for k, v in record.items() if k not in NOT_COMPARED}
        found[path.name] = (record, place.metrics.read_bytes(), place.weights.read_bytes())
    return found


def half_done(runs_dir: Path) -> set[int]:
    """Processes that last worked on a run that is not finished; a killed one stays until Ray starts its run again."""
    places = [RunDir(path) for path in runs_dir.glob("*-s*-*")]
    unfinished = [place for place in places if place.metrics.exists() and place.state() == "half"]
    return {json.loads(place.environment.read_text())["sessions"][-1]["pid"] for place in unfinished}


def kill(pid: int) -> bool:
    """Whether the process was there to be killed."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs, one after the other."""
    folder = tmp_path_factory.mktemp("sequence") / "runs"
    finish(start(folder, STEPS, "recipe.epochs=3"))
    return folder


def test_parallel_runs_equal_sequential_ones(undisturbed: Path, tmp_path: Path) -> None:
    finish(start(tmp_path / "runs", STEPS, "recipe.epochs=3", "launcher=ray"))
    expected = contents(undisturbed)
    assert len(expected) == 6
    assert contents(tmp_path / "runs") == expected


def test_a_killed_worker_loses_nothing(undisturbed: Path, tmp_path: Path) -> None:
    runs_dir = tmp_path / "runs"
    study = start(runs_dir, STEPS, "recipe.epochs=3", "launcher=ray")
    killed: set[int] = set()
    deadline = time.monotonic() + 300
    while len(killed) < 2 and time.monotonic() < deadline and study.poll() is None:
        for pid in half_done(runs_dir) - killed:
            if len(killed) < 2 and kill(pid):
                killed.add(pid)
                time.sleep(2)
        time.sleep(0.05)
    finish(study)
    assert len(killed) == 2
    assert contents(runs_dir) == contents(undisturbed)
