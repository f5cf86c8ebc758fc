"""Studies whose runs the machine fails: the same command finishes them, byte for byte as if nothing had happened.

A full disk, memory that runs out, a missing package, a killed data worker, a killed study, and a lost rank of a run
that a launcher has started on two. What such a run leaves must say what it was, with the documented exit code, and the
study must go on with its other runs.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from experiments.errors import (
    LostRankError,
    MissingExtraError,
    ResourceError,
    StorageError,
    StudyError,
)
from experiments.strict_json import read_object
from tests.storms import fleet, hooks
from tests.storms.signals import start_ranks
from tests.storms.variants import SMALL, SYNTHETIC

RUNS = 2
STEPS = 12  # of each run
SIZE = ("recipe.epochs=2", "recipe.lr=2e-3", "recipe.warmup_epochs=1", "checkpoint.every_steps=2")
IN_MEMORY = (*SYNTHETIC, "batch.size=16", "batch.micro=8")


class Kind(NamedTuple):
    """A fault: the exit code in error.json that tells of it (None: nobody was left to write one), and its data."""

    code: int | None
    overrides: tuple[str, ...] = IN_MEMORY
    images: bool = False


KINDS = {
    "disk full": Kind(StorageError.exit_code),
    "out of memory": Kind(ResourceError.exit_code),
    "missing package": Kind(MissingExtraError.exit_code, (*IN_MEMORY, "logger=tensorboard")),
    "data worker killed": Kind(ResourceError.exit_code, ("batch.size=8", "batch.micro=4", "workers=1"), images=True),
    "study killed": Kind(None),
    "lost rank": Kind(LostRankError.exit_code),
}


def command(kind: Kind, runs_dir: Path, images: Path) -> list[str]:
    """The study's command."""
    data = ("data=imagefolder", f"data.root={images}", "data.classes=4") if kind.images else ()
    typed = {item.split("=")[0]: item for item in (*SMALL, *data, *SIZE, *kind.overrides)}  # the last one counts
    return ["-m", "+step=kernel_7,layer_norm", *typed.values(), f"runs_dir={runs_dir}"]


def at_step(number: int, work: Callable[[], Any]) -> Callable[[], None]:
    """Do `work` in front of the `number`-th optimizer step of a process."""

    def prepare() -> None:
        from experiments.training import loop

        train_step, done = loop.train_step, [0]

        def counted(*arguments: Any) -> Any:
            done[0] += 1
            if done[0] == number:
                work()
            return train_step(*arguments)

        loop.train_step = counted

    return prepare


def _without_memory() -> None:
    import torch

    torch.empty(10**15)


def _kill_workers() -> None:
    import psutil

    for child in psutil.Process().children():
        child.kill()


def _kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hide_package() -> None:
    sys.modules["tensorboard"] = None  # type: ignore[assignment]


def fault(kind: str, random_: random.Random) -> Callable[[], None]:
    """What spoils a study, somewhere in its steps."""
    step = random_.randint(1, RUNS * STEPS)
    if kind == "disk full":
        return hooks.fail_at(random_.randint(30, 300), hooks.ERRORS[kind], sticky=random_.random() < 0.5)
    if kind == "missing package":
        return _hide_package
    works = {"out of memory": _without_memory, "data worker killed": _kill_workers, "study killed": _kill_itself}
    return at_step(step, works[kind])


def runs_of(runs_dir: Path) -> list[Path]:
    """The run directories of a study."""
    return sorted(path for path in runs_dir.iterdir() if (path / "config.yaml").exists())


def problem_of(name: str, child: fleet.Child, runs_dir: Path) -> str | None:
    """What is wrong with how a spoilt study ended."""
    if name == "study killed":
        return None if child.code == -signal.SIGKILL else f"exit code {child.code}"
    allowed = (0, StudyError.exit_code, StorageError.exit_code)
    if child.code not in allowed:
        return f"exit code {child.code}: {child.text()[-300:]}"
    if "Traceback" in child.text():
        return f"a traceback: {child.text()[-500:]}"
    return _problem_of_errors(name, runs_dir, none_allowed=name == "disk full")


def _problem_of_errors(name: str, runs_dir: Path, none_allowed: bool) -> str | None:
    """Whether error.json says what it was; a full disk has no room for one, and may have met no run at all."""
    found = [read_object(path) for path in runs_dir.glob("*/error.json")]
    if not found and not none_allowed:
        return "no error.json"
    wrong = [error for error in found if error["exit_code"] != KINDS[name].code or error["machine"] is not True]
    return f"error.json says {json.dumps(wrong[0])}" if wrong else None


