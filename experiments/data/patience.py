"""Passing errors of a file system: tried again a few times, and then the machine's fault, not damage of the data."""

import errno
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from experiments.errors import DataError, StorageError
from roadmap.escape import visible

# The names that a system lacks are left out. What is missing here (no such file, no permission) stays as it is.
_NAMES = (
    *("EIO", "EMFILE", "ENFILE", "ESTALE", "ETIMEDOUT", "EAGAIN", "EINTR", "EBUSY", "EREMOTEIO", "ENOLINK"),
    *("ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "ENOTCONN", "ESHUTDOWN", "EPIPE", "EHOSTDOWN", "EHOSTUNREACH"),
    *("ENETDOWN", "ENETUNREACH", "ENETRESET"),
)
PASSING = frozenset(getattr(errno, name) for name in _NAMES if hasattr(errno, name))
SHOWN = 200  # characters of the beginning and of the end of a long name
WAITS = (0.1, 0.5, 2.0)  # seconds before the second and later attempts

Result = TypeVar("Result")


def patiently(what: object, read: Callable[..., Result], *arguments: Any) -> Result:
    """What `read` returns; `what` names what it reads.

    Raises:
        StorageError: a passing error came back at each attempt.
        Exception: whatever else `read` raises, at once.
    """
    for wait in WAITS:
        try:
            return read(*arguments)
        except OSError as error:
            if not passing(error):
                raise
        time.sleep(wait)
    try:
        return read(*arguments)
    except OSError as error:
        if not passing(error):
            raise
        reason = error.strerror or type(error).__name__
        raise StorageError(
            f"{one_line(str(what))} cannot be read at the moment, after {len(WAITS) + 1} attempts: {reason};"
            " the same command continues"
        ) from None


def read_or_refuse(what: object, read: Callable[..., Result], *arguments: Any) -> Result:
    """The same for a whole data set, of which nothing can stand in for what the system refuses.

    Raises:
        StorageError: a passing error came back at each attempt.
        DataError: any other refusal of the system, which the message names.
    """
    try:
        return patiently(what, read, *arguments)
    except OSError as error:
        place = "" if error.filename is None else f"{one_line(os.fsdecode(error.filename))}: "
        raise DataError(f"{what} cannot be read: {place}{error.strerror or error}") from None


def passing(error: Exception) -> bool:
    """Whether the machine is to blame and not the file."""
    return isinstance(error, ConnectionError | TimeoutError) or (isinstance(error, OSError) and error.errno in PASSING)


def one_line(name: str) -> str:
    """A file's name as a message shows it: what can be seen of it, and no page."""
    shown = visible(name)
    return shown if len(shown) <= 2 * SHOWN else f"{shown[:SHOWN]} ... {shown[-SHOWN:]}"
