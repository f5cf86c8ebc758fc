"""What happens when nobody reads stdout any more, as in `python -m roadmap | head -3`.

Commands that only print end without a word. A training goes on, and its lines are dropped (`without_reader`).
"""

import os
import select
import sys
from collections.abc import Callable
from typing import TypeVar

Code = TypeVar("Code")


def quietly(main: Callable[[], Code]) -> Code | int:
    """What `main` returns, or 0 once the reader of stdout has gone; a pipe that breaks elsewhere is an error still.

    Where stdout was closed from the start (`>&-`) the output goes nowhere, and not into a file that is opened later and
    gets stdout's descriptor.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it stays open to the end
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()  # what is left in the buffer meets the closed pipe here and not when Python ends
    except BrokenPipeError:
        if not _has_no_reader(sys.stdout.fileno()):
            raise
        without_reader()  # Python flushes once more at its end
        return 0


def without_reader() -> None:
    """Send to nowhere what goes to stdout and stderr where its reader has gone."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and _has_no_reader(stream.fileno()):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _has_no_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
