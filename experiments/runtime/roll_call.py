"""Which ranks of a run are alive, and what became of those that are not.

A collective whose partner was stopped, or whose host has vanished, waits for its time-out, and one whose partner has
died fails with the address of a socket. So every rank shows life in the store at which the ranks have met, once a
second, and says there how it leaves. A thread looks at the others and ends the process where one stays silent: the run
itself may be stuck in native code.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch.distributed as dist

from experiments import errors
from experiments.errors import OF_MACHINE, LostRankError
from experiments.runtime.signals import leave

SILENT_SECONDS = 60.0  # without a sign of life after which a rank is lost
BEAT_SECONDS = 1.0
DEAD_BEATS = 5  # likewise once a collective has failed: its partner has most likely died
LEFT = "left "
KEEPER = 0  # the rank that keeps the store, unless the launcher does
CONTINUES = "the same command continues from the last checkpoint"


class RollCall:
    """The ranks of a run as the store knows them, seen by one of them."""

    def __init__(
        self, rank: int, world_size: int, connect: Callable[[], Any], ended: Callable[[Exception], None]
    ) -> None:
        """Show life from now on.

        Args:
            rank: of this process.
            world_size: how many there are.
            connect: opens a connection to the store; a stuck one must not hold up the others.
            ended: called from a thread, before the process ends because another rank is silent.
        """
        self._rank, self._world_size, self._ended = rank, world_size, ended
        self._interval = max(BEAT_SECONDS, world_size / 64)  # less often where many ask one store
        self._others = [other for other in range(world_size) if other != rank]
        self._farewells = connect()
        self._connect = connect
        self._guard, self._closed = threading.Lock(), threading.Event()
        now = time.monotonic()
        self._seen = dict.fromkeys(self._others, ("", now))  # the last sign of life and when it was new
        self._round = now  # when the store last answered
        for work in (self._show_life, self._watch):
            threading.Thread(target=work, name="roll call", daemon=True).start()

    def _show_life(self) -> None:
        """Runs in a thread, which a store that is stopped or gone may hold for ever."""
        count, keys = 0, [_key(other) for other in self._others]
        with suppress(RuntimeError):  # the store is gone, which `_silent` notices
            store = self._connect()
            while not self._closed.is_set():
                count += 1
                with self._guard:
                    if self._closed.is_set():
                        return
                    store.set(_key(self._rank), str(count))
                values = [value.decode() for value in store.multi_get(keys)]
                self._round = now = time.monotonic()
                for other, value in zip(self._others, values, strict=True):
                    if value != self._seen[other][0]:
                        self._seen[other] = (value, now)
                self._closed.wait(self._interval)

    def _watch(self) -> None:
        """Runs in a thread: end the process where another rank is silent for too long."""
        looked = time.monotonic()
        while not self._closed.wait(self._interval):
            now = time.monotonic()
            if now - looked > 5 * self._interval:  # this process itself was stopped: the others may have shown life
                self._seen = {other: (value, now) for other, (value, _) in self._seen.items()}
                self._round = now
            looked = now
            silent = self._silent(SILENT_SECONDS)
            if silent is not None:
                how = f"has shown no life for {SILENT_SECONDS:.0f} s: it was stopped, or its host is gone"
                error = LostRankError(f"{self._named(silent)} {how}; {CONTINUES}")
                self._say_farewell(error)
                self._ended(error)
                leave(LostRankError.exit_code, str(error), speaks=self._speaks(silent))

    def _silent(self, seconds: float) -> int | None:
        """The first rank without a sign of life for so long; the keeper of the store where that does not answer."""
        now = time.monotonic()
        if now - self._round > seconds:
            return KEEPER
        for other, (value, since) in self._seen.items():
            if now - since > seconds and not value.startswith(LEFT):
                return other
        return None

    def _named(self, rank: int) -> str:
        return "the launcher" if rank == KEEPER and _kept_by_launcher() else f"rank {rank} of {self._world_size}"

    def _speaks(self, lost: int) -> bool:
        """Whether it is up to this rank to say so: one line for all."""
        return self._rank == (1 if self._named(lost) == self._named(0) else 0)

    def verdict(self) -> Exception:
        """Why a collective has failed. Takes seconds: a rank that has died is known by its silence."""
        deadline = time.monotonic() + (DEAD_BEATS + 3) * self._interval
        while time.monotonic() < deadline:
            for other, (value, _) in self._seen.items():
                if value.startswith(LEFT) and (error := self._from_farewell(other, value)):
                    return error
            silent = self._silent(DEAD_BEATS * self._interval)
            if silent is not None:
                lost = LostRankError(f"{self._named(silent)} was killed, or its host is gone: {CONTINUES}")
                if self._rank != 0 and self._speaks(silent):
                    print(f"error: {lost}", file=sys.stderr, flush=True)  # rank 0, which speaks otherwise, cannot
                return lost
            time.sleep(0.1)
        return LostRankError(f"the connection between the ranks broke, though all of them are alive: {CONTINUES}")

    def _from_farewell(self, other: int, value: str) -> Exception | None:
        """The error of this rank that follows from how another one left; None where it left in peace."""
        left = json.loads(value.removeprefix(LEFT))
        known = getattr(errors, str(left["type"]), None)
        if left["type"] is None:
            return None
        if known is LostRankError:
            return LostRankError(left["message"])
        said = f"{self._named(other)} has ended: {left['message']}"
        if known is None:
            return RuntimeError(f"{said} ({left['type']})")
        if issubclass(known, OF_MACHINE):
            return LostRankError(f"{said}: {CONTINUES}")
        error: Exception = known(said)
        return error

    def _say_farewell(self, error: BaseException | None) -> None:
        with self._guard:
            self._closed.set()
            lines = str(error).splitlines() or [""]
            left = {"type": error and type(error).__name__, "message": lines[0]}
            with suppress(RuntimeError):  # then the store is gone
                self._farewells.set(_key(self._rank), LEFT + json.dumps(left))

    def close(self, error: BaseException | None) -> None:
        """Say how this rank leaves, and look at the others no more."""
        if self._closed.is_set():
            return
        self._say_farewell(error)
        if error is not None and self._rank == KEEPER and not _kept_by_launcher():
            time.sleep(2 * self._interval)  # the store ends with this process, and the others are still to read it


def _kept_by_launcher() -> bool:
    """Whether the store lives in torchrun and not in a rank."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _key(rank: int) -> str:
    return f"roll call {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)} {rank}"


def connector(address: str) -> Callable[[], Any]:
    """What opens connections to the store behind `env://` or `tcp://HOST:PORT`."""
    place = address.removeprefix("tcp://")
    if place == address:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    host, port = place.rsplit(":", 1)
    return lambda: dist.TCPStore(host, int(port), is_master=False, wait_for_workers=False)
