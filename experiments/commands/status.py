"""`python -m experiments status RUNS`: how every run of a folder stands, while a study runs and afterwards."""

import argparse
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.config import identity
from experiments.config.quoting import command, override
from experiments.errors import StorageError
from experiments.store import cache, result
from experiments.store.cache import Cache, cache_file, stamp_of, version_of
from experiments.store.result import read_result
from experiments.store.run_dir import RunDir, known_by, read_lines
from experiments.strict_json import MEBIBYTE, number, read_object
from experiments.strict_yaml import read_mapping
from experiments.studies import frozen
from roadmap import seals
from roadmap.escape import visible
from roadmap.program import place, train_command

COLUMNS = ("run", "state", "epoch", "top-1", "images/s", "time left", "note")
_VERSION = version_of(cache, frozen, identity, result, seals)
# what is kept of a folder of runs: runs that have a record, what unfinished ones were asked for, studies
ENDED, ASKED, PLANNED = (f"{kind}@{_VERSION}" for kind in ("ended", "asked", "planned"))
UNSEALED = "unsealed: recorded before there were seals"
NUMBERS = ("epoch", "top-1", "images/s", "time left")
UNREADABLE = "unreadable"  # of a study's file
LARGEST = 1e12  # of a count or a time, in seconds, that is shown
MOST_LETTERS = 1000  # of a message
AT_REST = ("finished", "diverged", "failed", UNREADABLE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("runs", type=place, nargs="?", default="runs", help="runs_dir (default: runs)")
    parser.add_argument("--study", help="only the runs of this study, by its file's name or the start of it")
    parser.add_argument(
        "--no-cache", action="store_true", help="read every file anew and keep nothing for the next look"
    )
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="look again every so often until all is done")


def run(options: argparse.Namespace) -> int:
    """Print the table once, or keep it on the screen; returns the exit code."""
    runs_dir = Path(options.runs)
    console, kept = _Console(), None if options.no_cache else cache_file(runs_dir)
    if options.watch is None:
        console.print(as_table(rows(runs_dir, options.study, kept)))
        return 0
    with Live(console=console, auto_refresh=False) as live:
        while True:
            found = rows(runs_dir, options.study, kept)
            live.update(as_table(found), refresh=True)
            if all(row["state"] in AT_REST for row in found):
                return 0
            time.sleep(options.watch)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave the end to the command, which makes it a quiet one; Rich would exit with 1."""
        raise


def rows(runs_dir: Path, study: str | None = None, cache_path: Path | None = None) -> list[dict[str, str]]:
    """What is known of every run: those of the studies first, in their order, then all others.

    A study whose file cannot be read is a row that says why; its runs are among the others.

    Args:
        runs_dir: the folder of runs.
        study: only the runs of the studies whose file's name starts so.
        cache_path: see `experiments.store.cache`; None reads everything anew.

    Raises:
        StorageError: no such folder or study.
    """
    if not runs_dir.is_dir():
        raise StorageError(f"{runs_dir}: no such folder; runs lie in runs_dir (default: runs)")
    kept = Cache(cache_path)
    found: dict[str, dict[str, str]] = {}
    studies = sorted((runs_dir / "studies").glob(f"{study or ''}*.json"))
    if study and not studies:
        raise StorageError(f"{runs_dir / 'studies'} holds no study that starts with {study!r}")
    for path in studies:
        try:
            planned = _planned(path, kept)
        except StorageError as error:
            found[f"studies/{path.name}"] = _unreadable(path, error)
            continue
        for label, own, run_id, epochs in planned:
            place = RunDir.named(runs_dir, label, own)
            found.setdefault(place.path.name, row(place, epochs, _again(path, run_id, runs_dir), kept))
    if not study:
        for config in sorted(runs_dir.glob("*/config.yaml")):
            if config.parent.name not in found:
                found[config.parent.name] = row(RunDir(config.parent), None, "", kept)
    kept.save(whole=not study)
    return list(found.values())


def _planned(path: Path, kept: Cache) -> list[tuple[str, str, str, int]]:
    """Of every run of a study: the two parts of its folder's name, 12 digits of its id, its epochs."""
    stamp = stamp_of(path.parent, [path.name])
    found: list[tuple[str, str, str, int]] | None = kept.get(PLANNED, path.name, stamp)
    if found is None:
        runs = [(settings, frozen.run_id(settings)) for settings in frozen.read_study(path).runs]
        found = [(run.label, known_by(run, own), own[:12], run.recipe.epochs) for run, own in runs]
        kept.put(PLANNED, path.name, stamp, found)
    return found


def _unreadable(path: Path, error: StorageError) -> dict[str, str]:
    note = str(error).removeprefix(f"{path}: ")
    return dict.fromkeys(COLUMNS, "") | {"run": f"studies/{path.name}", "state": UNREADABLE, "note": note}


