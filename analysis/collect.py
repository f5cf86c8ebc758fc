"""A folder of runs -> one tidy table, with a list of everything that is not in it and why."""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import records
from analysis.planned import Pair, commands_in, orders_in, plans_in
from analysis.records import COLUMNS, NUMBERS, flatten, located, step_of
from experiments.config import identity
from experiments.errors import StorageError
from experiments.store import cache as stored
from experiments.store import result
from experiments.store.cache import Cache, Stamp, stamp_of, version_of
from experiments.store.result import read_result
from experiments.store.run_dir import DEPTH, NO_RUNS
from experiments.strict_json import read_object
from experiments.strict_yaml import read_mapping
from roadmap import UserError, seals
from roadmap.changes import FILES
from roadmap.escape import visible
from roadmap.regimes import REGIMES, regime
from roadmap.seals import RECORD
from roadmap.steps import DEFAULT, Roadmap

_SETTINGS = list(COLUMNS).index("settings")
# What using a value of another shape than expected may raise.
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, OSError, UserError)
_RUN_FILES = {"config.yaml", "metrics.jsonl", "error.json", "timing.jsonl"}
_REPORT_FILE = "report.html"  # a folder that holds one is an earlier answer of ours
_COMPARED = "compare.html"  # likewise
_OWN = (_REPORT_FILE, "runs.csv", "skipped.csv", "further.csv", "figures")
_OWN_STEMS = ("ladder.", "compare.")
# Rows depend on how they are made, and on what the changes and regimes are, so on the folders of one's own on the path.
_FILES = [{name: change.raw for name, change in FILES.items()}, {name: regime(name) for name in REGIMES}]
_MADE_OF = hashlib.sha256(json.dumps(_FILES).encode()).hexdigest()[:12]
_VERSION = version_of(records, stored, result, identity, seals) + _MADE_OF
# What is kept of a folder of runs: [row, whether it is sealed] by path; the nested settings that rows name by hash.
ROWS, SETTINGS = f"rows@{_VERSION}", f"settings@{_VERSION}"
_FOREVER = Stamp("", newest=0, taken=time.time_ns())
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
    unsealed: int = 0  # of `runs`, those whose records are older than seals

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
    kept = Cache(cache)
    rows: dict[str, list[Any]] = {}
    settings: dict[str, str] = {}
    skipped, from_cache, unsealed = [], 0, 0
    above = len(os.path.join(source, ""))
    for found, stamp, problem in _walk(source, source, 0):
        path = found[above:] or "."
        if stamp is None:
            skipped.append(problem if isinstance(problem, Skipped) else _unfinished(found, path, road))
            continue
        if not _is_text(path):
            skipped.append(_named(path, "foreign", "its folder's name is not UTF-8; rename it", road))
            continue
        entry = _entry(kept, path, stamp, settings)
        from_cache += entry is not None
        if entry is None:
            try:
                record = read_result(Path(found) / RECORD)
                flat, text = flatten(path, record)
            except MALFORMED as error:
                skipped.append(_named(path, "damaged", _one_line(str(error).replace(f"{found}/", "")), road))
                continue
            entry = [[flat[name] for name in COLUMNS], "seals" in record]
            settings[flat["settings"]] = text
            kept.put(ROWS, path, stamp, entry)
            kept.put(SETTINGS, flat["settings"], _FOREVER, text)
        rows[path], sealed = entry
        unsealed += not sealed
    kept.save()
    runs, doubles = _without_doubles(located(_frame(rows), road))
    plans = plans_in(source)
    planned = commands_in(plans)
    runs["command"] = [planned.get(one, own) for one, own in zip(runs["run_id"], runs["command"], strict=True)]
    return Collection(source, road, runs, tuple(skipped) + doubles, settings, orders_in(plans), from_cache, unsealed)


def _entry(kept: Cache, path: str, stamp: Stamp, settings: dict[str, str]) -> list[Any] | None:
    """What was kept of a run whose files are unchanged; its nested settings go to `settings`."""
    entry: list[Any] | None = kept.get(ROWS, path, stamp)
    if entry is None:
        return None
    key = entry[0][_SETTINGS]
    text = settings.get(key) or kept.get(SETTINGS, key, _FOREVER)
    if text is None:
        return None
    settings[key] = text
    return entry


def _is_text(path: str) -> bool:
    """Whether a path can be kept and shown: Python holds the bytes of one that is no UTF-8 as halves of pairs."""
    return os.fsencode(path).decode(errors="replace") == path


def _walk(folder: str | Path, top: Path, depth: int) -> Iterator[tuple[str, Stamp | None, Skipped | None]]:
    """Yield (path, stamp where there is a record, reason or None) of everything that is or should have been a run."""
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
        yield str(folder), stamp_of(folder), None
        return
    if depth and names & _RUN_FILES:
        yield str(folder), None, None
        return
    if depth and _REPORT_FILE in names:
        return
    runs_below = False
    for entry in entries:
        if entry.name.startswith(".") or entry.name in NO_RUNS:
            continue
        try:
            os.stat(f"{entry.path}/{RECORD}")
        except NotADirectoryError:
            if depth == 0:
                yield entry.path, None, Skipped(entry.name, "foreign", "not a run: a file beside the runs")
        except OSError:
            if entry.is_dir() and depth < DEPTH:
                runs_below = True
                yield from _walk(entry.path, top, depth + 1)
        else:
            runs_below = True
            yield entry.path, stamp_of(entry.path), None
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


def _frame(rows: dict[str, list[Any]]) -> pd.DataFrame:
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
