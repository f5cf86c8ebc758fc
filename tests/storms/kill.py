"""kill -9 at random moments, half of them inside the writing of a checkpoint, then the same command again.

Several steps, recipes, precisions and numbers of data workers. Whatever the moment, last.safetensors, metrics.jsonl
and result.json (timing fields apart) must equal those of an undisturbed run byte for byte; the runs that differ in
their number of workers only share one undisturbed run.
"""

import random
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.storms import fleet, hooks, timm_loop
from tests.storms.variants import KILLED, Variant

SPAWNED_EVERY = 20  # one trial in so many is a bare `python run.py` from a new interpreter
SPAWN_SECONDS = 4.0  # what such a start takes before it trains


class Reference(NamedTuple):
    """An undisturbed run."""

    files: dict[str, bytes]
    seconds: float
    calls: int  # disk calls inside the writing of its checkpoints


class Verdict(NamedTuple):
    """One trial: when its kills struck, and what went wrong (None: nothing)."""

    moments: tuple[str, ...]
    problem: str | None


def undisturbed(variant: Variant, images: Path, folder: Path) -> Reference:
    """Run a variant to its end."""
    runs_dir, calls = folder / "runs", folder / "calls"
    began = time.monotonic()
    child = fleet.start(variant.command(runs_dir, images), folder / "log", hooks.count_inside_saves(calls))
    if child.wait() != 0:
        raise RuntimeError(f"{variant.name}: the undisturbed run failed: {child.text()}")
    return Reference(fleet.outcome(runs_dir), time.monotonic() - began, int(calls.read_text()))


def moment_of(runs_dir: Path) -> str:
    """Where a kill struck, as far as the files tell."""
    if not runs_dir.exists() or not any(runs_dir.iterdir()):
        return "before the run began"
    run = fleet.only_run(runs_dir)
    if (run / "result.json").exists():
        return "after the end"
    if any(run.glob("starts/*/checkpoints/.writing")) or any(run.glob("starts/*/checkpoints/.removing")):
        return "inside a checkpoint write"
    return "between checkpoints" if any(run.glob("starts/*/checkpoints/step-*")) else "before the first checkpoint"


def struck(
    index: int, kill: int, command: list[str], folder: Path, reference: Reference, random_: random.Random
) -> str:
    """Start the run, kill it at a random moment, and say where that was."""
    runs_dir = folder / "runs"
    if index % 2 and kill == 0:
        prepare = hooks.kill_inside_save(random_.randint(1, reference.calls))
        child = fleet.start(command, folder / "log", prepare)
        return "inside a checkpoint write" if child.wait() == -9 else "after the end"
    if index % SPAWNED_EVERY == 0:
        child = fleet.spawn(command, folder / "log")
        pause = random_.uniform(0.5 * SPAWN_SECONDS, SPAWN_SECONDS + reference.seconds)
    else:
        child = fleet.start(command, folder / "log")
        pause = random_.uniform(0, reference.seconds)
    deadline = time.monotonic() + pause
    while time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.001)
    return "after the end" if child.kill() == 0 else moment_of(runs_dir)


def trial(index: int, seed: int, references: list[Reference], images: Path) -> Verdict:
    """One to three kills of one run, its last start undisturbed."""
    random_ = random.Random(f"kill {seed} {index}")
    number = index // 2 % len(KILLED)
    variant, reference = KILLED[number], references[number]
    with tempfile.TemporaryDirectory(prefix="kill-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        command = variant.command(folder / "runs", images)
        kills = random_.choice((1, 1, 1, 2, 3))
        moments = tuple(struck(index, kill, command, folder, reference, random_) for kill in range(kills))
        last = fleet.start(command, folder / "log")
        if last.wait() != 0:
            return Verdict(moments, f"{variant.name}, killed {moments}: ends with {last.code}: {last.text()[-500:]}")
        differing = fleet.differences(fleet.outcome(folder / "runs"), reference.files)
    problem = f"{variant.name}, killed {moments}: {', '.join(differing)} differ" if differing else None
    return Verdict(moments, problem)


def run(count: int, seed: int = 0, jobs: int = 2) -> dict[str, Any]:
    """`count` runs that are killed and continued."""
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        images = Path(name) / "images"
        fleet.make_images(images)
        references = [undisturbed(variant, images, Path(name) / str(i)) for i, variant in enumerate(KILLED)]
        folders = {tuple(r.files.values()) for r, variant in zip(references, KILLED, strict=True) if variant.folder}
        verdicts = list(
            fleet.every(partial(trial, seed=seed, references=references, images=images), count, jobs, "kill")
        )
    failures = [verdict.problem for verdict in verdicts if verdict.problem]
    if len(folders) != 1:
        failures.append("the undisturbed runs with 0, 1 and 2 workers differ")
    moments = Counter(moment for verdict in verdicts for moment in verdict.moments)
    return {
        "passed": len(verdicts) - len(failures),
        "total": len(verdicts),
        "what": f"kill -9 at random moments ({moments['inside a checkpoint write']} inside a checkpoint write),"
        f" {len(KILLED)} runs with 0, 1 and 2 workers: identical to the undisturbed run",
        "moments": dict(moments),
        "contrast": timm_loop.run(min(50, count // 2), seed, jobs),
        "failures": fleet.listed(failures),
    }
