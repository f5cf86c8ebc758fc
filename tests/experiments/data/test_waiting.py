"""Data workers that deliver nothing: stopped, or out of shared memory. A run waits for them for a bounded time only."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from experiments.data import open_data, waiting
from experiments.errors import ResourceError, StoppedWaiting
from experiments.runtime.failures import machine_failures
from experiments.runtime.signals import StopFlag
from experiments.store.run_dir import RunDir
from experiments.training import run as engine
from tests.experiments.training.runs import only_run, settings_of


@pytest.fixture
def asked(tmp_path: Path) -> tuple[str, ...]:
    """JPEG files and two workers, as overrides."""
    noise = np.random.default_rng(0)
    for split, count in (("train", 32), ("val", 8)):
        for name in "ab":
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = noise.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{index}.jpg")
    data = ("data=imagefolder", f"data.root={tmp_path / 'images'}", "data.train_images=64", "data.eval_images=16")
    return (*data, "image_size=32", "workers=2")


@pytest.fixture
def no_worker_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and psutil.Process().children():
        time.sleep(0.05)
    assert not [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


def source_with_stopped_workers(tmp_path: Path, asked: tuple[str, ...], **more: float) -> tuple[Any, Iterator[Any]]:
    settings = settings_of(tmp_path / "runs", *asked, *(f"{key}={value}" for key, value in more.items()))
    source = open_data(settings, device="cpu")
    batches = source.train(0, range(4), range(2))
    next(batches)
    for child in psutil.Process().children():
        child.suspend()
    return source, batches


@pytest.mark.usefixtures("no_worker_is_left")
def test_stopped_workers_end_the_wait_after_the_set_time(tmp_path: Path, asked: tuple[str, ...]) -> None:
    source, batches = source_with_stopped_workers(tmp_path, asked, worker_timeout=1.5)
    began = time.monotonic()
    with pytest.raises(ResourceError, match=r"no data worker has delivered anything .*worker_timeout=1\.5"):
        list(batches)
    assert time.monotonic() - began < 6
    source.close()


@pytest.mark.usefixtures("no_worker_is_left")
def test_a_run_that_waits_for_its_workers_hears_a_signal(
    tmp_path: Path, asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "STOP_SECONDS", 0.5)
    source, batches = source_with_stopped_workers(tmp_path, asked)
    with StopFlag():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StoppedWaiting, match="the same command continues"):
            list(batches)
    source.close()


@pytest.mark.usefixtures("no_worker_is_left")
def test_a_batch_that_cannot_be_handed_over_ends_the_run_as_the_machines_fault(
    tmp_path: Path, asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full /dev/shm: torch raises in the thread that sends, where multiprocessing prints a traceback and goes on."""
    settings = settings_of(tmp_path / "runs", *asked)
    parent, share = os.getpid(), torch.UntypedStorage._share_fd_cpu_

    def full(storage: Any, *arguments: Any, **options: Any) -> Any:
        if os.getpid() != parent:
            raise RuntimeError(
                "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
            )
        return share(storage, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.UntypedStorage, "_share_fd_cpu_", full)
        began = time.monotonic()
        with pytest.raises(ResourceError, match="/dev/shm ran out"):
            engine.run(settings)
        assert time.monotonic() - began < 30
    place = RunDir(only_run(tmp_path / "runs"))
    assert place.state() == "half"
    engine.run(settings)
    assert place.state() == "finished"


@pytest.mark.usefixtures("no_worker_is_left")
@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_worker_that_dies_in_the_midst_of_handing_over_is_the_machines_fault(
    error: Exception, tmp_path: Path, asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_data(settings_of(tmp_path / "runs", *asked), device="cpu")
    batches = source.train(0, range(4), range(2))

    def broken(*arguments: Any) -> Any:
        raise error

    monkeypatch.setattr(source._loaded, "_try_get_data", broken)  # type: ignore[attr-defined]
    with pytest.raises(ResourceError, match="the connection to a data worker broke"):
        list(batches)
    source.close()


@pytest.mark.usefixtures("no_worker_is_left")
def test_passes_follow_each_other_within_the_bounds(tmp_path: Path, asked: tuple[str, ...]) -> None:
    """A pass that is given up leaves chunks under way, which the next one waits for."""
    settings = settings_of(tmp_path / "runs", *asked, "worker_timeout=30")
    source = open_data(settings, device="cpu")
    with machine_failures():
        next(source.train(0, range(4), range(2)))
        assert len(list(source.train(1, range(4), range(2)))) == 8
        assert sum(len(labels) for _, labels in source.evaluate()) == 16
    source.close()
