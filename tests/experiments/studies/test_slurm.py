"""A real SLURM: a study goes through sbatch; jobs requeued or preempted in mid-run end with the same record."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.store.run_dir import RunDir
from experiments.studies import frozen
from tests.conftest import ROOT
from tests.experiments.slurm_cluster import slurm_cluster
from tests.experiments.studies.test_ray import contents

pytestmark = pytest.mark.slurm
STUDY = (
    *("-m", "+step=resnet50,stage_ratio,kernel_7,separate_downsampling", "regime=micro", "device=cpu", "threads=1"),
    *("recipe.epochs=6", "recipe.lr=1e-3", "recipe.warmup_epochs=0", "batch.size=32", "batch.micro=32"),
    *("data.train_images=640", "data.eval_images=64", "workers=0"),
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


def start(folder: Path, environment: dict[str, str] | None, *overrides: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(ROOT / "run.py"), *STUDY, *overrides]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: "subprocess.Popen[str]", runs_dir: Path) -> None:
    output, _ = process.communicate(timeout=400)
    logs = "".join(path.read_text()[-1500:] for path in runs_dir.glob("studies/.submitit/*/*.err"))
    assert process.returncode == 0, output[-3000:] + logs


def wait_for(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def run_places(runs_dir: Path) -> list[RunDir]:
    """The runs of the only study, in the order of the job array."""
    wait_for(lambda: any(runs_dir.glob("studies/*.json")))
    (path,) = runs_dir.glob("studies/*.json")
    return [RunDir.locate(run.replace(runs_dir=str(runs_dir))) for run in frozen.read_study(path).runs]


def array_of(environment: dict[str, str]) -> str:
    """The id of the newest job array."""
    listing = subprocess.run(
        ["squeue", "--noheader", "--format=%F"], env=environment, capture_output=True, text=True, check=True
    )
    return max(listing.stdout.split(), key=int)


def test_a_study_through_sbatch(cluster: dict[str, str], tmp_path: Path) -> None:
    alone, queued = tmp_path / "alone", tmp_path / "queued"
    alone.mkdir()
    queued.mkdir()
    finish(start(alone, dict(os.environ)), alone / "runs")
    study = start(queued, cluster, "launcher=slurm", "hydra.launcher.timeout_min=30")
    first, *others = places = run_places(queued / "runs")
    # One job is cancelled and queued again by the administrator, the others get the signal of a preemption: directly,
    # for scancel goes on sending a signal while the job is being queued again, also to its next start.
    wait_for(lambda: first.metrics.exists() or study.poll() is not None)
    assert first.state() == "half"
    subprocess.run(["scontrol", "requeue", f"{array_of(cluster)}_0"], env=cluster, check=True)
    while others:
        wait_for(lambda: any(place.metrics.exists() for place in others) or study.poll() is not None)
        place = others.pop(next(number for number, place in enumerate(others) if place.metrics.exists()))
        assert place.state() == "half"
        os.kill(json.loads(place.environment.read_text())["sessions"][-1]["pid"], signal.SIGUSR2)
    finish(study, queued / "runs")
    assert [place.state() for place in places] == ["finished"] * 4
    expected = contents(alone / "runs")
    assert len(expected) == 4
    assert contents(queued / "runs") == expected
    for place in places:
        assert place.environment.read_text().count('"started"') >= 2  # it was trained in two sessions
