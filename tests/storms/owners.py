"""Two owners of one run: on hosts that share no locks, one of them stopped for longer than its lease, claims removed.

Hosts are emulated: each process has a boot id of its own, and locks that the others do not see. Whatever happens, one
owner at most seals the run, the others end with the documented code and one line, and the files are those of an
undisturbed run, byte for byte.
"""

import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from experiments.errors import ClaimedError
from experiments.store import lock, starts
from tests.storms import fleet, hooks
from tests.storms.variants import EIGHTEEN_STEPS, EVERYTHING_ON, Variant

VARIANT = Variant(
    "kernel_7", ("+step=kernel_7", *EVERYTHING_ON, *EIGHTEEN_STEPS, "batch.size=16", "batch.micro=8", "threads=1")
)
LEASE = 0.4  # seconds; 90 outside
SAID = "was taken over by another start", "is being trained by"


class Reference(NamedTuple):
    """An undisturbed run."""

    files: dict[str, bytes]
    seconds: float
    calls: int  # disk calls


def on_host(name: str, *, blind: bool = False, stop_at: int | None = None) -> Callable[[], None]:
    """Let a process be on a host of its own, with a short lease.

    Args:
        name: its boot id.
        blind: whether it sees nothing of other hosts' claims, either.
        stop_at: the disk call before which it stops itself (SIGSTOP).
    """

    def prepare() -> None:
        lock._boot_id = lambda: name
        lock.fcntl = SimpleNamespace(LOCK_EX=0, LOCK_NB=0, lockf=lambda *_: None)
        lock.STALE_SECONDS, lock.BEAT_SECONDS = LEASE, LEASE / 6
        if blind:
            lock._take = lambda *_: None
        if stop_at is not None:
            hooks.intercept(lambda count, _: os.kill(os.getpid(), signal.SIGSTOP) if count == stop_at else None)

    return prepare


def wait_until_stopped(child: fleet.Child) -> bool:
    """Whether the process stopped itself; False when it had ended before."""
    while child.poll() is None:
        if Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            return True
        time.sleep(0.002)
    return False


class Owners:
    """The processes of one trial, and what they were told to do."""

    def __init__(self, folder: Path, reference: Reference, random_: random.Random) -> None:
        self.folder, self.reference, self.random = folder, reference, random_
        self.runs_dir = folder / "runs"
        self.children: list[fleet.Child] = []
        self.seals = 1  # at most: one, and one more where the first may have sealed what the second then starts over

    def start(self, prepare: Callable[[], None], *extra: str) -> fleet.Child:
        """One more owner of the run."""
        log = self.folder / f"log{len(self.children)}"
        self.children.append(fleet.start(VARIANT.command(self.runs_dir, None, *extra), log, prepare))
        return self.children[-1]

    def pause(self, share: float = 1.0) -> None:
        """Wait for a random part of what a run takes."""
        time.sleep(self.random.uniform(0, share * self.reference.seconds))


def race(owners: Owners) -> str:
    """Two hosts start together; every second time they do not even see each other's claims."""
    blind = owners.random.random() < 0.5
    for host in ("one", "two"):
        owners.start(on_host(host, blind=blind))
        if owners.random.random() < 0.5:
            owners.pause(0.3)
    return "race of two hosts"


def stopped(owners: Owners, *extra: str) -> str:
    """The first owner stops before a random disk call, its lease runs out, another takes over, the first one wakes."""
    call = owners.random.randint(1, owners.reference.calls)
    first = owners.start(on_host("one", stop_at=call))
    if wait_until_stopped(first):
        time.sleep(2 * LEASE)
    second = owners.start(on_host("two"), *extra)
    if owners.random.random() < 0.5:
        second.wait()
    else:
        owners.pause()
    first.send(signal.SIGCONT)
    return f"stopped at disk call {call}"


def started_over(owners: Owners) -> str:
    """The same, and the other starts the run over."""
    owners.seals = 2
    return f"{stopped(owners, 'rerun=true')}, started over"


