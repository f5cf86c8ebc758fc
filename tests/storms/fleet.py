"""Real runs in fresh processes, and what they leave, for the suites of this folder.

A run's process is forked from one that has imported the program's modules and used none of them, which saves the
imports of several hundred starts; `spawn` starts `python run.py` by itself for the suites that mix the two.
"""

import json
import math
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from experiments.store.result import comparable

ROOT = Path(__file__).resolve().parents[2]
COMPARED = ("last.safetensors", "metrics.jsonl", "result.json")
# One thread, and no commit in the record: the source tree may change while a suite of an hour runs.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GIT_DIR": os.devnull, "PYTHONWARNINGS": "ignore"}


@dataclass
class Child:
    """A run in a process of its own."""

    pid: int
    log: Path
    code: int | None = None

    def poll(self) -> int | None:
        """The exit code (minus the signal's number after a death by signal), None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float = 300) -> int:
        """Its exit code; TimeoutError, and its end, after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"no end after {seconds} s: {self.log.read_text()[-2000:]}")
            time.sleep(0.005)
        self.clean()
        assert self.code is not None
        return self.code

    def send(self, number: int) -> None:
        """Send a signal to the run's main process only."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> int:
        """kill -9 of the main process; returns its exit code, which tells whether it had ended by itself before."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            self.code = os.waitstatus_to_exitcode(status)
        assert self.code is not None
        return self.code

    def clean(self) -> None:
        """End what the run may have left in its process group (data workers)."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def text(self) -> str:
        """What it printed."""
        return self.log.read_text(errors="replace")


def preload() -> None:
    """Import what a run needs, so that forked children start at once."""
    os.environ.update(ENVIRONMENT)
    import hydra  # noqa: F401
    import torch._dynamo  # noqa: F401  (which every optimizer imports)

    import experiments.config.compose
    import experiments.data
    import experiments.training.run  # noqa: F401


def start(
    overrides: Sequence[str], log: Path, prepare: Callable[[], None] | None = None, env: dict[str, str] | None = None
) -> Child:
    """Fork a process that calls `prepare` and then does what `python run.py OVERRIDES` does."""

    def run() -> None:
        os.environ.update(ENVIRONMENT | (env or {}))
        os.chdir(ROOT)
        sys.argv = ["run.py", *overrides]
        if prepare is not None:
            prepare()
        runpy.run_path(str(ROOT / "run.py"), run_name="__main__")

    return fork(run, log)


def fork(work: Callable[[], None], log: Path) -> Child:
    """Do `work` in a forked process that prints to `log`, and end it with the exit code that a script would have."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, log)
    code = 1
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for target in (1, 2):
            os.dup2(descriptor, target)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def spawn(overrides: Sequence[str], log: Path) -> Child:
    """Start `python run.py OVERRIDES` as a user does."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        process = subprocess.Popen(
            [sys.executable, "run.py", *overrides],
            cwd=ROOT,
            stdout=file,
            stderr=file,
            env=os.environ | ENVIRONMENT,
            start_new_session=True,
        )
    process.returncode = 0  # this Child waits for it, not Popen
    return Child(process.pid, log)


def only_run(runs_dir: Path) -> Path:
    """The one run directory below `runs_dir`."""
    (found,) = [path for path in runs_dir.iterdir() if path.is_dir() and path.name != "studies"]
    return found


def outcome(runs_dir: Path) -> dict[str, bytes]:
    """What must not depend on interruptions, of the one run below `runs_dir`."""
    return outcome_of(only_run(runs_dir))


def outcome_of(run: Path) -> dict[str, bytes]:
    """What must not depend on interruptions: the compared files' bytes, result.json without its timing fields."""
    files = {name: (run / name).read_bytes() if (run / name).exists() else b"missing" for name in COMPARED}
    if files["result.json"] != b"missing":
        record = comparable(json.loads(files["result.json"]))
        files["result.json"] = json.dumps(record, sort_keys=True).encode()
    return files


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Names of the files that differ."""
    return [name for name in COMPARED if found[name] != expected[name]]


def every(trial: Callable[[int], Any], count: int, jobs: int, what: str) -> list[Any]:
    """The results of trial(0) ... trial(count - 1) in order, `jobs` at a time; says now and then how far it is.

    Once the time that `limit` allows is over no further trial begins, and fewer results come back.
    """
    began, results = time.monotonic(), []
    timely = partial(_in_time, trial, began + 60 * _minutes)
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        for result in pool.map(timely, range(count)):
            if result is Late.LATE:
                break
            results.append(result)
            if len(results) % max(1, count // 20) == 0:
                seconds = time.monotonic() - began
                print(f"{what}: {len(results)} of {count} after {seconds:.0f} s", file=sys.stderr, flush=True)
    return results


class Late(Enum):
    """What stands for a trial that did not begin in time; an enum's member is itself after a journey by pickle."""

    LATE = 0


_minutes = math.inf


def limit(minutes: float | None) -> None:
    """Let trials begin for so many minutes only, from each call of `every` on."""
    global _minutes
    _minutes = math.inf if minutes is None else minutes


def _in_time(trial: Callable[[int], Any], deadline: float, index: int) -> Any:
    return Late.LATE if time.monotonic() > deadline else trial(index)


def make_images(folder: Path, train: int = 48, val: int = 16, classes: int = 4, side: int = 40) -> None:
    """A small image folder, train/<class>/ and val/<class>/, of reproducible PNG files."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            label = index % classes
            path = folder / split / f"class{label}" / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 120, (side, side, 3)) + 30 * label
            Image.fromarray(pixels.astype(np.uint8)).save(path)


def figures(results: Sequence[str | None], what: str, **more: Any) -> dict[str, Any]:
    """What a suite reports of its trials, each of which gave what was wrong with it, or None."""
    failures = [problem for problem in results if problem]
    counts = {"passed": len(results) - len(failures), "total": len(results), "what": what}
    return counts | more | {"failures": listed(failures)}


def listed(items: Iterable[str], limit: int = 20) -> list[str]:
    """The first few of many lines."""
    return list(items)[:limit]
