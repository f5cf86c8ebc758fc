"""`python -m experiments status RUNS`: how every run of a folder stands, while a study runs and afterwards."""

import argparse
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.live import Live
from rich.table import Table

from experiments.errors import StorageError
from experiments.store.run_dir import RunDir, read_lines
from experiments.strict_json import MEBIBYTE, read_object
from experiments.studies import frozen
from roadmap.program import train_command

COLUMNS = ("run", "state", "epoch", "top-1", "images/s", "time left", "note")
NUMBERS = ("epoch", "top-1", "images/s", "time left")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("runs", type=Path, nargs="?", default=Path("runs"), help="runs_dir (default: runs)")
    parser.add_argument("--study", help="only the runs of this study, by its file's name or the start of it")
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="look again every so often until all is done")


def run(options: argparse.Namespace) -> int:
    """Print the table once, or keep it on the screen; returns the exit code."""
    console = _Console()
    if options.watch is None:
        console.print(as_table(rows(options.runs, options.study)))
        return 0
    with Live(console=console, auto_refresh=False) as live:
        while True:
            found = rows(options.runs, options.study)
            live.update(as_table(found), refresh=True)
            if all(row["state"] in ("finished", "diverged", "failed") for row in found):
                return 0
            time.sleep(options.watch)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave the end to the command, which makes it a quiet one; Rich would exit with 1."""
        raise


def rows(runs_dir: Path, study: str | None = None) -> list[dict[str, str]]:
    """What is known of every run: those of the studies first, in their order, then all others.

    Raises:
        StorageError: no such folder or study.
    """
    if not runs_dir.is_dir():
        raise StorageError(f"{runs_dir}: no such folder; runs lie in runs_dir (default: runs)")
    found: dict[str, dict[str, str]] = {}
    studies = sorted((runs_dir / "studies").glob(f"{study or ''}*.json"))
    if study and not studies:
        raise StorageError(f"{runs_dir / 'studies'} holds no study that starts with {study!r}")
    for path in studies:
        for settings in frozen.read_study(path).runs:
            place = RunDir.locate(settings.replace(runs_dir=str(runs_dir)))
            again = f"{train_command()} study.file={path} study.run={frozen.run_id(settings)[:12]} runs_dir={runs_dir}"
            found.setdefault(place.path.name, row(place, settings.recipe.epochs, again))
    if not study:
        for config in sorted(runs_dir.glob("*/config.yaml")):
            found.setdefault(config.parent.name, row(RunDir(config.parent), _epochs(config), ""))
    return list(found.values())


def _epochs(config: Path) -> int:
    """The epochs that a run was asked for; 0 where its config cannot be read."""
    try:
        return int(yaml.safe_load(config.read_text())["recipe"]["epochs"])
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError):
        return 0


def row(place: RunDir, epochs: int, again: str) -> dict[str, str]:
    """One run as text; `again` is the command that reruns it."""
    state = frozen.live_state(place)
    metrics, timing = _lines(place.metrics), _lines(place.timing)
    done = len(metrics)
    speed = timing[-1]["images_per_second"] if timing else None
    per_epoch = timing[-1]["train_seconds"] + timing[-1]["eval_seconds"] if timing else None
    left = (epochs - done) * per_epoch if per_epoch is not None and state in ("half", "running") else None
    return {
        "run": place.path.name,
        "state": state,
        "epoch": f"{done}/{epochs}" if epochs else str(done),
        "top-1": f"{metrics[-1]['top1']:.2f}" if metrics and metrics[-1].get("top1") is not None else "",
        "images/s": f"{speed:.0f}" if speed else "",
        "time left": _clock(left) if left is not None else "",
        "note": _note(place, state, again),
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return read_lines(path)
    except ValueError:
        return []  # a damaged file is the run's business when it continues; a status only looks


def _note(place: RunDir, state: str, again: str) -> str:
    """Why a run has stopped, where it says so, and how it goes on."""
    if not place.error.exists() or state not in ("failed", "half"):
        return ""
    how = "the same command continues" if state == "half" else f"again: {again} retry_failed=true"
    return f"{_error(place.error)}; {how}"


def _error(path: Path) -> str:
    try:
        record = read_object(path, MEBIBYTE)
        return f"{record['type']}: {record['message']}".splitlines()[0]
    except (ValueError, KeyError):
        return "its error.json cannot be read"


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"


def as_table(found: list[dict[str, str]]) -> Table:
    """The rows as a rich table."""
    counts = {state: sum(row["state"] == state for row in found) for state in dict.fromkeys(r["state"] for r in found)}
    table = Table(title=", ".join(f"{n} {state}" for state, n in counts.items()) or "no runs", box=None)
    for column in COLUMNS:
        table.add_column(column, overflow="fold", justify="right" if column in NUMBERS else "left")
    for row in found:
        table.add_row(*(row[column] for column in COLUMNS))
    return table
