"""The one place that writes files below a run directory: each is there whole or not at all.

A file is written under a temporary name, synced, renamed and its folder synced, so that a reader, a kill or a power cut
sees the old content or the new, never a mixture. Every refusal of the operating system becomes a StorageError of one
line. No other module of this package opens a run's files for writing: a test that makes the n-th call here fail
therefore reaches every write call of a run.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from experiments.errors import StorageError

CHUNK = 1 << 20  # bytes hashed and written at a time: they stay in the processor's cache between the two
ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space or raise the quota",
    errno.EROFS: "make the folder writable or choose another runs_dir",
    errno.EACCES: "make the folder writable or choose another runs_dir",
    errno.EPERM: "make the folder writable or choose another runs_dir",
}
# Some network file systems cannot sync a folder; their renames are ordered by the server.
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # e.g. exFAT, SMB, some FUSE


class NoLinksError(Exception):
    """The file system has no hard links."""


class Written(NamedTuple):
    """What a file holds: its size in bytes and the SHA-256 of its content (hex)."""

    size: int
    sha256: str


@contextmanager
def _reported(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError that names the file, the reason and what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        advice = ADVICE.get(error.errno or 0, "check the disk")
        message = (
            f"cannot {action} {path}: {reason}; what was saved before is intact: {advice}, then run the same command"
        )
        raise StorageError(message) from error


def _write_all(descriptor: int, piece: bytes | memoryview) -> None:
    view = memoryview(piece)
    while view:
        done = os.write(descriptor, view)
        if done <= 0:
            raise OSError(errno.EIO, "wrote nothing")
        view = view[done:]


def _chunks(pieces: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    """The same bytes in parts of about CHUNK: small pieces are put together, large ones are cut without a copy."""
    small = bytearray()
    for piece in pieces:
        view = memoryview(piece).cast("B")
        if len(small) + len(view) <= CHUNK:
            small += view
            continue
        yield memoryview(bytes(small))
        small.clear()
        for start in range(0, len(view), CHUNK):
            yield view[start : start + CHUNK]
    yield memoryview(bytes(small))


def _create(path: Path, pieces: Iterable[bytes | memoryview]) -> Written:
    """Write and sync a new file. Raises OSError; a file that could not be completed is removed."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        try:
            for part in _chunks(pieces):
                digest.update(part)
                _write_all(descriptor, part)
                size += len(part)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise
    return Written(size, digest.hexdigest())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def create(path: Path, pieces: Iterable[bytes | memoryview]) -> Written:
    """Write a file that does not exist yet and sync it (not its folder); returns its size and SHA-256."""
    with _reported("write", path):
        return _create(path, pieces)


def replace(path: Path, pieces: Iterable[bytes | memoryview], folder: Path | None = None) -> Written:
    """Give `path` new content in one step: temporary file, sync, rename, sync of the folder.

    `folder` is where the temporary file lies, by default beside `path`: once it is gone, nothing can be written.
    """
    temporary = (folder or path.parent) / f".{path.name}.{os.urandom(8).hex()}.tmp"
    with _reported("write", path):
        written = _create(temporary, pieces)
        try:
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(path.parent)
    return written


def link(path: Path, name: str) -> None:
    """Make `path` a symbolic link to a file beside it; a file system without links goes without."""
    if path.is_symlink() and os.readlink(path) == name:
        return
    remove(path)
    with suppress(OSError):
        os.symlink(name, path)
        _sync_folder(path.parent)


def append(path: Path, data: bytes) -> None:
    """Append to a file and sync it. A write that the disk cuts short is taken back."""
    with _reported("append to", path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder and its parents; an existing one is fine."""
    with _reported("create", path):
        os.makedirs(path, exist_ok=True)
        _sync_folder(path.parent)


def make_inside(path: Path) -> None:
    """Create a folder whose parent must exist; an existing one is fine."""
    with _reported("create", path):
        with suppress(FileExistsError):
            os.mkdir(path)
        _sync_folder(path.parent)


def publish_folder(temporary: Path, final: Path) -> None:
    """Sync a finished folder, rename it and sync its parent; `final` must not exist."""
    with _reported("write", final):
        _sync_folder(temporary)
        os.rename(temporary, final)
        _sync_folder(final.parent)


def publish_once(source: Path, target: Path) -> bool:
    """Give a finished file a second name that nobody has taken; False where it is taken. Raises NoLinksError."""
    with _reported("write", target):
        _sync_folder(source.parent)
        try:
            os.link(source, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in NO_LINKS:
                raise NoLinksError(str(error)) from None
            raise
        _sync_folder(target.parent)
    return True


def publish_folder_once(source: Path, target: Path) -> bool:
    """Rename a folder that is not empty; False where another one that is not empty has the name."""
    with _reported("write", target):
        _sync_folder(source)
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        _sync_folder(target.parent)
    return True


def copy(source: Path, target: Path) -> None:
    """Give a file that never changes a name in another folder: a hard link, or a copy where there are none.

    A source that is no longer there is fine.
    """
    with _reported("write", target), suppress(FileNotFoundError):
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with open(source, "rb") as file:
                _create(target, iter(lambda: file.read(CHUNK), b""))


def take(source: Path, target: Path) -> bool:
    """Rename a file or folder; False where there is none (another process was quicker), or no place for it."""
    with _reported("move", source):
        try:
            os.rename(source, target)
        except FileNotFoundError:
            return False
    return True


def remove_empty(path: Path) -> None:
    """Remove a folder unless something lies in it."""
    with suppress(OSError):
        os.rmdir(path)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder; a target that exists is removed first."""
    remove(target)
    with _reported("move", source):
        os.rename(source, target)


def remove(path: Path) -> None:
    """Remove a file or a whole folder; one that is not there is fine. A symbolic link is removed, not followed."""
    with _reported("remove", path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):  # unlink of a folder: EISDIR on Linux, EPERM elsewhere
            if not path.is_dir() or path.is_symlink():
                raise
            _remove_folder(path)


def _remove_folder(path: Path) -> None:
    """Remove a folder that another process may be removing, too."""
    while os.path.lexists(path):
        with suppress(FileNotFoundError):
            shutil.rmtree(path)


def discard(path: Path) -> None:
    """Remove a folder so that a kill in between never leaves half of it under its own name."""
    going = path.with_name(".removing")
    remove(going)
    with _reported("remove", path):
        os.rename(path, going)
    remove(going)


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in `folder`. The caller holds the run's claim."""
    for left in folder.glob(".*.tmp"):
        remove(left)


def rewrite(descriptor: int, path: Path, data: bytes) -> None:
    """Give an open, locked file new content in place. Not atomic: only for a file that may be read half written."""
    with _reported("write", path):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        _write_all(descriptor, data)
        os.fsync(descriptor)
