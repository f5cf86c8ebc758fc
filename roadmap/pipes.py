"""Commands end without a word when nobody reads what they print any more: `python -m roadmap | head -3`."""

import os
import select
import sys
from collections.abc import Callable
from typing import TypeVar

Code = TypeVar("Code")


def quietly(main: Callable[[], Code]) -> Code | int:
    """What `main` returns, or 0 once the reader of stdout has gone; a pipe that breaks elsewhere is an error still."""
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()  # what is left in the buffer meets the closed pipe here and not when Python ends
    except BrokenPipeError:
        if not _has_no_reader(sys.stdout.fileno()):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 0


def _has_no_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
