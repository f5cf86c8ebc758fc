"""How long a run waits for its data workers: not for ever, and not deaf to signals.

torch's loader looks every five seconds whether its workers live, and otherwise waits for ever: for a worker that is
stopped, that hangs in a file system, or whose batch was lost on its way.
"""

import queue
import threading
import time
from typing import Any

import torch

from experiments.errors import ResourceError, StoppedWaiting
from experiments.runtime.signals import stop_requested
from roadmap.errors import first_line

POLL_SECONDS = 0.5
STOP_SECONDS = 5.0  # that a run which is asked to stop waits for a batch, in order to stop after a whole step


class Delivery:
    """What the workers of a torch iterator deliver, fetched by a thread, so that the run itself never hangs.

    A worker that is stopped in the midst of handing over a tensor would keep its receiver for ever in a system call.
    The iterator has no public way for this: its own time-out breaks an iterator that is used again, as ours are. Like
    it, this raises a RuntimeError where a worker has ended.
    """

    def __init__(self, loaded: Any, seconds: float) -> None:
        """Take over the waiting of `loaded`, an iterator with workers, which is to last `seconds` at most."""
        self._loaded, self._seconds = loaded, seconds
        self._orders: queue.Queue[None] = queue.Queue()
        self._arrived: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()
        self._abandoned = False
        loaded._get_data = self._next
        threading.Thread(target=self._fetch, name="delivery", daemon=True).start()

    def _fetch(self) -> None:
        """Runs in a thread: one item for each order."""
        while True:
            self._orders.get()
            item, error, there = None, None, False
            while not there and error is None:
                try:
                    there, item = self._loaded._try_get_data(POLL_SECONDS)
                except Exception as problem:
                    error = problem
                if self._loaded._shutdown:
                    return
            self._arrived.put((item, error))

    def _next(self) -> Any:
        began = time.monotonic()
        self._orders.put(None)
        while True:
            try:
                item, error = self._arrived.get(timeout=POLL_SECONDS)
            except queue.Empty:
                self._give_up_in_time(time.monotonic() - began)
                continue
            if isinstance(error, OSError | EOFError):  # what a worker's own work raises comes as an item
                self._abandon()
                raise ResourceError(
                    f"a DataLoader worker is gone: the connection to a data worker broke ({first_line(error)}), often"
                    " because memory ran out and the system killed it; fewer workers take less and are the same run"
                )
            if error is not None:
                raise error
            return item

    def _give_up_in_time(self, waited: float) -> None:
        """Raise StoppedWaiting where a signal has asked the run to stop, ResourceError once it has waited enough."""
        if stop_requested() and waited > STOP_SECONDS:
            self._abandon()
            raise StoppedWaiting(
                "stopped while it waited for data workers: the same command continues from the last checkpoint"
            )
        if waited > self._seconds:
            self._abandon()
            raise ResourceError(
                f"no data worker has delivered anything for {waited:.0f} s (worker_timeout={self._seconds:g}): one is"
                " stopped, or hangs in its file system; fewer workers or a longer worker_timeout are the same run"
            )

    def _abandon(self) -> None:
        """Expect nothing more from the workers; that they end is then no failure, which torch would raise anywhere."""
        self._abandoned = True
        torch._C._remove_worker_pids(id(self._loaded))
        self._loaded._worker_pids_set = False

    def end(self) -> None:
        """End the workers, also those that are stopped and answer nothing.

        The loader has no public way; otherwise they live as long as any pass, and Python waits for them when it ends.
        """
        workers = list(self._loaded._workers)
        if self._abandoned:
            for worker in workers:
                worker.kill()
        self._loaded._shutdown_workers()
        self._orders.put(None)  # wakes the thread, which ends
        for worker in workers:
            if worker.is_alive():
                worker.kill()
