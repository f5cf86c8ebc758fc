"""How a program ends: its errors in one line, and quietly when nobody reads it, as in `python -m roadmap | head -3`.

Commands that only print end without a word. A training goes on, and its lines are dropped (`without_reader`).
"""

import io
import os
import select
import sys
from collections.abc import Callable
from typing import TypeVar

from roadmap.errors import UserError, of_machine
from roadmap.escape import visible

Code = TypeVar("Code")


def quietly(main: Callable[[], Code]) -> Code | int:
    """What `main` returns, or 0 once the reader of stdout has gone; a pipe that breaks elsewhere is an error still.

    What the machine refuses (`roadmap.errors.of_machine`), a full disk behind stdout among it, is one line on stderr
    and its exit code; other errors are bugs and pass.
    """
    _prepare_streams()
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
    except Exception as error:
        failure = of_machine(error)
        if failure is None:
            raise
        _drop_what_is_left()
        return refused(failure)


def refused(error: UserError) -> int:
    """Say an error in one line on stderr; returns its exit code."""
    print(f"error: {visible(str(error))}", file=sys.stderr)
    return error.exit_code


def _prepare_streams() -> None:
    """Give output that was closed from the start (`>&-`) a place, and let every text be printed.

    It goes nowhere, and not into a file that is opened later and gets the stream's descriptor. What the terminal's
    encoding does not have is shown as a number: a file name need not be text.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it stays open to the end
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_what_is_left() -> None:
    """Drop what stdout holds and cannot write: Python would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def without_reader() -> None:
    """Send to nowhere what goes to stdout and stderr where its reader has gone."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and _has_no_reader(stream.fileno()):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _has_no_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
