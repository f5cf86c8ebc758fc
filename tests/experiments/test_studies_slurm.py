"""A real SLURM: a study goes through sbatch; jobs requeued or preempted in mid-run end with the same record."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments import studies
from experiments.records import RunDir
from tests.conftest import ROOT
from tests.experiments.slurm_cluster import slurm_cluster
from tests.experiments.test_studies_ray import contents

pytestmark = pytest.mark.slurm
STUDY = (
    *("-m", "+step=resnet50,stage_ratio,kernel_7,separate_downsampling", "regime=micro", "device=cpu", "threads=1"),
    *("recipe.epochs=4", "recipe.lr=1e-3", "recipe.warmup_epochs=0", "batch.size=32", "batch.micro=32"),
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


def finish_preempted(process: "subprocess.Popen[str]", runs_dir: Path, again: Callable[[], Any]) -> None:
    """Submitit pickles the job inside its signal handler, which may lose the job; the same command helps."""
    output, _ = process.communicate(timeout=400)
    if process.returncode != 0:
        assert "dictionary changed size during iteration" in output, output[-3000:]
        finish(again(), runs_dir)


def wait_for(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def run_places(runs_dir: Path) -> list[RunDir]:
    """The runs of the only study, in the order of the job array."""
    wait_for(lambda: any(runs_dir.glob("studies/*.json")))
    (path,) = runs_dir.glob("studies/*.json")
    return [RunDir.locate(run.replace(runs_dir=str(runs_dir))) for run in studies.read_plan(path).runs]


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
    through_slurm = ("launcher=slurm", "hydra.launcher.timeout_min=30")
    study = start(queued, cluster, *through_slurm)
    first, second, *_ = places = run_places(queued / "runs")
    # one job is cancelled and queued again by the administrator, one gets the signal of a preemption
    wait_for(lambda: first.metrics.exists() or study.poll() is not None)
    array = array_of(cluster)
    assert first.state() == "half"
    subprocess.run(["scontrol", "requeue", f"{array}_0"], env=cluster, check=True)
    wait_for(lambda: second.metrics.exists() or study.poll() is not None)
    assert second.state() == "half"
    subprocess.run(["scancel", "--signal=USR2", f"{array}_1"], env=cluster, check=True)
    finish_preempted(study, queued / "runs", lambda: start(queued, cluster, *through_slurm))
    assert [place.state() for place in places] == ["finished"] * 4
    expected = contents(alone / "runs")
    assert len(expected) == 4
    assert contents(queued / "runs") == expected
    for place in (first, second):
        assert place.environment.read_text().count('"started"') >= 2  # it was trained in two sessions
