"""SIGTERM, SIGUSR1 and SIGINT from the import of the program to the sealed record, on one rank and on two.

A third of the trials strike at a random moment between two steps: all ranks must stop after the same step, with a
checkpoint of it. A third strike as a phase of the run begins, which is most often before the first step or at the end.
A third strike a bare `python run.py` anywhere, its imports included, once it answers signals at all. Always the exit
code is the documented one within 30 s, or the run is done, and the same command then finishes as the undisturbed run.
On two ranks the signal reaches one of them or both.
"""

import importlib
import os
import random
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.errors import InterruptedRun
from tests.storms import fleet
from tests.storms.faults import loadable_step
from tests.storms.variants import EVERYTHING_ON, Variant

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
LONGEST_EXIT = 30.0  # seconds
START_SECONDS = 4.0  # of `python run.py` until it trains
SIZE = ("recipe.epochs=5", "batch.size=8", "batch.micro=4")
VARIANT = Variant("kernel_7", ("+step=kernel_7", *EVERYTHING_ON, *SIZE))


# Where a signal strikes as a function is entered: (module, object, function).
PHASES = {
    "settings": ("experiments.config.compose", "", "settings_from"),
    "hashing the data": ("experiments.training.run", "", "_contents"),
    "claim": ("experiments.training.run", "", "claim"),
    "data": ("experiments.training.run", "", "open_data"),
    "network": ("experiments.training.job", "", "build_state"),
    "resume": ("experiments.training.run", "", "resume"),
    "announcement": ("experiments.training.run", "", "announce"),
    "first step": ("experiments.training.loop", "", "train_step"),
    "evaluation": ("experiments.training.loop", "", "validate"),
    "checkpoint": ("experiments.store.checkpoint", "Checkpoints", "_write"),
    "seal": ("experiments.training.run", "", "compose_result"),
}
ALONE = ("settings",)  # before the ranks have met, a signal to one of them is no news to the others: both get it
MAIN_ONLY = ("claim", "checkpoint", "seal")  # what rank 0 does for all


def strike_at(phase: str, number: signal.Signals, then: Callable[[], None]) -> Callable[[], None]:
    """Do `then`, and send this process a signal as it first enters a phase."""

    def prepare() -> None:
        then()
        module, owner, name = PHASES[phase]
        place: Any = importlib.import_module(module)
        place = getattr(place, owner) if owner else place
        function, left = getattr(place, name), [number]

        def struck(*arguments: Any, **options: Any) -> Any:
            if left:
                os.kill(os.getpid(), left.pop())
            return function(*arguments, **options)

        setattr(place, name, struck)

    return prepare


def note_steps(file: Path) -> Callable[[], None]:
    """Write the number of finished optimizer steps to `file` after each."""

    def prepare() -> None:
        from experiments.training import loop

        train_step = loop.train_step

        def noted(job: Any, batches: Any) -> Any:
            loss = train_step(job, batches)
            file.write_text(str(job.step + 1))
            return loss

        loop.train_step = noted

    return prepare


