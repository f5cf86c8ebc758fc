"""Signals ask a run to stop: the first one sets a flag, a second one ends the process at once.

The training loop looks at the flag between two optimizer steps, saves a checkpoint there and leaves with exit code 75.
Nothing is saved inside a handler, where it could wait for a lock that the interrupted code holds. Before a run begins
there is nothing to save, and a program that is still importing libraries ends at once (`answer_from_the_start`). A run
that is stuck, in a data worker or a collective, never gets to the next step: it is ended after PATIENCE, unless it is
writing a checkpoint.

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
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

from experiments.errors import InterruptedRun, StudyError

REQUEUE = signal.SIGUSR2
STOPPING = (signal.SIGTERM, signal.SIGUSR1, REQUEUE, signal.SIGINT)
# Ctrl-C under torchrun arrives twice, from the terminal and from the launcher: signals this close together are one.
GRACE_SECONDS = 1.0
# Between a signal and the next sign of work; torchrun, SLURM and Kubernetes kill after 30 s. A run whose batches take
# long gets three times what it lately took from one sign of work to the next.
PATIENCE = 20.0
POLL_SECONDS = 0.5

_active: "StopFlag | None" = None  # of this process: signals belong to all of it
_put_off: "signal.Signals | None" = None  # a signal that came when no flag was up yet


def stop_requested() -> bool:
    """Whether a signal has asked the run of this process to stop."""
    return _active is not None and _active.requested


def working() -> None:
    """Tell that the run gets on: it is not stuck, and will look at its flag."""
    if _active is not None:
        _active.sign_of_work()


@contextmanager
def unhurried() -> Iterator[None]:
    """Let the work inside take its time after a signal: a checkpoint on its way to a slow disk."""
    flag = _active
    if flag is None:
        yield
        return
    before, flag.hurried = flag.hurried, False
    try:
        yield
    finally:
        flag.sign_of_work()
        flag.hurried = before


def answer_from_the_start() -> None:
    """Let signals end this process with the code of an interrupted run until a StopFlag takes them over.

    For the first line of a program, whose imports take seconds. Nothing is raised, which a library that is being
    imported could swallow. Signals that the parent has told this process to ignore stay ignored.
    """
    for number in STOPPING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _end_early)


def _end_early(number: int, frame: FrameType | None) -> None:
    leave(InterruptedRun.exit_code, "stopped outside of a run, where nothing is to be saved: the same command goes on")


def leave(code: int, line: str, *, speaks: bool | None = None) -> None:
    """End this process from wherever it is: no lock of the interrupted code is taken. Rank 0 speaks for all."""
    if os.environ.get("RANK", "0") == "0" if speaks is None else speaks:
        with suppress(OSError):
            os.write(2, f"error: {line}\n".encode())
    os._exit(code)


class StopFlag:
    """Context manager: `.requested` turns true at the first SIGTERM, SIGUSR1, SIGUSR2 or SIGINT.

    A thread reads the signals from Python's wakeup socket, so that the second one ends the process even while the main
    thread is stuck in native code, such as a collective whose partner is gone; so does the first one after PATIENCE.
    Outside the main thread, where Python allows no handlers, the flag stays false.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.hurried = True
        self._since = self._worked = 0.0
        self._gaps: deque[float] = deque(maxlen=16)  # seconds between the last signs of work
        self._handlers: dict[signal.Signals, Any] = {}
        self._pipe: tuple[socket.socket, socket.socket] | None = None
        self._old_wakeup = -1
        self._before: StopFlag | None = None
        self._pid = os.getpid()

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return self.signal is not None

    def sign_of_work(self) -> None:
        """Note that the main thread gets on."""
        now = time.monotonic()
        if self._worked:
            self._gaps.append(now - self._worked)
        self._worked = now

    def __enter__(self) -> "StopFlag":
        global _active, _put_off
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pid = os.getpid()
        self._before, _active = _active, self
        reader, writer = self._pipe = socket.socketpair()
        writer.setblocking(False)
        self._old_wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in STOPPING:
            self._handlers[number] = signal.signal(number, self._first)
        if _put_off is not None:
            self._note(_put_off)
            _put_off = None
            writer.send(bytes([signal.SIGCONT]))  # any byte wakes the thread, which then looks at the clock
        threading.Thread(target=self._watch, args=(reader,), name="signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _active
        if self._pipe is None:
            return
        _active = self._before
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
        if number == REQUEUE and callable(before) and before is not _end_early:
            before(number, frame)

    def _note(self, number: int) -> None:
        if self.signal is None:
            self._since = time.monotonic()
            self.signal = signal.Signals(number)

    def _watch(self, reader: socket.socket) -> None:
        """Runs in a thread: note the first signal, end the process at a later one, or when the run is stuck."""
        with reader:
            while True:
                try:
                    data = reader.recv(1)
                except TimeoutError:
                    self._end_if_stuck()
                    continue
                if not data:
                    return
                if data[0] in STOPPING:
                    self._came(data[0])
                if self.requested:
                    reader.settimeout(POLL_SECONDS)

    def _came(self, number: int) -> None:
        if self.signal is None:
            self._note(number)
        elif number != REQUEUE and time.monotonic() - self._since > GRACE_SECONDS:
            os._exit(128 + number)

    def _end_if_stuck(self) -> None:
        waited = time.monotonic() - max(self._since, self._worked)
        if self.hurried and self._pipe is not None and waited > max(PATIENCE, 3 * max([0.0, *self._gaps])):
            assert self.signal is not None
            leave(
                InterruptedRun.exit_code,
                f"stopped by {self.signal.name} where nothing had moved for {waited:.0f} s (a data worker, another"
                " rank): the same command continues from the last checkpoint",
            )


@contextmanager
def requeued_afterwards() -> Iterator[None]:
    """Put off SIGUSR2's handler, if there is one (submitit's), until the work inside has ended and cleaned up.

    Raises:
        StudyError: the job could not be queued again.
        SystemExit: it was.
    """
    theirs = signal.getsignal(REQUEUE)
    ours = theirs is _end_early
    if ours or not callable(theirs) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def put_off(number: int, frame: FrameType | None) -> None:
        global _put_off
        came.append(number)
        if _active is None:
            _put_off = signal.Signals(number)

    signal.signal(REQUEUE, put_off)
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
