"""Signals ask a run to stop: the first one sets a flag, a second one ends the process at once.

The training loop looks at the flag between two optimizer steps, saves a checkpoint there and leaves with exit code 75.
Nothing is saved inside a handler, where it could wait for a lock that the interrupted code holds.

SIGUSR2 is what SLURM sends to a job of submitit whose time is nearly over. Submitit's own handler pickles the job,
queues it again and exits; in the midst of training an error in it would count as the run's. It is called afterwards.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

from experiments.errors import InterruptedRun, StudyError

REQUEUE = signal.SIGUSR2
STOPPING = (signal.SIGTERM, signal.SIGUSR1, REQUEUE, signal.SIGINT)
# Ctrl-C under torchrun arrives twice, from the terminal and from the launcher: signals this close together are one.
GRACE_SECONDS = 1.0


class StopFlag:
    """Context manager: `.requested` turns true at the first SIGTERM, SIGUSR1, SIGUSR2 or SIGINT.

    A thread reads the signals from Python's wakeup socket, so that the second one ends the process even while the main
    thread is stuck in native code, such as a collective whose partner is gone. Outside the main thread, where Python
    allows no handlers, the flag stays false.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._since = 0.0
        self._handlers: dict[signal.Signals, Any] = {}
        self._pipe: tuple[socket.socket, socket.socket] | None = None
        self._old_wakeup = -1
        self._pid = os.getpid()

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return self.signal is not None

    def __enter__(self) -> "StopFlag":
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pid = os.getpid()
        reader, writer = self._pipe = socket.socketpair()
        writer.setblocking(False)
        self._old_wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in STOPPING:
            self._handlers[number] = signal.signal(number, self._first)
        threading.Thread(target=self._watch, args=(reader,), name="signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pipe is None:
            return
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        reader, writer = self._pipe
        self._pipe = None
        writer.close()  # ends the thread: it reads end of file
        with suppress(OSError):
            reader.shutdown(socket.SHUT_RD)

    def _first(self, number: int, frame: FrameType | None) -> None:
        self._note(number)
        before = self._handlers.get(signal.Signals(number))
        if number == REQUEUE and callable(before):
            before(number, frame)

    def _note(self, number: int) -> None:
        if self.signal is None:
            self._since = time.monotonic()
            self.signal = signal.Signals(number)

    def _watch(self, reader: socket.socket) -> None:
        """Runs in a thread: note the first signal, end the process at a later one."""
        with reader:
            while data := reader.recv(1):
                if data[0] not in STOPPING:
                    continue
                if self.signal is None:
                    self._note(data[0])
                elif data[0] != REQUEUE and time.monotonic() - self._since > GRACE_SECONDS:
                    os._exit(128 + data[0])


@contextmanager
def requeued_afterwards() -> Iterator[None]:
    """Put off SIGUSR2's handler, if there is one (submitit's), until the work inside has ended and cleaned up.

    Raises:
        StudyError: the job could not be queued again.
        SystemExit: it was.
    """
    theirs = signal.getsignal(REQUEUE)
    if not callable(theirs) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    signal.signal(REQUEUE, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(REQUEUE, theirs)
        if came:
            _requeue(theirs)


def _requeue(handler: Any) -> None:
    try:
        handler(REQUEUE, None)
    except subprocess.CalledProcessError as error:
        if error.returncode != -signal.SIGTERM:
            raise StudyError(f"the job is not queued again, the same command continues: {error}") from None
        sys.exit(InterruptedRun.exit_code)  # it is, and SLURM has begun to end this job: the asking command first
    except Exception as error:
        raise StudyError(f"the job is not queued again, the same command continues: {error}") from None


def _forget_wakeup() -> None:
    """After a fork the child shares the parent's socket: its own signals must not count as the parent's."""
    if threading.current_thread() is threading.main_thread():
        with suppress(ValueError):
            signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_wakeup)
