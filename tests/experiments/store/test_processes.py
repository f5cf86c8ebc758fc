"""Claims and signals, with real processes: who owns a run, and how it is asked to stop."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from experiments.errors import ClaimedError, StorageError
from experiments.runtime.signals import GRACE_SECONDS, StopFlag
from experiments.store import lock as claims
from experiments.store.lock import FILE, STALE_SECONDS, claim

OWNER = """
import os, sys, time
from pathlib import Path
from experiments.store.lock import claim
with claim(Path(sys.argv[1])):
    if sys.argv[2:] == ["fork"]:
        child = os.fork()
        if child == 0:
            time.sleep(60)
        print(child, flush=True)
    print("owned", flush=True)
    time.sleep(60)
"""
STOPPABLE = """
import sys, time
from experiments.runtime.signals import StopFlag
with StopFlag() as flag:
    print("ready", flush=True)
    while not flag.requested:
        time.sleep(0.01)
    print(flag.signal.name, flush=True)
    if sys.argv[1] == "sleep":
        time.sleep(30)
    if sys.argv[1] == "native":  # a C call that gives up the GIL and never looks at Python's signals
        import ctypes
        pause = ctypes.CDLL(None).sleep
        while True:
            pause(30)
"""


@contextmanager
def process(code: str, *arguments: str, root: Path) -> Iterator[subprocess.Popen[str]]:
    """A Python process in the source tree that is gone when the block ends."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=root, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def line_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_a_claimed_run_is_refused_and_its_owner_named(tmp_path: Path, repo_root: Path) -> None:
    with process(OWNER, str(tmp_path), root=repo_root) as owner:
        assert line_of(owner) == "owned"
        with pytest.raises(ClaimedError, match=f"trained by process {owner.pid} on "), claim(tmp_path):
            pass


def test_a_killed_owner_leaves_the_run_free_at_once(tmp_path: Path, repo_root: Path) -> None:
    with process(OWNER, str(tmp_path), root=repo_root) as owner:
        line_of(owner)
        owner.kill()
        owner.wait()
        begun = time.monotonic()
        with claim(tmp_path):
            assert time.monotonic() - begun < 1


def test_a_worker_that_outlives_its_killed_parent_does_not_hold_the_claim(tmp_path: Path, repo_root: Path) -> None:
    with process(OWNER, str(tmp_path), "fork", root=repo_root) as owner:
        worker = int(line_of(owner))
        try:
            line_of(owner)
            owner.kill()
            os.waitpid(owner.pid, 0)
            os.kill(worker, 0)  # still alive
            with claim(tmp_path):
                pass
        finally:
            os.kill(worker, signal.SIGKILL)


def test_one_process_cannot_claim_a_run_twice_but_again(tmp_path: Path) -> None:
    with claim(tmp_path), pytest.raises(ClaimedError, match="this very process"), claim(tmp_path / "."):
        pass
    with claim(tmp_path):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
    assert (tmp_path / FILE).read_text() == ""