def _again(study: Path, run_id: str, runs_dir: Path) -> str:
    """The command that reruns a run of a study."""
    words = [override("study.file", study), f"study.run={run_id}", override("runs_dir", runs_dir)]
    return f"{train_command()} {command(words)}"


def row(place: RunDir, epochs: int | None, again: str, kept: Cache) -> dict[str, str]:
    """One run as text.

    Args:
        place: its directory.
        epochs: that it was asked for; None: as its config.yaml says.
        again: the command that reruns it.
        kept: what was read before.
    """
    if os.path.lexists(place.result):
        return _ended(place, kept)
    epochs = _epochs(place, kept) if epochs is None else epochs
    state = frozen.live_state(place)
    metrics, timing = _lines(place.metrics), _lines(place.timing)
    done = len(metrics)
    last = timing[-1] if timing else {}
    speed, top1 = number(last, "images_per_second", 0, LARGEST), number(metrics[-1], "top1", 0, 100) if done else None
    seconds = [number(last, key, 0, LARGEST) for key in ("train_seconds", "eval_seconds")]
    known = state in ("half", "running") and None not in seconds
    left = (epochs - done) * sum(one for one in seconds if one is not None) if known else None
    return _row(place, state, done, epochs, top1, speed, left, _note(place, state, again))


def _ended(place: RunDir, kept: Cache) -> dict[str, str]:
    """The row of a run that has a record, from what was read of it before where nothing has changed since."""
    name, stamp = place.path.name, stamp_of(place.path)
    found: dict[str, str] | None = kept.get(ENDED, name, stamp)
    if found is not None:
        return found
    try:
        record = read_result(place.result)
    except ValueError as error:
        return _row(place, "damaged", 0, 0, None, None, None, str(error).replace(f"{place.path}/", ""))
    asked, note = record["recipe"].get("epochs"), "" if "seals" in record else UNSEALED
    numbers = (record["epochs"], asked, record["top1"], record["images_per_second"], None)
    found = _row(place, record["status"], *numbers, note)
    kept.put(ENDED, name, stamp, found)
    return found


def _epochs(place: RunDir, kept: Cache) -> int:
    """The epochs that an unfinished run was asked for; 0 where its config cannot be read."""
    name, stamp = place.path.name, stamp_of(place.path, [place.config.name])
    found: int | None = kept.get(ASKED, name, stamp)
    if found is None:
        try:
            found = int(number(read_mapping(place.config)["recipe"], "epochs", 0, LARGEST) or 0)
        except (TypeError, KeyError, ValueError, AttributeError):
            return 0
        kept.put(ASKED, name, stamp, found)
    return found


def _row(
    place: RunDir,
    state: str,
    done: int,
    epochs: Any,
    top1: float | None,
    speed: float | None,
    left: float | None,
    note: str,
) -> dict[str, str]:
    return {
        "run": place.path.name,
        "state": state,
        "epoch": f"{done}/{epochs}" if epochs else str(done),
        "top-1": f"{top1:.2f}" if top1 is not None else "",
        "images/s": f"{speed:.0f}" if speed else "",
        "time left": _clock(left) if left is not None else "",
        "note": note,
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return read_lines(path)
    except ValueError:
        return []  # a damaged file is the run's business when it continues; a status only looks


def _note(place: RunDir, state: str, again: str) -> str:
    """Why a run has stopped, where it says so, and how it goes on; what is wrong with a record that is damaged."""
    if state == "damaged":
        return _damage(place.result)
    if not place.error.exists() or state not in ("failed", "half"):
        return ""
    how = "the same command continues" if state == "half" else f"again: {again} retry_failed=true"
    return f"{_error(place.error)}; {how}"


def _error(path: Path) -> str:
    try:
        record = read_object(path, MEBIBYTE)
        return f"{record['type']}: {record['message']}".splitlines()[0][:MOST_LETTERS]
    except (ValueError, KeyError, IndexError):
        return "its error.json cannot be read"


def _damage(result: Path) -> str:
    try:
        read_result(result)
    except ValueError as error:
        return str(error).removeprefix(f"{result}: ")
    return ""  # it has been mended meanwhile


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"


def as_table(found: list[dict[str, str]]) -> Table:
    """The rows as a rich table; what files say is shown as it is and never taken for markup or for a command."""
    counts = {state: sum(row["state"] == state for row in found) for state in dict.fromkeys(r["state"] for r in found)}
    table = Table(title=", ".join(f"{n} {state}" for state, n in counts.items()) or "no runs", box=None)
    for column in COLUMNS:
        table.add_column(column, overflow="fold", justify="right" if column in NUMBERS else "left")
    for row in found:
        table.add_row(*(Text(visible(row[column])) for column in COLUMNS))
    return table