def start_ranks(
    runs_dir: Path,
    folder: Path,
    ranks: int,
    overrides: Sequence[str] | None = None,
    strike: Callable[[int, Callable[[], None]], Callable[[], None]] = lambda rank, prepare: prepare,
) -> list[fleet.Child]:
    """Start one run on `ranks` processes as torchrun would; they note their steps in folder/rank<i>.

    `strike` may add something to what the process of a rank does first.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        env = {name: str(value) for name, value in place.items()} if ranks > 1 else None
        prepare = strike(rank, note_steps(folder / f"rank{rank}"))
        children.append(fleet.start(overrides or VARIANT.command(runs_dir), folder / f"log{rank}", prepare, env))
    return children


def steps_of(folder: Path, ranks: int) -> list[int]:
    """Finished steps of every rank, as far as they have noted any."""
    files = [folder / f"rank{rank}" for rank in range(ranks)]
    return [int(file.read_text() or 0) if file.exists() else 0 for file in files]


def interrupted(folder: Path, ranks: int, seconds: float, random_: random.Random) -> tuple[str, str | None]:
    """Start, signal and wait: what was done, and what went wrong."""
    children = start_ranks(folder / "runs", folder, ranks)
    deadline = time.monotonic() + 120
    while not steps_of(folder, 1)[0] and children[0].poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random_.uniform(0, 0.8 * seconds))
    before, number = max(steps_of(folder, ranks)), random_.choice(SIGNALS)
    receivers = random_.sample(range(ranks), random_.randint(1, ranks))
    for rank in receivers:
        children[rank].send(number)
    sent = time.monotonic()
    what = f"{number.name} to rank {receivers} of {ranks} after step {before}"
    codes = [child.wait(120) for child in children]
    waited = time.monotonic() - sent
    if codes == [0] * ranks:
        return what, None  # it had finished its last step
    if codes != [InterruptedRun.exit_code] * ranks:
        return what, f"exit codes {codes}: {children[0].text()[-500:]}"
    if waited > LONGEST_EXIT:
        return what, f"{waited:.1f} s until all had ended"
    steps, saved = steps_of(folder, ranks), loadable_step(folder / "runs")
    if len(set(steps)) != 1:
        return what, f"the ranks stopped after steps {steps}"
    if steps[0] - saved > 1 or saved < before - 1:
        return what, f"steps {steps} were trained, the checkpoint holds {saved}"
    return what, None


def struck_in_phase(folder: Path, ranks: int, phase: str, random_: random.Random) -> tuple[str, str | None]:
    """Signal a run as it enters a phase: what was done, and what went wrong."""
    number, receivers = random_.choice(SIGNALS), random_.sample(range(ranks), random_.randint(1, ranks))
    if phase in ALONE:
        receivers = list(range(ranks))
    elif phase in MAIN_ONLY:
        receivers = [0]

    def strike(rank: int, prepare: Callable[[], None]) -> Callable[[], None]:
        return strike_at(phase, number, prepare) if rank in receivers else prepare

    began = time.monotonic()
    children = start_ranks(folder / "runs", folder, ranks, None, strike)
    return f"{number.name} to rank {receivers} of {ranks} at {phase}", _ended_well(children, folder, began)


def struck_anywhere(folder: Path, seconds: float, random_: random.Random) -> tuple[str, str | None]:
    """Signal `python run.py` at any moment after it has begun to answer: what was done, and what went wrong."""
    number = random_.choice(SIGNALS)
    child = fleet.spawn(VARIANT.command(folder / "runs"), folder / "log")
    while child.poll() is None and not _answers(child.pid):
        time.sleep(0.001)
    pause = random_.uniform(0, START_SECONDS + seconds)
    deadline = time.monotonic() + pause
    while time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.001)
    child.send(number)
    what = f"{number.name} to python run.py after {pause:.2f} s"
    return what, _ended_well([child], folder, time.monotonic())


def _answers(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1)


def _ended_well(children: Sequence[fleet.Child], folder: Path, began: float) -> str | None:
    """What is wrong with how struck processes ended: code 75 in time, or the run is done."""
    codes = [child.wait(120) for child in children]
    waited, text = time.monotonic() - began, children[0].text()
    done = any((folder / "runs").glob("*/result.json"))
    if "Traceback" in text:
        return f"a traceback: {text[-500:]}"
    if not done and codes != [InterruptedRun.exit_code] * len(codes):
        return f"exit codes {codes}: {text[-500:]}"
    return f"{waited:.1f} s until all had ended" if waited > LONGEST_EXIT + START_SECONDS else None


def trial(index: int, seed: int, references: dict[int, tuple[dict[str, bytes], float]]) -> str | None:
    """One interrupted run; what went wrong, or None."""
    random_ = random.Random(f"signals {seed} {index}")
    kind, ranks = index % 3, 1 + index // 3 % 2
    ranks = 1 if kind == 2 else ranks
    files, seconds = references[ranks]
    with tempfile.TemporaryDirectory(prefix="signals-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if kind == 0:
            what, problem = interrupted(folder, ranks, seconds, random_)
        elif kind == 1:
            what, problem = struck_in_phase(folder, ranks, list(PHASES)[index // 3 % len(PHASES)], random_)
        else:
            what, problem = struck_anywhere(folder, seconds, random_)
        if problem:
            return f"{what}: {problem}"
        again = start_ranks(folder / "runs", folder, ranks)
        if any(child.wait() for child in again):
            return f"{what}: the same command again fails: {again[0].text()[-500:]}"
        differing = fleet.differences(fleet.outcome(folder / "runs"), files)
        return f"{what}: {', '.join(differing)} differ" if differing else None


def undisturbed(ranks: int) -> tuple[dict[str, bytes], float]:
    """The files of a whole run, and the seconds between its first step and its end."""
    with tempfile.TemporaryDirectory(prefix="signals-") as name:
        folder = Path(name)
        children = start_ranks(folder / "runs", folder, ranks)
        while not steps_of(folder, 1)[0] and children[0].poll() is None:
            time.sleep(0.005)
        began = time.monotonic()
        if any(child.wait() for child in children):
            raise RuntimeError(f"the undisturbed run on {ranks} ranks failed: {children[0].text()}")
        return fleet.outcome(folder / "runs"), time.monotonic() - began


def run(count: int, seed: int = 0, jobs: int = 2) -> dict[str, Any]:
    """`count` signals: between steps, at phases and anywhere, a third to runs on two ranks."""
    references = {ranks: undisturbed(ranks) for ranks in (1, 2)}
    jobs = max(1, jobs // 2)  # half of the runs have two processes
    results = fleet.every(partial(trial, seed=seed, references=references), count, jobs, "signals")
    return fleet.figures(
        results,
        f"signals from import to seal ({len(PHASES)} phases, and random moments), 1 and 2 ranks: one stop step,"
        f" at most one step lost, exit code {InterruptedRun.exit_code} within {LONGEST_EXIT:.0f} s or done, identical"
        " after resuming",
    )