def test_an_owner_on_another_host_counts_as_alive_until_its_heart_stops(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text(json.dumps({"pid": 7, "host": "elsewhere", "boot": "another-kernel"}))
    with pytest.raises(ClaimedError, match="process 7 on elsewhere, which last showed life"), claim(tmp_path):
        pass
    stale = time.time() - STALE_SECONDS - 5
    os.utime(path, (stale, stale))
    with claim(tmp_path):
        pass


def claimed_elsewhere(path: Path, age: float) -> Path:
    """A claim of an owner on another host that last showed life `age` seconds ago, by the clock of now."""
    claim_file = path / FILE
    claim_file.write_text(json.dumps({"pid": 7, "host": "elsewhere", "boot": "another-kernel", "token": "t"}))
    os.utime(claim_file, (time.time() - age,) * 2)
    return claim_file


def test_a_clock_that_was_set_back_does_not_keep_a_dead_owner_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last beat lies an hour ahead: what counts is whether it beats while one looks."""
    monkeypatch.setattr(claims, "STALE_SECONDS", 0.2)
    claimed_elsewhere(tmp_path, age=-3600)
    with claim(tmp_path):
        pass


def test_a_clock_that_was_set_back_does_not_bury_a_live_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "STALE_SECONDS", 5.0)
    path = claimed_elsewhere(tmp_path, age=-3600)
    beats = threading.Timer(0.3, lambda: os.utime(path, (time.time() + 3700,) * 2))
    beats.start()
    with pytest.raises(ClaimedError, match="process 7 on elsewhere"), claim(tmp_path):
        pass
    beats.join()


def test_a_late_owner_neither_empties_nor_prolongs_its_successors_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.02)
    with claim(tmp_path):
        path = claimed_elsewhere(tmp_path, age=50)  # by another host, while this one slept
        written, beat = path.read_bytes(), path.stat().st_mtime_ns
        time.sleep(0.2)
        assert path.stat().st_mtime_ns == beat
    assert path.read_bytes() == written


def test_a_claim_is_on_disk_before_anything_else_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = [], os.fsync
    monkeypatch.setattr(claims.atomic.os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino) or fsync(fd))
    with claim(tmp_path):
        assert (tmp_path / FILE).stat().st_ino in synced


def test_what_is_no_file_in_the_place_of_the_claim_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(StorageError, match="is not a file"), claim(tmp_path):
        pass


def test_whether_a_run_is_under_way_is_seen_from_outside(tmp_path: Path, repo_root: Path) -> None:
    assert not claims.is_claimed(tmp_path)
    with process(OWNER, str(tmp_path), root=repo_root) as owner:
        line_of(owner)
        os.utime(tmp_path / FILE, (0, 0))  # this kernel knows better than the clock
        assert claims.is_claimed(tmp_path)
        owner.kill()
        owner.wait()
    os.utime(tmp_path / FILE)
    assert not claims.is_claimed(tmp_path)
    with claim(tmp_path):
        assert claims.is_claimed(tmp_path)


@pytest.mark.parametrize(
    "changed, alive",
    [
        ({}, True),
        ({"began": "1"}, False),  # the id of a process that is no more belongs to another one now
        ({"began": "1", "host": "container"}, True),  # equal ids in two containers of one kernel: its beat counts
        ({"boot": "another-kernel"}, True),
    ],
)
def test_a_process_id_alone_tells_nothing(tmp_path: Path, changed: dict[str, str], alive: bool) -> None:
    with claim(tmp_path):
        owner = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(owner | changed))
    assert {"pid", "boot", "began", "token"} <= owner.keys()
    assert claims.is_claimed(tmp_path) == alive
    os.utime(tmp_path / FILE, (0, 0))
    assert claims.is_claimed(tmp_path) == (not changed)


def test_the_owner_keeps_showing_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.02)
    with claim(tmp_path):
        os.utime(tmp_path / FILE, (0, 0))
        deadline = time.monotonic() + 5
        while (tmp_path / FILE).stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"[]", b'{"pid": "x\\ny", "host": 3}', b"\0" * 9000])
def test_what_a_dead_owner_left_on_this_host_does_not_matter(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    stale = time.time() - STALE_SECONDS - 5
    os.utime(tmp_path / FILE, (stale, stale))
    with claim(tmp_path):
        pass


def test_a_link_in_the_place_of_the_claim_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / FILE).symlink_to("victim")
    with pytest.raises(StorageError, match="cannot open"), claim(tmp_path):
        pass
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_the_first_signal_sets_the_flag(number: signal.Signals, repo_root: Path) -> None:
    with process(STOPPABLE, "end", root=repo_root) as child:
        assert line_of(child) == "ready"
        child.send_signal(number)
        assert line_of(child) == number.name
        assert child.wait(10) == 0


@pytest.mark.parametrize("stuck", ["sleep", "native"])
def test_a_second_signal_ends_the_process_even_inside_native_code(stuck: str, repo_root: Path) -> None:
    with process(STOPPABLE, stuck, root=repo_root) as child:
        line_of(child)
        child.send_signal(signal.SIGTERM)
        line_of(child)
        child.send_signal(signal.SIGTERM)  # a launcher's echo of the first one
        time.sleep(GRACE_SECONDS + 0.3)
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        assert child.wait(5) == 128 + signal.SIGINT


def test_the_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    with StopFlag() as flag:
        assert not flag.requested
        os.kill(os.getpid(), signal.SIGUSR1)
        deadline = time.monotonic() + 5
        while not flag.requested and time.monotonic() < deadline:
            time.sleep(0.01)
        assert flag.signal is signal.SIGUSR1
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_forked_childs_signal_is_not_the_parents() -> None:
    with StopFlag() as flag:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.1)
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(0.2)
        assert not flag.requested
