"""Runs put together from several starts, with other threads, kernels and instruction sets, killed or asked to stop.

The record must list every start with its own values and the steps that the run has of it, without a gap; a start that
goes on with other values says so in one line, and the record is marked. Starts of equal values leave the bytes of an
undisturbed run.
"""

import json
import random
import signal
import tempfile
import time
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from experiments.errors import InterruptedRun
from tests.storms import fleet
from tests.storms.variants import EIGHTEEN_STEPS, EVERYTHING_ON, Variant

VARIANT = Variant("kernel_7", ("+step=kernel_7", *EVERYTHING_ON, *EIGHTEEN_STEPS, "batch.size=16", "batch.micro=8"))
STEPS = 18
WARNED = "the run goes on with other values"


class Values(NamedTuple):
    """What a start is told, and what it must note of itself."""

    threads: int
    kernels: str
    isa: str | None  # the most that oneDNN may use

    def overrides(self) -> list[str]:
        """For the command line."""
        return [f"threads={self.threads}", f"deterministic={str(self.kernels == 'deterministic').lower()}"]

    def environment(self) -> dict[str, str]:
        """For the process."""
        return {"ONEDNN_MAX_CPU_ISA": self.isa} if self.isa else {}

    def noted(self, entry: dict[str, Any]) -> bool:
        """Whether an entry of the record is of such a start."""
        isa = entry["instruction_set"].partition(", oneDNN ")[2] or None
        return (entry["threads"], entry["kernels"], isa) == self


USUAL = Values(1, "default", None)
CHOICES = (USUAL, Values(2, "default", None), Values(1, "deterministic", None), Values(1, "default", "AVX2"))


class Reference(NamedTuple):
    """An undisturbed run of the usual values."""

    files: dict[str, bytes]
    seconds: float
    run_id: str


def start(values: Values, folder: Path, number: int) -> fleet.Child:
    """One more start of the run."""
    command = [part for part in VARIANT.command(folder / "runs") if not part.startswith("threads=")]
    return fleet.start([*command, *values.overrides()], folder / f"log{number}", env=values.environment())


def interrupted(child: fleet.Child, seconds: float, random_: random.Random) -> bool:
    """Kill a start, or ask it to stop, at a random moment; False when it had finished."""
    deadline = time.monotonic() + random_.uniform(0.2, 1.0) * seconds
    while time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.002)
    if random_.random() < 0.5:
        return child.kill() != 0
    child.send(signal.SIGTERM)
    return child.wait() != 0


def problem_of(record: dict[str, Any], told: list[Values], logs: list[str], reference: Reference) -> str | None:
    """What is wrong with a record for the starts that were made."""
    entries = record["starts"]
    ends = [(entry["from_step"], entry["to_step"]) for entry in entries]
    if ends[0][0] != 0 or ends[-1][1] != STEPS or any(one[1] != two[0] for one, two in pairwise(ends)):
        return f"steps {ends}"
    left = iter(told)
    if not all(any(values.noted(entry) for values in left) for entry in entries) or not told[-1].noted(entries[-1]):
        return f"{told} are listed as {entries}"
    if record["run_id"] != reference.run_id:
        return "another run id"
    trained = [entry for entry in entries if entry["from_step"] < entry["to_step"] or entry is entries[-1]]
    keys = ("threads", "kernels", "instruction_set")
    turns = sum(any(one[key] != two[key] for key in keys) for one, two in pairwise(trained))
    marks = [line for line in record.get("warnings", []) if line.startswith("mixed: ")]
    if len(marks) != turns or sum(log.count(WARNED) for log in logs) < turns:
        return f"{turns} changes of values, {marks} in the record, {sum(log.count(WARNED) for log in logs)} warnings"
    return None


def trial(index: int, seed: int, reference: Reference) -> tuple[int, str | None]:
    """One run of two to four starts: how many the record lists, and what went wrong (None: nothing)."""
    random_ = random.Random(f"starts {seed} {index}")
    choices = (USUAL,) if index % 4 == 0 else CHOICES
    with tempfile.TemporaryDirectory(prefix="starts-", ignore_cleanup_errors=True) as name:
        folder, told = Path(name), []
        for number in range(random_.randint(1, 3)):
            told.append(random_.choice(choices))
            child = start(told[-1], folder, number)
            if not interrupted(child, reference.seconds, random_):
                break
            if child.code not in (-signal.SIGKILL, -signal.SIGTERM, InterruptedRun.exit_code):
                return 0, f"{told}: exit code {child.code}: {child.text()[-400:]}"
        else:
            told.append(random_.choice(choices))
            last = start(told[-1], folder, len(told))
            if last.wait():
                return 0, f"{told}: exit code {last.code}: {last.text()[-400:]}"
        record = json.loads((fleet.only_run(folder / "runs") / "result.json").read_text())
        logs = [log.read_text() for log in folder.glob("log*")]
        problem = problem_of(record, told, logs, reference)
        if not problem and set(told) == {USUAL}:
            differing = fleet.differences(fleet.outcome(folder / "runs"), reference.files)
            problem = f"{', '.join(differing)} differ" if differing else None
    return len(record["starts"]), f"{told}: {problem}" if problem else None


def undisturbed() -> Reference:
    """One start to the end."""
    with tempfile.TemporaryDirectory(prefix="starts-") as name:
        began = time.monotonic()
        child = start(USUAL, Path(name), 0)
        if child.wait() != 0:
            raise RuntimeError(f"the undisturbed run failed: {child.text()}")
        record = json.loads((fleet.only_run(Path(name) / "runs") / "result.json").read_text())
        return Reference(fleet.outcome(Path(name) / "runs"), time.monotonic() - began, record["run_id"])


def run(count: int, seed: int = 0, jobs: int = 2) -> dict[str, Any]:
    """`count` runs of several starts."""
    reference = undisturbed()
    results = fleet.every(partial(trial, seed=seed, reference=reference), count, jobs, "starts")
    failures = [problem for _, problem in results if problem]
    listed = Counter(number for number, _ in results)
    return {
        "passed": len(results) - len(failures),
        "total": len(results),
        "what": "runs of several starts with other threads, kernels and instruction sets: every start listed with its"
        " values and steps, changes warned of and marked, starts of equal values identical",
        "starts": {str(number): listed[number] for number in sorted(listed)},
        "failures": fleet.listed(failures),
    }
