"""Passing errors of a file system: tried again a few times, and then the machine's fault, not damage of the data."""

import errno
import time
from collections.abc import Callable
from typing import Any, TypeVar

from experiments.errors import StorageError

# The names that a system lacks are left out. What is missing here (no such file, no permission) stays as it is.
_NAMES = (
    *("EIO", "EMFILE", "ENFILE", "ESTALE", "ETIMEDOUT", "EAGAIN", "EINTR", "EBUSY", "EREMOTEIO", "ENOLINK"),
    *("ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "ENOTCONN", "ESHUTDOWN", "EPIPE", "EHOSTDOWN", "EHOSTUNREACH"),
    *("ENETDOWN", "ENETUNREACH", "ENETRESET"),
)
PASSING = frozenset(getattr(errno, name) for name in _NAMES if hasattr(errno, name))
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
            if not _passing(error):
                raise
        time.sleep(wait)
    try:
        return read(*arguments)
    except OSError as error:
        if not _passing(error):
            raise
        reason = error.strerror or type(error).__name__
        raise StorageError(
            f"{what} cannot be read at the moment, after {len(WAITS) + 1} attempts: {reason};"
            " the same command continues"
        ) from None


def _passing(error: OSError) -> bool:
    return error.errno in PASSING or isinstance(error, ConnectionError | TimeoutError)
