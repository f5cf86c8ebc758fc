"""SIGTERM, SIGUSR1 and SIGINT at random moments of a run on one rank and on two.

All ranks must stop after the same step, with a checkpoint of it, exit with the documented code within 30 s, and finish
as the undisturbed run when the same command is given again. On two ranks the signal reaches one of them or both.
"""

import random
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from experiments.errors import InterruptedRun
from tests.storms import fleet
from tests.storms.faults import loadable_step
from tests.storms.variants import EVERYTHING_ON, Variant

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
LONGEST_EXIT = 30.0  # seconds
SIZE = ("recipe.epochs=5", "batch.size=8", "batch.micro=4")
VARIANT = Variant("kernel_7", ("+step=kernel_7", *EVERYTHING_ON, *SIZE))


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


def start_ranks(runs_dir: Path, folder: Path, ranks: int) -> list[fleet.Child]:
    """Start one run on `ranks` processes as torchrun would; they note their steps in folder/rank<i>."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        env = {name: str(value) for name, value in place.items()} if ranks > 1 else None
        prepare = note_steps(folder / f"rank{rank}")
        children.append(fleet.start(VARIANT.command(runs_dir), folder / f"log{rank}", prepare, env))
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


def trial(index: int, seed: int, references: dict[int, tuple[dict[str, bytes], float]]) -> str | None:
    """One interrupted run; what went wrong, or None."""
    random_ = random.Random(f"signals {seed} {index}")
    ranks = 1 + index % 2
    files, seconds = references[ranks]
    with tempfile.TemporaryDirectory(prefix="signals-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        what, problem = interrupted(folder, ranks, seconds, random_)
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
    """`count` signals, every second one to a run on two ranks."""
    references = {ranks: undisturbed(ranks) for ranks in (1, 2)}
    jobs = max(1, jobs // 2)  # half of the runs have two processes
    results = fleet.every(partial(trial, seed=seed, references=references), count, jobs, "signals")
    failures = [problem for problem in results if problem]
    return {
        "passed": len(results) - len(failures),
        "total": len(results),
        "what": f"signals at random moments, 1 and 2 ranks: one stop step, at most one step lost, exit code"
        f" {InterruptedRun.exit_code} within {LONGEST_EXIT:.0f} s, identical after resuming",
        "failures": fleet.listed(failures),
    }
