"""Runs in fresh processes: several ranks, dying ranks, signals, secrets, data workers."""

import itertools
import json
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from experiments.errors import ResourceError
from experiments.store.run_dir import RunDir
from experiments.training import loop
from experiments.training import run as engine
from tests.experiments.training.runs import (
    BN,
    LATER,
    LN,
    ROOT,
    command,
    environment,
    fingerprint,
    launch,
    lines,
    only_run,
    result,
    settings_of,
)
from tests.experiments.training.wandb_files import wandb_history

# One step per epoch, so that metrics.jsonl holds the loss of every step.
TWENTY_STEPS = ("recipe.epochs=20", "batch.size=64", "recipe.warmup_epochs=4", "data.eval_images=32")
ENDLESS = ("recipe.epochs=5000", "data.train_images=512")


@pytest.mark.numeric
@pytest.mark.parametrize("step, micro, more", [(BN, 32, ()), (LN, 16, ()), (LN, 16, LATER)])
def test_two_ranks_train_as_one(tmp_path: Path, step: str, micro: int, more: tuple[str, ...]) -> None:
    """20 steps of one effective batch in fp32: the losses of 2 gloo ranks and of 1 differ by less than 1e-6.

    Two micro batches per step are added up in the same order by both, so their losses are equal to the last bit. Four
    are not, (a + b) + (c + d) against ((a + b) + c) + d: the LN design's losses stay within 1e-6 all the same, while
    BatchNorm over the 1 x 1 maps of this small network amplifies the rounding (5e-4 after 20 steps).
    Evaluation agrees for the LN design. BN's running averages are a mean over ranks, each of its own micro batches, so
    the BN design's validation loss differs slightly; the test bounds it.
    """
    for ranks in (1, 2):
        asked = (*TWENTY_STEPS, *more, f"batch.micro={micro}")
        done = launch(command(tmp_path / str(ranks), *asked, step=step, ranks=ranks))
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (lines(only_run(tmp_path / name)) for name in ("1", "2"))
    assert len(one) == len(two) == 20
    worst = max(abs(a["train_loss"] - b["train_loss"]) for a, b in zip(one, two, strict=True))
    assert worst < 1e-6, worst
    evaluated = max(abs(a["loss"] - b["loss"]) for a, b in zip(one, two, strict=True))
    assert evaluated < (1e-5 if step == LN else 0.05), evaluated
    assert [line["lr"] for line in one] == [line["lr"] for line in two]
    assert only_run(tmp_path / "1").name == only_run(tmp_path / "2").name


def _start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _end(process: subprocess.Popen[str]) -> None:
    """Make sure that nothing outlives the test."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.communicate()


def _wait_for_epochs(runs_dir: Path, count: int, process: subprocess.Popen[str], seconds: float = 120) -> Path:
    """The run's directory once `count` epochs are on record."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = [RunDir(config.parent) for config in runs_dir.glob("*/config.yaml")]
        if found and len(found[0].history()) >= count:
            return found[0].path
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.1)
    raise AssertionError("no epoch was finished in time")


