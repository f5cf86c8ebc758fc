"""Every single disk call of the writers fails in turn: what was there before stays, what is reported is one line."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from experiments.errors import StorageError
from experiments.store import atomic, lock
from experiments.store.checkpoint import Checkpoints, save_weights
from experiments.store.run_dir import RunDir
from tests.storms.hooks import ERRORS, CountedOs

RUN = "a" * 64
Work = Callable[[], object]


def disk_calls(monkeypatch: pytest.MonkeyPatch, hook: Callable[[int, str], None]) -> CountedOs:
    """Route the writers' disk calls through `hook` until the test ends."""
    stand_in = CountedOs(hook)
    for module, name in ((atomic, "os"), (atomic, "shutil"), (lock, "os")):
        monkeypatch.setattr(module, name, stand_in)
    return stand_in


def calls_of(work: Work, monkeypatch: pytest.MonkeyPatch) -> int:
    with monkeypatch.context() as patch:
        counter = disk_calls(patch, lambda count, name: None)
        work()
    return counter.count


def with_failure(work: Work, call: int, number: int, sticky: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the work while a disk call (or it and all later ones) fails; only a StorageError of one line may come out."""

    def hook(count: int, name: str) -> None:
        if count == call or (sticky and count > call):
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        disk_calls(patch, hook)
        message = None
        try:
            work()
        except StorageError as error:
            message = str(error)
    assert message is None or ("\n" not in message and os.strerror(number) in message)


@pytest.mark.parametrize("what", list(ERRORS))
@pytest.mark.parametrize("sticky", [True, False])
def test_a_save_that_fails_anywhere_keeps_the_older_generations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, sticky: bool
) -> None:
    def saving(folder: Path, *steps: int) -> Work:
        folder.mkdir(exist_ok=True)
        store = Checkpoints(folder, RUN, background=False)
        return lambda: [store.save(step, {"x": torch.full((50,), step)}, {}) for step in steps]

    saving(tmp_path / "count", 1, 2)()
    total = calls_of(saving(tmp_path / "count", 3), monkeypatch)
    assert total >= 15
    for call in range(1, total + 1):
        folder = tmp_path / str(call)
        saving(folder, 1, 2)()
        with_failure(saving(folder, 3), call, ERRORS[what], sticky, monkeypatch)
        loaded = Checkpoints(folder, RUN).load()
        assert loaded is not None
        assert (loaded.step in (2, 3), loaded.skipped) == (True, ())
        assert loaded.tensors["x"].eq(loaded.step).all()
        saving(folder, 4)()
        assert len(list((folder / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("what", list(ERRORS))
@pytest.mark.parametrize("sticky", [True, False])
def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, sticky: bool
) -> None:
    path = tmp_path / "result.json"
    total = calls_of(lambda: atomic.replace(path, [b"counted"]), monkeypatch)
    for call in range(1, total + 1):
        path.write_bytes(b"old")
        with_failure(lambda: atomic.replace(path, [b"new"]), call, ERRORS[what], sticky, monkeypatch)
        assert path.read_bytes() in (b"old", b"new")
        atomic.sweep(tmp_path)
        assert os.listdir(tmp_path) == ["result.json"]


@pytest.mark.parametrize("sticky", [True, False])
def test_an_appended_line_is_taken_back_when_it_cannot_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sticky: bool
) -> None:
    run = RunDir(tmp_path)
    total = calls_of(lambda: run.append_metrics({"epoch": 0}), monkeypatch)
    for call in range(1, total + 1):
        before = run.history()
        with_failure(lambda: run.append_metrics({"epoch": 1}), call, errno.ENOSPC, sticky, monkeypatch)
        assert run.history() in (before, [*before, {"epoch": 1}])


def test_a_write_that_the_disk_cuts_short_is_continued_or_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "metrics.jsonl", os.write
    monkeypatch.setattr(atomic.os, "write", lambda descriptor, data: write(descriptor, bytes(data[:3])))
    atomic.append(path, b'{"epoch": 0}\n')
    assert path.read_bytes() == b'{"epoch": 0}\n'
    left = [3]

    def until_full(descriptor: int, data: memoryview) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "full")
        left[0] -= 1
        return write(descriptor, bytes(data[:3]))

    monkeypatch.setattr(atomic.os, "write", until_full)
    with pytest.raises(StorageError):
        atomic.append(path, b'{"epoch": 1}\n')
    assert path.read_bytes() == b'{"epoch": 0}\n'


def test_weights_that_do_not_fit_leave_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.safetensors"
    save_weights(path, {"x": torch.zeros(3)})
    old = path.read_bytes()
    with_failure(lambda: save_weights(path, {"x": torch.ones(3)}), 3, errno.ENOSPC, True, monkeypatch)
    assert path.read_bytes() == old
