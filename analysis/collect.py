"""A folder of runs -> one tidy table, with a list of everything that is not in it and why."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.cache import Cache
from analysis.planned import Pair, commands_in, orders_in, plans_in
from analysis.records import COLUMNS, NUMBERS, flatten, located, step_of
from experiments.errors import StorageError
from experiments.store.run_dir import read_result
from experiments.strict_json import read_object
from experiments.strict_yaml import read_mapping
from roadmap import UserError
from roadmap.escape import visible
from roadmap.steps import DEFAULT, Roadmap

# What using a value of another shape than expected may raise.
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, OSError, UserError)
_DEPTH = 4  # folders below RUNS that are searched
_IGNORED = ("studies", "bench", "checkpoints")  # ours, but no runs
_RUN_FILES = {"config.yaml", "metrics.jsonl", "error.json", "timing.jsonl"}
_REPORT_FILE = "report.html"  # a folder that holds one is an earlier answer of ours
_COMPARED = "compare.html"  # likewise
_OWN = (_REPORT_FILE, "runs.csv", "skipped.csv", "further.csv", "figures")
_OWN_STEMS = ("ladder.", "compare.")
_RUN_NAME = re.compile(r"(?P<label>.+)-(?P<regime>[a-z]+)-s(?P<seed>\d{1,10})-[0-9a-f]{12}")


@dataclass(frozen=True)
class Skipped:
    """Something in RUNS that gives no number: state is half done, failed, damaged, foreign or duplicate."""

    path: str
    state: str
    why: str
    step: str | None = None
    regime: str | None = None
    budget: str | None = None
    data: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Make what files and folders said fit to be shown."""
        for name, value in vars(self).items():
            if isinstance(value, str):
                object.__setattr__(self, name, visible(value))


@dataclass(frozen=True)
class Collection:
    """All runs of a folder: `runs` has the columns of `records.COLUMNS`, a row per sealed run."""

    source: Path
    road: Roadmap  # whose steps the column `step` names
    runs: pd.DataFrame
    skipped: tuple[Skipped, ...]
    settings: dict[str, str] = field(repr=False)  # hash -> nested settings as JSON
    orders: tuple[Pair, ...] = ()  # antithetic pairs of orders that the frozen studies hold
    from_cache: int = 0

    def settings_of(self, key: str) -> dict[str, Any]:
        """The nested settings (design, recipe, budget, data, batch, versions) behind the column `settings`."""
        parsed: dict[str, Any] = json.loads(self.settings[key])
        return parsed


def collect(source: str | Path, cache: Path | None = None, road: Roadmap = DEFAULT) -> Collection:
    """Read every run below `source` and find its step of a roadmap.

    `cache` is a file to keep rows in, whatever the roadmap; nothing is written below `source`.

    Raises:
        StorageError: `source` is not a folder that can be read.
    """
    source = Path(source)
    if not source.is_dir():
        raise StorageError(f"{source} is not a folder; give the folder that holds the runs (runs_dir, default runs)")
    kept = Cache(cache, source)
    rows: dict[str, tuple[Any, ...]] = {}
    fresh, settings, skipped = [], dict(kept.settings), []
    from_cache = 0
    for found, stamp, problem in _walk(source, source, 0):
        path = os.path.relpath(found, source)
        if stamp is None:
            skipped.append(problem if isinstance(problem, Skipped) else _unfinished(found, path, road))
            continue
        if not _is_text(path):
            skipped.append(_named(path, "foreign", "its folder's name is not UTF-8; rename it", road))
            continue
        row = kept.get(path, stamp)
        from_cache += row is not None
        if row is None:
            try:
                flat, text = flatten(path, read_result(Path(found) / "result.json"))
            except MALFORMED as error:
                skipped.append(_named(path, "damaged", _one_line(str(error).replace(f"{found}/", "")), road))
                continue
            row = tuple(flat[name] for name in COLUMNS)
            settings[flat["settings"]] = text
            fresh.append((stamp, *row))
        rows[path] = row
    new = {key: settings[key] for key in settings.keys() - kept.settings.keys()}
    kept.store(fresh, new, kept.rows.keys() - rows.keys())
    kept.close()
    runs, doubles = _without_doubles(located(_frame(rows), road))
    plans = plans_in(source)
    planned = commands_in(plans)
    runs["command"] = [planned.get(one, own) for one, own in zip(runs["run_id"], runs["command"], strict=True)]
    return Collection(source, road, runs, tuple(skipped) + doubles, settings, orders_in(plans), from_cache)


def _is_text(path: str) -> bool:
    """Whether a path can be kept and shown: Python holds the bytes of one that is no UTF-8 as halves of pairs."""
    return os.fsencode(path).decode(errors="replace") == path


