"""A run belongs to one process at a time; its claim ends with that process, however it ends.

On one host a POSIX record lock on `<run>/.claim` decides. The kernel frees it when its owner dies, so a restart after
a kill starts at once; unlike flock it is not inherited by forked data workers, which may outlive their parent.
Across hosts, where a file system may not pass locks on, the owner touches the file every BEAT_SECONDS, and an owner on
another host counts as alive until its last beat is STALE_SECONDS old (by the file server's clock).
"""

import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from experiments.errors import ClaimedError, StorageError
from experiments.store import atomic
from experiments.strict_json import dump, parse

FILE = ".claim"
BEAT_SECONDS = 15.0
STALE_SECONDS = 90.0
LIMIT = 4096  # bytes of a claim file that are looked at

_held: set[str] = set()  # by this process: a record lock does not exclude its own owner
_guard = threading.Lock()


def _boot_id() -> str:
    """What tells this running kernel from every other; the host's name where the system offers nothing better."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _owner(descriptor: int) -> dict[str, Any]:
    """What the last owner wrote, {} after a clean release or where it is unreadable."""
    try:
        value = parse(os.pread(descriptor, LIMIT, 0))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _named(owner: dict[str, Any]) -> str:
    pid, host = str(owner.get("pid", "?"))[:20], str(owner.get("host", "?"))[:80]
    return f"process {pid} on {host}".replace("\n", " ")


def _seconds_since_beat(descriptor: int, run_dir: Path) -> float:
    """Age of the last beat, both ends of it by the clock of the file system."""
    probe = run_dir / f".claim.{os.getpid()}.tmp"
    atomic.replace(probe, [b""])
    now = probe.stat().st_mtime
    atomic.remove(probe)
    return now - os.fstat(descriptor).st_mtime


def _take(descriptor: int, run_dir: Path) -> None:
    """Make the open claim file ours. Raises ClaimedError."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ClaimedError(
            f"{run_dir} is being trained by {_named(_owner(descriptor))}: wait for it or stop it"
        ) from None
    owner = _owner(descriptor)
    if owner and owner.get("boot") != _boot_id():
        age = _seconds_since_beat(descriptor, run_dir)
        if age < STALE_SECONDS:
            raise ClaimedError(
                f"{run_dir} is being trained by {_named(owner)}, which last showed life {age:.0f} s ago:"
                f" wait for it, or {STALE_SECONDS:.0f} s after its death"
            )


def _beat(descriptor: int, stopped: threading.Event) -> None:
    while not stopped.wait(BEAT_SECONDS):
        with suppress(OSError):  # a beat that fails costs nothing on this host, and the next one may succeed
            os.utime(descriptor)


@contextmanager
def claim(run_dir: Path) -> Iterator[None]:
    """Own the run in `run_dir` (created if needed) while the block runs. Raises ClaimedError, StorageError."""
    key = os.path.realpath(run_dir)
    with _guard:
        if key in _held:
            raise ClaimedError(f"{run_dir} is being trained by this very process: wait for it or stop it")
        _held.add(key)
    try:
        with _open(Path(run_dir)) as descriptor:
            _take(descriptor, Path(run_dir))
            atomic.rewrite(descriptor, Path(run_dir) / FILE, _self_description())
            stopped = threading.Event()
            threading.Thread(target=_beat, args=(descriptor, stopped), name="claim", daemon=True).start()
            try:
                yield
            finally:
                stopped.set()
                with suppress(StorageError):  # then the next owner finds our name, and that we no longer hold the lock
                    atomic.rewrite(descriptor, Path(run_dir) / FILE, b"")
    finally:
        with _guard:
            _held.discard(key)


@contextmanager
def _open(run_dir: Path) -> Iterator[int]:
    """The claim file's descriptor; closing it frees the lock."""
    atomic.make_folder(run_dir)
    try:
        descriptor = os.open(run_dir / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise StorageError(f"cannot open {run_dir / FILE}: {error.strerror or error}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _self_description() -> bytes:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return dump({"pid": os.getpid(), "host": socket.gethostname(), "boot": _boot_id(), "since": since})
