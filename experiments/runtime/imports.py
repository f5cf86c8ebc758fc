"""Python's garbage collector, kept from looking through hundreds of thousands of objects that stay to the end."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_kept() -> Iterator[None]:
    """Import large libraries without one look for garbage, then or later.

    Each look goes through all that was imported so far and finds nothing: a fifth of the time that importing torch
    takes. For the first imports of a process only: what is garbage by then stays, too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