def _walk(folder: str | Path, top: Path, depth: int) -> Iterator[tuple[str, str | None, Skipped | None]]:
    """Yield (path, stamp of result.json or None, reason or None) of everything that is or should have been a run."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        yield str(folder), None, Skipped(os.path.relpath(folder, top), "damaged", f"cannot be read: {error.strerror}")
        return
    names = {entry.name for entry in entries}
    if not depth and names & {_REPORT_FILE, _COMPARED}:  # the answer was written beside the runs
        entries = [entry for entry in entries if entry.name not in _OWN and not entry.name.startswith(_OWN_STEMS)]
    if not depth and "result.json" in names:  # RUNS is itself one run
        status = os.stat(f"{folder}/result.json")
        yield str(folder), f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}", None
        return
    if depth and names & _RUN_FILES:
        yield str(folder), None, None
        return
    if depth and _REPORT_FILE in names:
        return
    runs_below = False
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _IGNORED:
            continue
        try:
            status = os.stat(f"{entry.path}/result.json")
        except NotADirectoryError:
            if depth == 0:
                yield entry.path, None, Skipped(entry.name, "foreign", "not a run: a file beside the runs")
        except OSError:
            if entry.is_dir() and depth < _DEPTH:
                runs_below = True
                yield from _walk(entry.path, top, depth + 1)
        else:
            runs_below = True
            yield entry.path, f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}", None
    if depth and not runs_below:
        why = (
            "an empty run folder"
            if _RUN_NAME.fullmatch(os.path.basename(folder))
            else "not a run: no config, no record"
        )
        yield str(folder), None, Skipped(os.path.relpath(folder, top), "foreign", why)


def _unfinished(folder: str, path: str, road: Roadmap) -> Skipped:
    """What a run folder without a result says about itself: failed with its error, or half done."""
    error = Path(folder, "error.json")
    if not error.is_file():
        return _named(path, "half done", "no result yet; the same command continues it", road, folder)
    try:
        content = read_object(error)
        why = str(content.get("message") or content.get("error") or "no message")
        if content.get("machine") is True:
            return _named(path, "half done", _one_line(f"{why}; the same command continues it"), road, folder)
    except ValueError as problem:
        why = str(problem).replace(f"{folder}/", "")
    return _named(path, "failed", _one_line(why), road, folder)


def _named(path: str, state: str, why: str, road: Roadmap, folder: str | None = None) -> Skipped:
    """A `Skipped` with the step, regime and seed that the folder's name and its config.yaml tell."""
    match = _RUN_NAME.fullmatch(os.path.basename(path))
    facts: dict[str, Any] = {}
    if match:
        facts = {"step": match["label"], "regime": match["regime"], "seed": int(match["seed"])}
    if folder is not None:
        try:
            config = read_mapping(Path(folder, "config.yaml"))
            told = {key: config[key]["name"] for key in ("budget", "data")}
            if "step" in config:
                told["step"] = _step_of(config, road)
            facts |= {key: value for key, value in told.items() if isinstance(value, str | None)}
        except MALFORMED:
            pass  # the folder's name has to do
    return Skipped(path, state, why, **facts)


def _step_of(config: dict[str, Any], road: Roadmap) -> str | None:
    """The step of a roadmap at which the run of a config.yaml is, if it is at one of any."""
    if config["step"] is None or "changes" not in config:
        return config["step"]
    held, idle = (frozenset(config.get(key) or ()) for key in ("changes", "idle"))
    return step_of(config["recipe"]["name"], held, idle, road)


def _one_line(message: object) -> str:
    text = " ".join(str(message).split())
    return text if len(text) <= 300 else text[:297] + "..."


def _frame(rows: dict[str, tuple[Any, ...]]) -> pd.DataFrame:
    frame = pd.DataFrame.from_records(list(rows.values()), columns=list(COLUMNS))
    for name in NUMBERS:
        frame[name] = pd.to_numeric(frame[name]).astype(np.float64)
    return frame


def _without_doubles(runs: pd.DataFrame) -> tuple[pd.DataFrame, tuple[Skipped, ...]]:
    """Keep one of several copies of a run; copies that disagree are all left out, since nothing says which is right."""
    double = runs.duplicated("run_id", keep=False)
    if not double.any():
        return runs, ()
    skipped, drop = [], []
    for _, copies in runs[double].groupby("run_id", sort=False):
        first = copies.iloc[0]
        agree = copies["top1"].nunique(dropna=False) == 1 and copies["status"].nunique() == 1
        for index, copy in copies.iloc[1 if agree else 0 :].iterrows():
            why = f"a copy of {first['path']}" if agree else "copies of this run hold different results; none is used"
            skipped.append(Skipped(copy["path"], "duplicate", why, copy["step"], copy["regime"]))
            drop.append(index)
    return runs.drop(index=drop).reset_index(drop=True), tuple(skipped)
