"""Errors that a user can act on: one line, no traceback, a documented exit code."""

import errno
import re


class UserError(Exception):
    """Something the user asked for is impossible; the message is one line that names the key and what is allowed."""

    exit_code = 2


class DesignError(UserError, ValueError):
    """A design, a step or a set of changes that does not exist or does not fit together."""


class StorageError(UserError):
    """A file or folder cannot be written or read: no space, no permission, an I/O error, a damaged record."""

    exit_code = 5


class ResourceError(UserError):
    """Memory or /dev/shm ran out, or a data worker was killed or hangs."""

    exit_code = 10


# In how many words libraries say that memory ran out: torch's allocators on CPU and GPU, C++, Linux.
MEMORY = re.compile(
    "out of memory|not enough memory|can(?:'t|not) allocate memory|ALLOC_FAILED|bad_alloc|unable to allocate", re.I
)
# What the system says of a disk, a name or a limit. A file that is not there is none of them: the program expected it.
_STORAGE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.EBUSY, errno.EMFILE, errno.ENFILE),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.EXDEV),
}


def of_machine(error: BaseException) -> UserError | None:
    """The error of ours that says in one line what the machine refused: memory, or a file; None for anything else."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError | OSError) and MEMORY.search(str(error))):
        return ResourceError(f"memory ran out ({_said(error)})")
    if not isinstance(error, OSError) or error.errno not in _STORAGE:
        return None
    where = f"{error.filename}: " if error.filename is not None else ""
    return StorageError(f"{where}{error.strerror}")


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _said(error: BaseException) -> str:
    """The line of a message that tells of memory, else its first; the error's name where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if MEMORY.search(line)), lines[0])
