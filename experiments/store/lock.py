"""A run belongs to one process at a time; its claim ends with that process, however it ends.

On one host a POSIX record lock on `<run>/.claim` decides. The kernel frees it when its owner dies, so a restart after
a kill starts at once; unlike flock it is not inherited by forked data workers, which may outlive their parent.
Across hosts, where a file system may not pass locks on, the owner touches the file every BEAT_SECONDS, and an owner on
another host counts as alive until its last beat is STALE_SECONDS old (by the file server's clock); where that clock was
set back, until nobody has touched the file for as long while one waits.

A claim saves double work, and nothing rests on it: an owner that slept, whose claim was removed or that shares no locks
writes below a folder of its own (experiments.store.starts).
"""

import fcntl
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from experiments.errors import ClaimedError, StorageError
from experiments.store import atomic
from experiments.strict_json import dump, parse, read_object

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


def _began(pid: int) -> str | None:
    """When a process of this host began, in ticks since the boot: a process id is used again, and in each container."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


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
    """Age of the last beat, both ends of it by the clock of the file system; negative where that was set back."""
    probe = run_dir / f".claim.{os.urandom(8).hex()}.tmp"
    try:
        opened = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise StorageError(f"cannot write {probe}: {error.strerror or error}") from error
    try:
        now = os.fstat(opened).st_mtime
    finally:
        os.close(opened)
        with suppress(OSError):  # or it was swept away by another start
            os.unlink(probe)
    return now - os.fstat(descriptor).st_mtime


def _beats(descriptor: int, seconds: float) -> bool:
    """Whether the claim is touched or rewritten while one looks for so long, by a clock that nobody sets."""
    seen, until = _sign_of_life(descriptor), time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(0.5, seconds / 10))
        if _sign_of_life(descriptor) != seen:
            return True
    return False


def _sign_of_life(descriptor: int) -> tuple[int, bytes]:
    return os.fstat(descriptor).st_mtime_ns, os.pread(descriptor, LIMIT, 0)


def _take(descriptor: int, run_dir: Path) -> None:
    """Make the open claim file ours. Raises ClaimedError, StorageError."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ClaimedError(
            f"{run_dir} is being trained by {_named(_owner(descriptor))}: wait for it or stop it"
        ) from None
    owner = _owner(descriptor)
    if not owner or owner.get("boot") == _boot_id():
        return
    age = _seconds_since_beat(descriptor, run_dir)
    if age >= STALE_SECONDS or (age < 0 and not _beats(descriptor, STALE_SECONDS)):
        return
    raise ClaimedError(
        f"{run_dir} is being trained by {_named(owner)}, which last showed life {max(0.0, age):.0f} s ago:"
        f" wait for it, or {STALE_SECONDS:.0f} s after its death"
    )


def _beat(descriptor: int, token: str, stopped: threading.Event) -> None:
    """Show life until the claim is no longer ours: a beat of this owner's would be taken for its successor's."""
    while not stopped.wait(BEAT_SECONDS):
        with suppress(OSError):  # a beat that fails costs nothing on this host, and the next one may succeed
            if _owner(descriptor).get("token") != token:
                return
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
            token = os.urandom(8).hex()
            atomic.rewrite(descriptor, Path(run_dir) / FILE, _self_description(token))
            stopped = threading.Event()
            threading.Thread(target=_beat, args=(descriptor, token, stopped), name="claim", daemon=True).start()
            try:
                yield
            finally:
                stopped.set()
                with suppress(StorageError, OSError):  # then the next owner finds our name, and that the lock is free
                    if _owner(descriptor).get("token") == token:
                        atomic.rewrite(descriptor, Path(run_dir) / FILE, b"")
    finally:
        with _guard:
            _held.discard(key)


@contextmanager
def _open(run_dir: Path) -> Iterator[int]:
    """The claim file's descriptor; closing it frees the lock."""
    atomic.make_folder(run_dir)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(run_dir / FILE, flags, 0o644)
    except OSError as error:
        raise StorageError(f"cannot open {run_dir / FILE}: {error.strerror or error}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StorageError(f"{run_dir / FILE} is not a file: remove it")
        yield descriptor
    finally:
        os.close(descriptor)


def _self_description(token: str) -> bytes:
    since, pid = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), os.getpid()
    owner = {"pid": pid, "host": socket.gethostname(), "boot": _boot_id(), "since": since, "token": token}
    return dump({**owner, "began": _began(pid)})


def is_claimed(run_dir: Path) -> bool:
    """Whether a live process seems to own the run. Only looks: taking the lock to find out would disturb its owner."""
    if os.path.realpath(run_dir) in _held:
        return True  # opening and closing the file would free our own lock
    path = run_dir / FILE
    try:
        owner = read_object(path, LIMIT)
        fresh = time.time() - path.stat().st_mtime < STALE_SECONDS
        pid, began = int(owner["pid"]), owner.get("began")
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return False
    if owner.get("boot") != _boot_id():
        return fresh
    if began is not None and began == _began(pid):
        return True
    return fresh and (owner.get("host") != socket.gethostname() or (began is None and _lives(pid)))


def _lives(pid: int) -> bool:
    """Whether a process has this id, where the system does not tell when it began."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # it belongs to another user
    except (OSError, OverflowError):
        return False
    return True