def removed(owners: Owners) -> str:
    """Somebody removes the claim of a live owner on the same host."""
    first = owners.start(lambda: None)
    owners.pause()
    for claim in owners.runs_dir.glob(f"*/{lock.FILE}"):
        claim.unlink()
    owners.start(lambda: None)
    if owners.random.random() < 0.3 and first.poll() is None:
        first.send(signal.SIGSTOP)
        owners.pause()
        first.send(signal.SIGCONT)
    return "removed claim"


KINDS = (race, stopped, removed, race, started_over)


def problem_of(owners: Owners) -> str | None:
    """What is wrong with how the owners ended and with what they left."""
    codes, texts = [child.wait() for child in owners.children], [child.text() for child in owners.children]
    sealed = [code == 0 and "is finished" not in text for code, text in zip(codes, texts, strict=True)]
    if any("Traceback" in text for text in texts) or not set(codes) <= {0, ClaimedError.exit_code}:
        return f"exit codes {codes}: {[text[-600:] for text in texts]}"
    for code, text in zip(codes, texts, strict=True):
        lines = [line for line in text.splitlines() if line.startswith("error: ")]
        if code and (len(lines) != 1 or not any(said in lines[0] for said in SAID)):
            return f"exit code {code} says {lines}"
    again = owners.start(lambda: None)
    if again.wait() or "is finished" not in again.text():
        return f"codes {codes}, the same command again: {again.code} {again.text()[-400:]}"
    run = fleet.only_run(owners.runs_dir)
    if (run / starts.FOLDER).exists():
        return f"codes {codes}: {starts.FOLDER}/ is left"
    differing = fleet.differences(fleet.outcome(owners.runs_dir), owners.reference.files)
    if differing:
        return f"codes {codes}: {', '.join(differing)} differ"
    return None if 1 <= sum(sealed) <= owners.seals else f"{sum(sealed)} owners sealed: {codes}"


def trial(index: int, seed: int, reference: Reference) -> tuple[str, str | None]:
    """One run with two owners: what was done, and what went wrong (None: nothing)."""
    random_ = random.Random(f"owners {seed} {index}")
    kind = KINDS[index % len(KINDS)]
    with tempfile.TemporaryDirectory(prefix="owners-", ignore_cleanup_errors=True) as name:
        owners = Owners(Path(name), reference, random_)
        what = kind(owners)
        problem = problem_of(owners)
    return kind.__name__, f"{what}: {problem}" if problem else None


def undisturbed() -> Reference:
    """Run it to its end, alone."""
    with tempfile.TemporaryDirectory(prefix="owners-") as name:
        runs_dir, calls = Path(name) / "runs", Path(name) / "calls"
        began = time.monotonic()
        child = fleet.start(VARIANT.command(runs_dir), Path(name) / "log", hooks.count_calls(calls))
        if child.wait() != 0:
            raise RuntimeError(f"the undisturbed run failed: {child.text()}")
        return Reference(fleet.outcome(runs_dir), time.monotonic() - began, int(calls.read_text()))


def run(count: int, seed: int = 0, jobs: int = 2) -> dict[str, Any]:
    """`count` runs with two owners each."""
    reference = undisturbed()
    results = fleet.every(partial(trial, seed=seed, reference=reference), count, max(1, jobs // 2), "owners")
    failures = [problem for _, problem in results if problem]
    kinds = Counter(kind for kind, _ in results)
    return {
        "passed": len(results) - len(failures),
        "total": len(results),
        "what": f"two owners of one run ({kinds['race']} races of emulated hosts without shared locks,"
        f" {kinds['stopped'] + kinds['started_over']} stopped for longer than their lease, {kinds['removed']} removed"
        f" claims): one seals, the other ends with code {ClaimedError.exit_code} or finds it finished; identical",
        "kinds": dict(kinds),
        "failures": fleet.listed(failures),
    }
