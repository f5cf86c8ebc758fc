"""`python -m experiments verify RUNS`: whether the final files of every finished run are what its record sealed.

A line for each bad file, and one that counts. Everything is read anew: no time stamp shows what a disk has turned over.
"""

import argparse
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from experiments.config.identity import ids_follow
from experiments.errors import StorageError
from experiments.store.result import read_record
from experiments.store.run_dir import DEPTH, NO_RUNS, RunDir, read_lines
from experiments.strict_yaml import read_mapping
from experiments.studies.frozen import read_study
from roadmap.escape import visible
from roadmap.seals import RECORD, SEALED, SMALL, WEIGHTS, differing

STUDIES = "studies"
UNFINISHED = "without a result"


class Fault(NamedTuple):
    """A file that is not what it should be."""

    path: Path
    why: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("runs", type=Path, nargs="?", default=Path("runs"), help="runs_dir or one run (default: runs)")
    parser.add_argument("--weights", action="store_true", help="also the weights: reads every byte of them")


def run(options: argparse.Namespace) -> int:
    """Print what is wrong; returns 0, or 5 where anything is. Raises StorageError: there is no such folder."""
    if not options.runs.is_dir():
        raise StorageError(f"{options.runs}: no such folder; runs lie in runs_dir (default: runs)")
    counts, bad = Counter[str](), 0
    for fault in faults_below(options.runs, options.weights, counts):
        bad += 1
        print(visible(f"{fault.path}: {fault.why}"))
    print(_summary(counts, bad, options.weights))
    return StorageError.exit_code if bad else 0


def faults_below(runs: Path, weights: bool, counts: "Counter[str]") -> Iterator[Fault]:
    """Every bad file below a folder of runs; `counts` gets the runs of each kind and the weights that are not here."""
    for folder in _run_folders(runs):
        counts["runs"] += 1
        if os.path.lexists(folder / RECORD):
            yield from _faults_of(folder, weights, counts)
        else:
            counts[UNFINISHED] += 1
    for path in sorted((runs / STUDIES).glob("*.json")):
        try:
            read_study(path)
        except StorageError as error:
            yield Fault(path, str(error).removeprefix(f"{path}: "))


def _run_folders(folder: Path, depth: int = 0) -> Iterator[Path]:
    """The folders that hold a run, at any of a few depths."""
    if any(os.path.lexists(folder / name) for name in (RECORD, "config.yaml")):
        yield folder
        return
    try:
        with os.scandir(folder) as scan:
            below = sorted(entry.name for entry in scan if entry.is_dir())
    except OSError as error:
        raise StorageError(f"cannot read {folder}: {error.strerror or error}") from None
    for name in below:
        if depth < DEPTH and not name.startswith(".") and name not in NO_RUNS:
            yield from _run_folders(folder / name, depth + 1)


def _faults_of(folder: Path, weights: bool, counts: "Counter[str]") -> Iterator[Fault]:
    """The bad files of a run that has a record."""
    path = folder / RECORD
    with suppress(StorageError):  # an archive may be read-only
        RunDir(folder).finish()  # where a kill came between the seal and the files that go with it
    try:
        record, seals = read_record(path)
    except ValueError as error:
        counts["damaged"] += 1
        yield Fault(path, str(error).removeprefix(f"{path}: "))
        return
    if seals is None:
        counts["unsealed"] += 1
        yield from _contradictions(RunDir(folder), record)
        return
    counts["sealed"] += 1
    for key in WEIGHTS:
        counts["not here"] += key in seals and not any((folder / name).exists() for name in SEALED[key])
    for name, problem in differing(folder, seals, tuple(SEALED) if weights else SMALL):
        yield Fault(folder / name, problem)


def _contradictions(place: RunDir, record: dict[str, object]) -> Iterator[Fault]:
    """What the files beside a record from before there were seals say against it."""
    try:
        config = read_mapping(place.config)
        ids = {key: config[key] for key in ("run_id", "config_id")}
        if any(record[key] != own for key, own in ids.items()):
            yield Fault(place.config, "is of another run than its record")
        elif not ids_follow({**config, "init_from": config.get("init_weights")}):
            yield Fault(place.config, "its run_id is not that of what it says was asked for")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if place.config.exists():
            yield Fault(place.config, f"is no config of a run ({' '.join(str(error).split())[:100]})")
    try:
        lines = read_lines(place.metrics)
        if lines and (len(lines), lines[-1].get("top1")) != (record["epochs"], record["top1"]):
            yield Fault(place.metrics, "ends otherwise than its record")
    except ValueError as error:
        yield Fault(place.metrics, str(error).removeprefix(f"{place.metrics}: "))


def _summary(counts: "Counter[str]", bad: int, weights: bool) -> str:
    kinds = [f"{counts[kind]} {kind}" for kind in ("sealed", "unsealed", "damaged", UNFINISHED) if counts[kind]]
    away = f"{counts['not here']} not here" if counts["not here"] else "all here"
    how = "read" if weights else "not read (--weights reads them)"
    looked = f"weights: {f'{away}, {how}' if counts['sealed'] else 'none sealed'}"
    runs = f"{counts['runs']} run{'s' * (counts['runs'] != 1)}"
    return f"{runs}: {', '.join(kinds) or 'none'}; {looked}; {bad} bad files"
