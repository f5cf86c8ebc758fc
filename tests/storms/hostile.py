"""Checkpoints, records, images, archives and folders made to execute code, to write elsewhere or to exhaust memory.

Each is planted in a half-done run or its data, and the run then continued, or one on the archive begun, under an audit
hook and a memory limit. Nothing may be executed, nothing be written outside the run's own directory, memory must stay
bounded, and the run must end in time with a documented exit code and at most one line of error.
"""

import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.storms import fleet
from tests.storms.hostile_images import IMAGES
from tests.storms.hostile_sets import ARCHIVES, FOLDERS, Archive
from tests.storms.payloads import GROUPS, Place
from tests.storms.variants import EVERYTHING_ON, SMALL, Variant

MEMORY = 1 << 30  # bytes that a run may use beyond those of the undisturbed one
ADDRESS_SPACE = 4 << 30  # bytes that it may map beyond what it starts with: an attempt to take more fails
SECONDS = 120.0
EXPECTED_CODES = (0, 2, 3, 4, 5)
SIZE = ("recipe.epochs=2", "batch.size=8", "batch.micro=4", "data.damaged_share=0.5")
VARIANT = Variant("kernel_7", ("+step=kernel_7", *EVERYTHING_ON, *SIZE), folder=True)
Planted = Callable[[Place], None] | Archive
EVERY: dict[str, Mapping[str, Planted]] = {**GROUPS, "data": IMAGES, "archive": ARCHIVES, "folder": FOLDERS}
# Mixed, so that the first few are of every group in its share.
SHARES = {(group, name): (i + 0.5) / len(kinds) for group, kinds in EVERY.items() for i, name in enumerate(kinds)}
KINDS = [(group, name, EVERY[group][name]) for group, name in sorted(SHARES, key=SHARES.__getitem__)]
EXECUTING = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "socket.connect"}
WRITING = {
    "os.rename": 2,
    "os.remove": 1,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.link": 2,
    "os.symlink": 2,
    "os.truncate": 1,
}