def _ranks_of(process: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    """The processes of a torchrun launch by rank."""
    children = psutil.Process(process.pid).children(recursive=True)
    return {int(child.environ()["RANK"]): child for child in children if "RANK" in child.environ()}


def test_killing_a_rank_ends_all_within_a_minute(tmp_path: Path) -> None:
    process = _start(command(tmp_path, *ENDLESS, ranks=2))
    try:
        run = _wait_for_epochs(tmp_path, 1, process)
        ranks = _ranks_of(process)
        assert set(ranks) == {0, 1}
        began = time.monotonic()
        ranks[1].kill()
        assert process.wait(timeout=60) != 0
        assert time.monotonic() - began < 60
        assert not [child for child in ranks.values() if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        assert RunDir(run).state() == "half"
    finally:
        _end(process)


def test_a_signal_to_one_rank_stops_all_at_one_step_and_the_rest_is_identical(tmp_path: Path) -> None:
    size = ("recipe.epochs=4", "data.train_images=384", "batch.size=16", "batch.micro=8")
    process = _start(command(tmp_path / "cut", *size, step=BN, ranks=2))
    try:
        _wait_for_epochs(tmp_path / "cut", 1, process)
        _ranks_of(process)[1].send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    finally:
        _end(process)
    assert process.returncode != 0
    assert said.count("the same command continues") >= 1, said[-2000:]
    cut = only_run(tmp_path / "cut")
    assert RunDir(cut).state() == "half"
    for name in ("cut", "whole"):
        done = launch(command(tmp_path / name, *size, step=BN, ranks=2))
        assert done.returncode == 0, done.stderr[-2000:]
    assert fingerprint(cut) == fingerprint(only_run(tmp_path / "whole"))


def test_one_process_that_is_asked_to_stop_exits_with_75(tmp_path: Path) -> None:
    process = _start(command(tmp_path, *ENDLESS))
    try:
        run = _wait_for_epochs(tmp_path, 1, process)
        process.send_signal(signal.SIGUSR1)
        said, _ = process.communicate(timeout=30)
    finally:
        _end(process)
    assert process.returncode == 75, said
    assert "Traceback" not in said
    assert RunDir(run).state() == "half"
    assert list(RunDir(run).checkpoints.glob("step-*"))


def test_a_batch_that_does_not_divide_over_the_ranks_is_one_line(tmp_path: Path) -> None:
    done = launch(command(tmp_path, "batch.size=24", "batch.micro=8", ranks=2))
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if "error:" in line and "batch.size=24" in line]
    assert len(said) == 1, done.stderr[-3000:]
    assert "16 or 32" in said[0]


@pytest.mark.parametrize("logger", ["wandb", "tensorboard", "trackio"])  # beside the local record
def test_no_secret_or_environment_variable_is_written(tmp_path: Path, logger: str) -> None:
    pytest.importorskip(logger)
    canaries = {
        "WANDB_API_KEY": "0123456789abcdef0123456789abcdefca4a41e1",
        "AWS_SECRET_ACCESS_KEY": "canary-two-of-four",
        "SOME_PLAIN_VARIABLE": "canary-three-of-four",
        "HF_TOKEN": "canary-four-of-four",
    }
    done = launch(command(tmp_path, f"logger={logger}", "recipe.epochs=1"), **canaries)
    assert done.returncode == 0, done.stderr[-2000:]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 8
    for path in files:
        content = path.read_bytes()
        leaked = [name for name, value in canaries.items() if value.encode() in content]
        assert not leaked, f"{path.relative_to(tmp_path)} holds {leaked}"
    assert not [name for name, value in canaries.items() if value in done.stdout + done.stderr]


@pytest.mark.numeric
@pytest.mark.parametrize("more", [(), LATER], ids=["published", "later"])
def test_the_number_of_data_workers_changes_nothing(tmp_path: Path, more: tuple[str, ...]) -> None:
    """Decoding, cropping, augmentation, erasing, mixup and CutMix over 0, 1 and 2 worker processes."""
    noise = np.random.default_rng(0)
    for split, count in {"train": 12, "val": 4}.items():
        for name in "abcd":
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = noise.integers(0, 256, (40 + index, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{index}.png")
    data = ("data=imagefolder", f"data.root={tmp_path / 'images'}", "image_size=32", "data.eval_images=16", *more)
    prints = []
    for workers in (0, 1, 2):
        runs_dir = tmp_path / f"runs{workers}"
        engine.run(settings_of(runs_dir, *data, "data.train_images=48", f"workers={workers}", "recipe.epochs=1"))
        prints.append(fingerprint(only_run(runs_dir)))
    assert prints[0] == prints[1] == prints[2]
    assert result(only_run(tmp_path / "runs0"))["recipe"]["randaugment"] is not None


def test_a_killed_data_worker_leaves_the_run_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by the system's out-of-memory killer; the same command then finishes the run."""
    for split, name in itertools.product(("train", "val"), "ab"):
        (tmp_path / "images" / split / name).mkdir(parents=True)
        for index in range(16):
            Image.new("RGB", (40, 40), (index, 0, 0)).save(tmp_path / "images" / split / name / f"{index}.png")
    data = ("data=imagefolder", f"data.root={tmp_path / 'images'}", "image_size=32", "workers=1")
    settings = settings_of(tmp_path / "runs", *data, "data.train_images=32", "data.eval_images=16")
    true_step, steps = loop.train_step, itertools.count()

    def step(*arguments: Any) -> Any:
        if next(steps) == 2:  # in the second epoch
            for child in psutil.Process().children():
                child.kill()
        return true_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step)
        with pytest.raises(ResourceError, match="DataLoader worker"):
            engine.run(settings)
    run = RunDir(only_run(tmp_path / "runs"))
    assert (run.state(), json.loads(run.error.read_text())["exit_code"]) == ("half", 10)
    engine.run(settings)
    assert run.state() == "finished"


def test_wandb_history_is_complete_after_a_kill(tmp_path: Path) -> None:
    """kill -9 in mid-run, then the same command: the offline history equals metrics.jsonl point for point."""
    pytest.importorskip("wandb")
    arguments = command(tmp_path, "logger=wandb", "recipe.ema=0.9", "recipe.epochs=40", "data.train_images=128")
    process = _start(arguments)
    try:
        run = _wait_for_epochs(tmp_path, 2, process)
        process.kill()
    finally:
        _end(process)
    assert RunDir(run).state() == "half"
    done = launch(arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(lines(run)) == 40
    assert wandb_history(run) == lines(run)


@pytest.mark.numeric
@pytest.mark.slow
def test_compiled_training_agrees_with_plain(tmp_path: Path) -> None:
    """torch.compile of each block with inductor: the losses of 8 steps agree to 1e-4 relative."""
    for mode in ("none", "blocks"):
        done = launch(command(tmp_path / mode, f"compile={mode}", "recipe.drop_path=0"))
        assert done.returncode == 0, done.stderr[-2000:]
    plain, compiled = (lines(only_run(tmp_path / mode)) for mode in ("none", "blocks"))
    for a, b in zip(plain, compiled, strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-4)
