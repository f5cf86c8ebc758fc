"""What a storm puts into a run's process before the run begins. The program itself has no such switches."""

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.store import atomic, lock
from experiments.store.checkpoint import Checkpoints

# Every call by which experiments.store.atomic and experiments.store.lock change a disk.
WRITE_CALLS = (
    *("open", "write", "fsync", "replace", "rename", "unlink", "makedirs", "mkdir", "rmdir", "link", "ftruncate"),
    *("rmtree", "utime"),
)


class CountedOs:
    """Stands in for `os` (and shutil) in the modules that write; calls `hook(number, name)` before each call."""

    def __init__(self, hook: Callable[[int, str], None]) -> None:
        self.count = 0
        self.hook = hook

    def __getattr__(self, name: str) -> Any:
        original = getattr(shutil if name == "rmtree" else os, name)
        if name not in WRITE_CALLS:
            return original

        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            self.hook(self.count, name)
            return original(*arguments, **options)

        return counted


def intercept(hook: Callable[[int, str], None]) -> CountedOs:
    """Route every disk call of a run through a counter."""
    stand_in = CountedOs(hook)
    for module in (atomic, lock):
        module.os = stand_in
    atomic.shutil = stand_in
    return stand_in


def fail_at(call: int, number: int, sticky: bool) -> Callable[[], None]:
    """From its `call`-th disk call on (or at that one only), the run gets the error `number`."""

    def hook(count: int, name: str) -> None:
        if count == call or (sticky and count > call):
            raise OSError(number, os.strerror(number), f"injected at {name}")

    return lambda: _keep(intercept(hook))


def count_calls(file: Path) -> Callable[[], None]:
    """Write the number of disk calls so far to `file` after each of them."""
    return lambda: _keep(intercept(lambda count, name: _note(file, count)))


def inside_saves(hook: Callable[[int], None]) -> Callable[[], None]:
    """Call `hook(number)` before each disk call that belongs to the writing of a checkpoint."""
    inside = [False, 0]

    def counted(count: int, name: str) -> None:
        if inside[0]:
            inside[1] += 1
            hook(inside[1])

    def prepare() -> None:
        write = Checkpoints._write

        def flagged(self: Checkpoints, *arguments: Any) -> None:
            inside[0] = True
            try:
                write(self, *arguments)
            finally:
                inside[0] = False

        Checkpoints._write = flagged
        _keep(intercept(counted))

    return prepare


def kill_inside_save(call: int) -> Callable[[], None]:
    """kill -9 at the `call`-th disk call that belongs to the writing of a checkpoint."""

    def hook(number: int) -> None:
        if number == call:
            os.kill(os.getpid(), signal.SIGKILL)

    return inside_saves(hook)


def count_inside_saves(file: Path) -> Callable[[], None]:
    """Write the number of disk calls inside saves to `file`."""
    return inside_saves(lambda number: _note(file, number))


def snapshot_saves(target: Path) -> Callable[[], None]:
    """Copy the run directory to target/<step> after every checkpoint that is published."""

    def prepare() -> None:
        write = Checkpoints._write

        def copied(self: Checkpoints, step: int, *arguments: Any) -> None:
            write(self, step, *arguments)
            run = self.folder.parent.parent.parent  # of starts/<start>/checkpoints
            shutil.copytree(run, target / f"{step:03d}" / run.name)

        Checkpoints._write = copied

    return prepare


def _note(file: Path, count: int) -> None:
    file.write_text(str(count))


def _keep(value: Any) -> None:
    """Make a side effect usable as a statement-free callback."""


ERRORS = {"disk full": errno.ENOSPC, "I/O error": errno.EIO, "read-only": errno.EROFS}