def watch(allowed: Path, report: Path) -> Callable[[], None]:
    """Audit the process: note every attempt to execute something or to write outside `allowed`."""
    home, own_git = os.path.realpath(allowed), "git"

    def outside(path: Any, at: int = -1, follow: bool = True) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False  # a descriptor: it was opened before
        folder = f"/proc/self/fd/{at}" if at >= 0 else "."
        whole = os.path.join(folder, os.fsdecode(path))
        parent, last = os.path.split(whole)
        real = os.path.realpath(whole) if follow else os.path.join(os.path.realpath(parent), last)
        return not real.startswith((home + os.sep, "/dev/null", "/dev/shm/", "/proc/self/")) and real != home

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        attempt = None
        if event in EXECUTING and not (event == "subprocess.Popen" and arguments[1][0] == own_git):
            attempt = f"{event} {arguments!r:.100}"
        elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and outside(arguments[0]):
            attempt = f"open {arguments[0]!r:.100}"
        elif event in WRITING and not (event == "os.mkdir" and os.path.isdir(arguments[0])):
            paths = arguments[: WRITING[event]]
            if event == "os.symlink":  # a link is where it lies, and points on from there
                paths = (os.path.join(os.path.dirname(paths[1]), os.fspath(paths[0])), paths[1])
            at = arguments[-1] if isinstance(arguments[-1], int) else -1
            attempt = f"{event} {arguments!r:.100}" if any(outside(path, at, False) for path in paths) else None
        if attempt:
            descriptor = os_open(str(report), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.write(descriptor, attempt.encode() + b"\n")
            os.close(descriptor)

    os_open = os.open

    def prepare() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        sys.dont_write_bytecode = True
        busy = False

        def guarded(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal busy
            if not busy:
                busy = True
                try:
                    hook(event, arguments)
                finally:
                    busy = False

        sys.addaudithook(guarded)

    return prepare


def peak_memory(child: fleet.Child) -> tuple[int, int]:
    """Wait for the child, and kill it after SECONDS; its exit code and the most memory it had in use, in bytes."""
    peak, page, deadline = 0, 1024, time.monotonic() + SECONDS
    while child.poll() is None:
        if time.monotonic() > deadline:
            child.kill()
        try:
            lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
            peak = max(peak, *(int(line.split()[1]) * page for line in lines if line.startswith("VmHWM")), 0)
        except (OSError, ValueError):
            pass
        time.sleep(0.005)
    return child.code or 0, peak


def trial(index: int, seed: int, template: Path, usual: int) -> str | None:
    """One planted file; what went wrong, or None."""
    random_ = random.Random(f"hostile {seed} {index}")
    group, name, planted = KINDS[index % len(KINDS)]
    with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as folder_name:
        folder = Path(folder_name)
        home, report, canary = folder / "home", folder / "report", folder / "canary"
        shutil.copytree(template, home)
        place = Place(fleet.only_run(home / "runs"), home / "images", canary, random_)
        command = VARIANT.command(home / "runs", home / "images")
        if isinstance(planted, Archive):
            (home / "archive").mkdir()
            planted.plant(place, home / "archive")
            command = archive_command(planted.data, home)
        else:
            planted(place)
        precious = (folder / "precious" / "file").exists()
        child = fleet.start(command, folder / "log", watch(home, report))
        code, peak = peak_memory(child)
        problems = []
        if canary.exists():
            problems.append("its code was executed")
        if report.exists():
            problems.append(f"attempted: {report.read_text().splitlines()[:3]}")
        if precious and not (folder / "precious" / "file").exists():
            problems.append("a file outside the run was removed")
        if peak > usual + MEMORY:
            problems.append(f"{peak >> 20} MiB of memory, usually {usual >> 20}")
        text = child.text()
        if code not in EXPECTED_CODES or "Traceback" in text:
            problems.append(f"exit code {code}: {text[-400:]}")
        lines = text.rstrip("\n").split("\n")
        if sum(line.startswith("error: ") for line in lines) != bool(code) or (code and "error: " not in lines[-1]):
            problems.append(f"no single line of error with exit code {code}: {text[-400:]}")
        subprocess.run(["rm", "-rf", str(home)], check=False)  # what is nested too deeply for Python
        return f"{group}, {name}: {'; '.join(problems)}" if problems else None


def archive_command(data: str, home: Path) -> list[str]:
    """The same run on another set, of which a few images are enough."""
    few = ("data.train_images=96", "data.eval_images=32", f"data={data}", f"data.root={home / 'archive'}")
    return [*SMALL, *VARIANT.overrides, *few, f"runs_dir={home / 'runs'}"]


def prepare_template(folder: Path) -> int:
    """A half-done run and its images below `folder`; returns the memory that such a run takes, in bytes."""
    from tests.storms import hooks

    fleet.make_images(folder / "images")
    command = VARIANT.command(folder / "runs", folder / "images", "checkpoint.every_steps=1")
    saves = hooks.kill_inside_save(150)  # inside the eighth save or so: two generations are there
    child = fleet.start(command, folder / "log", saves)
    code, peak = peak_memory(child)
    if code != -9:
        raise RuntimeError(f"the template run was not killed: {child.text()}")
    return peak


def run(count: int, seed: int = 0, jobs: int = 2) -> dict[str, Any]:
    """`count` planted files, every payload in turn."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        usual = prepare_template(Path(name) / "template")
        trials = partial(trial, seed=seed, template=Path(name) / "template", usual=usual)
        results = fleet.every(trials, count, jobs, "hostile")
    return fleet.figures(
        results,
        "hostile checkpoints, records, images, archives and folders"
        f" ({min(len(results), len(KINDS))} kinds): nothing executed, nothing written outside, memory and time bounded,"
        " at most one line of error",
    )
