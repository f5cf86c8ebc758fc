"""Which errors are the machine's, and what a run that meets one leaves behind."""

import errno
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.errors import ConfigError, DataError, MissingExtraError, StorageError
from experiments.runtime.failures import machine_failures
from experiments.store.run_dir import RunDir
from experiments.training import run as engine
from tests.experiments.training.runs import only_run, settings_of


def raising(error: Exception) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


GLOO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:24000"
OF_MACHINE: dict[str, tuple[Callable[[], Any], int]] = {
    "memory, torch": (lambda: torch.empty(10**15), 10),
    "memory, numpy": (lambda: np.empty(10**17), 10),
    "memory, CUDA": (raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore.")), 10),
    "memory, fork": (raising(OSError(errno.ENOMEM, "Cannot allocate memory")), 10),
    "memory, worker": (raising(MemoryError("Caught MemoryError in DataLoader worker process 0.\nOriginal")), 10),
    "worker, ended": (raising(RuntimeError("DataLoader worker (pid(s) 47, 11) exited unexpectedly")), 10),
    "worker, killed": (raising(RuntimeError("DataLoader worker (pid 47) is killed by signal: Killed. ")), 10),
    "rank": (raising(RuntimeError(GLOO)), 8),
    "rank, torch": (raising(torch.distributed.DistBackendError("watchdog")), 8),
    "disk": (raising(OSError(errno.ENOSPC, "No space left on device")), 5),
    "our disk": (raising(StorageError("no space")), 5),
    "extra": (raising(MissingExtraError("pip install it")), 7),
}
OF_RUN: dict[str, tuple[Callable[[], Any], int]] = {
    "setting": (raising(ConfigError("no good")), 2),
    "data": (raising(DataError("no images")), 3),
    "bug": (lambda: 1 / 0, 1),
    "bug in a worker": (raising(RuntimeError("Caught RuntimeError in DataLoader worker process 0.")), 1),
    "file": (lambda: Path("/nonexistent").read_bytes(), 1),
    "shapes": (lambda: torch.ones(2) @ torch.ones(3), 1),
}


@pytest.mark.parametrize("name", [*OF_MACHINE, *OF_RUN])
def test_only_what_the_machine_did_leaves_a_run_half_done(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, code = (OF_MACHINE | OF_RUN)[name]
    monkeypatch.setattr(engine, "_work", lambda *arguments: work())
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what the table says
        engine.run(settings_of(tmp_path))
    assert getattr(caught.value, "exit_code", 1) == code
    run = RunDir(only_run(tmp_path))
    assert run.state() == ("half" if name in OF_MACHINE else "failed")
    assert json.loads(run.error.read_text())["exit_code"] == code
    if name in OF_MACHINE:
        assert "\n" not in str(caught.value)


def test_what_a_run_without_memory_held_is_let_go() -> None:
    """A multirun keeps the errors of its runs; they must not keep the memory that the next run needs."""
    kept = []

    def work() -> None:
        held = torch.zeros(3)
        kept.append(weakref.ref(held))
        raise MemoryError

    try:
        with machine_failures():
            work()
    except Exception as error:
        errors = [error]
    assert "memory ran out" in str(errors[0])
    assert kept[0]() is None