@contextmanager
def frozen(kind: Kind, folder: Path, images: Path) -> Iterator[list[str]]:
    """A study that is planned and not begun; the overrides of its first run, as a launcher gives them."""
    asked = command(kind, folder / "runs", images)
    child = fleet.start(asked, folder / "plan.log", partial(_stop_before_launch))
    if child.wait() != 0:
        raise RuntimeError(f"planning failed: {child.text()}")
    (path,) = (folder / "runs" / "studies").glob("*.json")
    first = read_object(path, 1 << 26)["runs"][0]["run_id"]
    machine = [item for item in asked if item.split("=")[0] in ("device", "threads", "workers", "logger.log_every")]
    every = next(item for item in asked if item.startswith("checkpoint."))
    yield [*machine, every, f"runs_dir={folder / 'runs'}", f"study.file={path}", f"study.run={first}"]


def _stop_before_launch() -> None:
    from experiments.studies import frozen as plans

    plans.to_launch = lambda *arguments, **options: sys.exit(0)


def lose_a_rank(folder: Path, overrides: list[str], random_: random.Random) -> str | None:
    """Start a run on two ranks, kill one of them, and see what the other leaves; then start both again."""
    children = start_ranks(folder / "runs", folder, 2, overrides)
    lost, runs_dir = random_.randrange(2), folder / "runs"
    deadline = time.monotonic() + 120
    while not any(runs_dir.glob("*/checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random_.uniform(0, 0.5))
    if children[lost].kill() == 0:
        return None  # it had finished
    code = children[1 - lost].wait(60)
    said = children[1 - lost].text()
    if code not in (0, LostRankError.exit_code):
        return f"rank {lost} killed: the other one ends with {code}: {said[-300:]}"
    if code and f"error: rank {lost} of 2 was killed" not in said:
        return f"rank {lost} killed, which the other one does not say: {said[-300:]}"
    if code and lost == 1:  # rank 0 writes the record
        problem = _problem_of_errors("lost rank", runs_dir, none_allowed=False)
        if problem:
            return problem
    again = start_ranks(runs_dir, folder, 2, overrides)
    if any(child.wait() for child in again):
        return f"rank {lost} killed: the same launch again fails: {again[0].text()[-500:]}"
    return None


Outcomes = dict[str, dict[str, bytes]]


def undisturbed(name: str, folder: Path, images: Path) -> Outcomes:
    """The files of the runs of a study that nothing happens to."""
    kind = KINDS[name]
    if name == "lost rank":
        with frozen(kind, folder, images) as overrides:
            if any(child.wait() for child in start_ranks(folder / "runs", folder, 2, overrides)):
                raise RuntimeError((folder / "log0").read_text())
    child = fleet.start(command(kind, folder / "runs", images), folder / "log")
    if child.wait() != 0:
        raise RuntimeError(f"{name}: the undisturbed study failed: {child.text()}")
    return {run.name: fleet.outcome_of(run) for run in runs_of(folder / "runs")}


def trial(index: int, seed: int, references: dict[str, Outcomes], images: Path) -> str | None:
    """One spoilt study; what went wrong, or None."""
    random_ = random.Random(f"studies {seed} {index}")
    name = list(KINDS)[index % len(KINDS)]
    kind = KINDS[name]
    with tempfile.TemporaryDirectory(prefix="studies-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        asked = command(kind, folder / "runs", images)
        if name == "lost rank":
            with frozen(kind, folder, images) as overrides:
                problem = lose_a_rank(folder, overrides, random_)
        else:
            broken = fleet.start(asked, folder / "broken.log", fault(name, random_))
            broken.wait()
            problem = problem_of(name, broken, folder / "runs")
        if problem:
            return f"{name}: {problem}"
        again = fleet.start(asked, folder / "again.log")
        if again.wait() != 0:
            return f"{name}: the same command ends with {again.code}: {again.text()[-500:]}"
        found = {run.name: fleet.outcome_of(run) for run in runs_of(folder / "runs")}
        if found.keys() != references[name].keys():
            return f"{name}: {len(found)} runs instead of {RUNS}"
        differing = [
            f"{run}: {', '.join(files)} differ"
            for run, expected in references[name].items()
            if (files := fleet.differences(found[run], expected))
        ]
        return f"{name}: {'; '.join(differing)}" if differing else None


def run(count: int, seed: int = 0, jobs: int = 2) -> dict[str, Any]:
    """`count` studies, each kind of fault in turn."""
    with tempfile.TemporaryDirectory(prefix="studies-") as place:
        images = Path(place) / "images"
        fleet.make_images(images)
        references = {
            name: undisturbed(name, Path(place) / name.replace(" ", "-"), images) for name in list(KINDS)[:count]
        }
        trials = partial(trial, seed=seed, references=references, images=images)
        results = fleet.every(trials, count, jobs, "studies")
    return fleet.figures(
        results,
        f"studies that a full disk, little memory, a missing package, a killed data worker, a kill -9 or a lost"
        f" rank ({len(references)} kinds) spoils: recorded as such, and the same command finishes identically",
    )
