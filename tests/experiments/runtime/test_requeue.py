"""SIGUSR2 under a launcher that answers it (submitit): training stops with a checkpoint first, then it is answered."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.store.lock import claim
from experiments.store.run_dir import RunDir
from tests.conftest import ROOT

PROGRAM = """
import signal, subprocess, sys, threading
import run

answer = sys.argv.pop(1)

def theirs(number, frame):
    print("answered beside", *(thread.name for thread in threading.enumerate()), flush=True)
    if answer == "fails":
        raise RuntimeError("no such job")
    if answer == "is ended":
        raise subprocess.CalledProcessError(-signal.SIGTERM, ["scontrol", "requeue"])
    sys.exit(255)

signal.signal(signal.SIGUSR2, theirs)
run.main()
"""
SMALL = (
    *("+step=gelu", "regime=micro", "device=cpu", "threads=1", "recipe.epochs=100", "recipe.lr=1e-3"),
    *("recipe.warmup_epochs=0", "batch.size=32", "batch.micro=32", "data.train_images=320", "data.eval_images=32"),
)


@pytest.mark.parametrize("answer, code", [("requeues", 255), ("is ended", 75), ("fails", 9)])
def test_the_run_stops_before_the_job_is_queued_again(answer: str, code: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, answer, *SMALL, f"runs_dir={tmp_path}"]
    job = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(tmp_path.glob("*/starts/*/metrics.jsonl")):
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    job.send_signal(signal.SIGUSR2)
    out, err = job.communicate(timeout=60)
    assert job.returncode == code, err
    # nothing of the run goes on: it is answered once, with the checkpoint written and the directory free
    (beside,) = re.findall(r"answered beside (.*)", out)
    assert "checkpoint" not in beside.split()  # the thread that writes; those that only wait may be on their way out
    (path,) = tmp_path.iterdir()
    place = RunDir(path)
    assert place.state() == "half"
    assert any(place.checkpoints.iterdir())
    with claim(place.path):
        pass
    lines = [line for line in err.splitlines() if "error" in line]
    expected = ["error: the job is not queued again, the same command continues: no such job"]
    assert lines == (expected if answer == "fails" else [])
