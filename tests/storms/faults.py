"""Disk full, I/O error and read-only output at every disk call of a run, from its claim to its sealed record.

Each trial makes one disk call of a run fail, for good or only once. The run must end with the documented exit code and
one line, without a traceback, keep a checkpoint that verifies if it had one, and finish byte for byte as the
undisturbed run when the same command is given again.
"""

import random
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from experiments.errors import StorageError
from experiments.store import starts
from experiments.store.checkpoint import Checkpoints
from experiments.strict_json import read_object
from tests.storms import fleet, hooks
from tests.storms.variants import FAULTED


def loadable_step(runs_dir: Path) -> int:
    """The step of the newest checkpoint that verifies, in any start, 0 without one; -1 when one is damaged."""
    folder, steps = fleet.only_run(runs_dir), [0]
    for place in (folder, *starts.listed(folder)):
        for manifest in sorted(place.glob("checkpoints/step-*/manifest.json"))[:1]:
            loaded = Checkpoints(place, read_object(manifest, 1 << 26)["run_id"]).load()
            steps.append(-1 if loaded is None or loaded.skipped else loaded.step)
    return -1 if -1 in steps else max(steps)


def problem_of(child: fleet.Child, code: int, runs_dir: Path) -> str | None:
    """What is wrong with how a run ended whose disk failed."""
    text = child.text()
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    if "Traceback" in text:
        return f"a traceback: {text[-500:]}"
    if code not in (0, StorageError.exit_code):
        return f"exit code {code}: {text[-300:]}"
    if code and len(lines) != 1:
        return f"{len(lines)} lines of error: {lines}"
    if any(runs_dir.glob("*")) and loadable_step(runs_dir) < 0:
        return "a published checkpoint does not verify"
    return None


def trial(index: int, seed: int, points: int, expected: dict[str, bytes]) -> str | None:
    """One injected error; what went wrong, or None."""
    random_ = random.Random(f"faults {seed} {index}")
    what = list(hooks.ERRORS)[index % len(hooks.ERRORS)]
    call, sticky = 1 + index * 7919 % points, random_.random() < 0.7  # 7919 is prime: every call is met in turn
    place = f"{what} at disk call {call} of {points}{' and after' if sticky else ''}"
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        runs_dir = Path(name) / "runs"
        command = FAULTED.command(runs_dir)
        broken = fleet.start(command, Path(name) / "broken.log", hooks.fail_at(call, hooks.ERRORS[what], sticky))
        problem = problem_of(broken, broken.wait(), runs_dir)
        if problem:
            return f"{place}: {problem}"
        again = fleet.start(command, Path(name) / "again.log")
        if again.wait() != 0:
            return f"{place}: the same command again ends with {again.code}: {again.text()[-300:]}"
        differing = fleet.differences(fleet.outcome(runs_dir), expected)
        return f"{place}: {', '.join(differing)} differ" if differing else None


def run(count: int, seed: int = 0, jobs: int = 2) -> dict[str, Any]:
    """`count` injected errors, spread evenly over all disk calls of the run."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        counter, runs_dir = Path(name) / "calls", Path(name) / "runs"
        whole = fleet.start(FAULTED.command(runs_dir), Path(name) / "whole.log", hooks.count_calls(counter))
        if whole.wait() != 0:
            raise RuntimeError(f"the undisturbed run failed: {whole.text()}")
        points, expected = int(counter.read_text()), fleet.outcome(runs_dir)
    results = fleet.every(partial(trial, seed=seed, points=points, expected=expected), count, jobs, "faults")
    return fleet.figures(
        results,
        f"disk full, I/O error, read-only at {min(len(results), points)} of {points} disk calls: one line, exit"
        f" code {StorageError.exit_code}, checkpoint intact, the same command finishes identically",
        points=points,
    )
