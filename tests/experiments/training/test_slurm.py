"""One run over the tasks of a real SLURM job step."""

import subprocess
from pathlib import Path

import pytest

from tests.experiments.slurm_cluster import slurm_cluster
from tests.experiments.training.runs import LN, ROOT, command, environment, fingerprint, launch, only_run

pytestmark = pytest.mark.slurm


def test_two_slurm_tasks_are_two_ranks(tmp_path: Path) -> None:
    """`srun --ntasks 2 python run.py ...` leaves what torchrun with two processes leaves."""
    done = launch(command(tmp_path / "torchrun", step=LN, ranks=2))
    assert done.returncode == 0, done.stderr[-2000:]
    with slurm_cluster(tmp_path / "slurm") as cluster:
        tasks = ["srun", "--ntasks=2", "--overcommit", *command(tmp_path / "srun", step=LN)]
        done = subprocess.run(
            tasks, cwd=ROOT, env={**environment(), **cluster}, capture_output=True, text=True, timeout=240
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "batch 16 = 2 ranks x 8 images x 1 accumulated" in done.stdout
    assert fingerprint(only_run(tmp_path / "srun")) == fingerprint(only_run(tmp_path / "torchrun"))
