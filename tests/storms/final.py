"""Final files: bits flipped, parts lost, files swapped between finished runs, each seen by every reader.

`verify` must name the file with exit code 5, whoever reads the file must refuse it in one line, and status and the
analysis must leave the run out although their cache knows it whole. The other run, where it is untouched, stays good.
For contrast, what the same readers make of the same damages when nothing is sealed.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from analysis.collect import collect
from experiments.bench.made_up import settings_of, write_run
from experiments.commands import status, verify
from experiments.store.result import read_result
from experiments.store.run_dir import RunDir
from roadmap.pretrained import Pretrained
from roadmap.seals import RECORD
from roadmap.weights import find_weights
from tests.storms import fleet
from tests.storms.damage import damaged_bytes

SMALL = (RECORD, "metrics.jsonl", "config.yaml", "config.json")
WEIGHTS = ("last.safetensors", "ema.safetensors")
FILES = (*SMALL, *WEIGHTS)
DAMAGES = ("cut", "zeroed page", "longer file", "overwritten page")
OLD = 1e9  # seconds since 1970: the cache keeps what has not only just changed
FAULT = 5


def _flipped(run: Path, other: Path, random_: random.Random) -> set[str]:
    """One bit of one file, the smaller files as often as the larger."""
    name = random_.choice(FILES)
    content = bytearray((run / name).read_bytes())
    content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
    (run / name).write_bytes(content)
    return {name}


def _damaged(run: Path, other: Path, random_: random.Random) -> set[str]:
    name = random_.choice(FILES)
    content = damaged_bytes((run / name).read_bytes(), random_.choice(DAMAGES), random_)
    (run / name).write_bytes(content)
    return {name}


def _swapped(run: Path, other: Path, random_: random.Random) -> set[str]:
    """The other run's file in its place, or several of them."""
    names = random_.sample(FILES, random_.choice((1, 1, 2, 3)))
    for name in names:
        (run / name).write_bytes((other / name).read_bytes())
    return {RECORD} if RECORD in names else set(names)


def _all_of_another(run: Path, other: Path, random_: random.Random) -> set[str]:
    """The other run as a whole under this run's name."""
    for name in FILES:
        (run / name).write_bytes((other / name).read_bytes())
    return {RECORD}


def _exchanged(run: Path, other: Path, random_: random.Random) -> set[str]:
    """The two files of weights of one run, each in the other's place."""
    first, second = ((run / name).read_bytes() for name in WEIGHTS)
    (run / WEIGHTS[0]).write_bytes(second)
    (run / WEIGHTS[1]).write_bytes(first)
    return set(WEIGHTS)


def _edited(run: Path, other: Path, random_: random.Random) -> set[str]:
    """A value that somebody would have liked better."""
    record = json.loads((run / RECORD).read_text())
    choices: dict[str, Any] = {"top1": 99.0, "seed": record["seed"] + 1, "loss": 0.01, "epochs": 3}
    key = random_.choice(sorted(choices))
    (run / RECORD).write_text(json.dumps(record | {key: choices[key]}, indent=1, sort_keys=True) + "\n")
    return {RECORD}


KINDS: dict[str, tuple[Callable[[Path, Path, random.Random], set[str]], int]] = {
    "bit flip": (_flipped, 12),
    "damaged part": (_damaged, 3),
    "another run's files": (_swapped, 3),
    "another run as a whole": (_all_of_another, 1),
    "exchanged weights": (_exchanged, 1),
    "edited record": (_edited, 1),
}


def write_template(runs: Path) -> None:
    """Two finished runs that differ in their seed, with weights and averaged weights of their own."""
    for seed in range(2):
        torch.manual_seed(seed)
        weights = {name: safetensors.torch.save({"head.fc.weight": torch.randn(64, 128)}) for name in WEIGHTS}
        write_run(settings_of(runs, "+step=kernel_7", f"seed={seed}"), weights)
    for path in runs.rglob("*"):
        os.utime(path, (OLD, OLD))


def trial(index: int, seed: int, template: Path, kind: str | None = None) -> tuple[str, str | None]:
    """One damage: its kind, and what went wrong (None: every reader saw it)."""
    random_ = random.Random(f"final {seed} {index}")
    (drawn,) = random_.choices(list(KINDS), [weight for _, weight in KINDS.values()])
    kind = kind or drawn
    with tempfile.TemporaryDirectory(prefix="final-") as name:
        runs, caches = Path(name) / "runs", Path(name) / "caches"
        shutil.copytree(template, runs)
        run, other = random_.sample(sorted(runs.iterdir()), 2)
        caches.mkdir()
        status.rows(runs, None, caches / "runs")
        collect(runs, caches / "runs")
        bad = KINDS[kind][0](run, other, random_)
        problems = [*_verified(runs, run, bad), *_read(run, bad), *_shown(runs, run, other, bad, caches / "runs")]
    return kind, f"{kind} in {sorted(bad)}: {'; '.join(problems)}" if problems else None


def _verified(runs: Path, run: Path, bad: set[str]) -> list[str]:
    """What `verify --weights` says otherwise than that exactly these files of this run are bad."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = verify.run(argparse.Namespace(runs=runs, weights=True))
    *lines, _ = out.getvalue().splitlines()
    named = [line.partition(": ")[0] for line in lines]
    if code != FAULT or sorted(named) != sorted(str(run / name) for name in bad):
        return [f"verify exits with {code} and names {named}"]
    return []


def _read(run: Path, bad: set[str]) -> list[str]:
    """Readers that take a bad file without a word."""
    readers: dict[str, Callable[[], Any]] = {
        "the weights": lambda: find_weights(run),
        "the averaged weights": lambda: find_weights(run, "ema"),
        "what describes them": lambda: Pretrained.beside(run),
        "the record": lambda: read_result(run / RECORD),
    }
    wanted = {
        "the weights": {WEIGHTS[0], "config.json", RECORD},
        "the averaged weights": {WEIGHTS[1], "config.json", RECORD},
        "what describes them": {"config.json", RECORD},
        "the record": set(SMALL),
    }
    silent = []
    for what, read in readers.items():
        try:
            read()
        except ValueError as error:
            if "\n" in str(error):
                silent.append(f"{what}: several lines")
        else:
            if bad & wanted[what]:
                silent.append(f"{what}: read without a word")
    return silent


def _shown(runs: Path, run: Path, other: Path, bad: set[str], cache: Path) -> list[str]:
    """What status and the analysis show otherwise than they should; neither reads weights."""
    expected = "damaged" if bad & set(SMALL) else "finished"
    shown = {row["run"]: row["state"] for row in status.rows(runs, None, cache)}
    problems = [] if shown == {run.name: expected, other.name: "finished"} else [f"status shows {shown}"]
    if RunDir(run).state() != expected:
        problems.append(f"a study sees it as {RunDir(run).state()}")
    found = collect(runs, cache)
    counted = set(found.runs["path"])
    if counted != {other.name, *([run.name] if expected == "finished" else [])}:
        problems.append(f"the analysis counts {counted}")
    return problems


def unsealed(index: int, seed: int, template: Path) -> str:
    """What a reader without seals makes of the same damage: refused, or read without a word."""
    random_ = random.Random(f"final {seed} {index}")
    (kind,) = random_.choices(list(KINDS), [weight for _, weight in KINDS.values()])
    with tempfile.TemporaryDirectory(prefix="final-") as name:
        runs = Path(name) / "runs"
        shutil.copytree(template, runs)
        run, other = random_.sample(sorted(runs.iterdir()), 2)
        KINDS[kind][0](run, other, random_)
        try:
            json.loads((run / RECORD).read_text())
            json.loads((run / "config.json").read_text())
            [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            [safetensors.torch.load_file(run / weights) for weights in WEIGHTS]
        except (ValueError, safetensors.SafetensorError):
            return "refused"
    return "read without a word"


def run(count: int, seed: int = 0, jobs: int = 2) -> dict[str, Any]:
    """`count` damages of final files, and the same read as JSON and safetensors alone."""
    with tempfile.TemporaryDirectory(prefix="final-") as name:
        template = Path(name) / "runs"
        write_template(template)
        results = fleet.every(partial(trial, seed=seed, template=template), count, jobs, "final")
        verdicts = Counter(
            fleet.every(partial(unsealed, seed=seed, template=template), len(results), jobs, "the same without seals")
        )
    failures = [problem for _, problem in results if problem]
    return {
        "passed": len(results) - len(failures),
        "total": len(results),
        "what": "flipped, damaged, edited and swapped final files of finished runs: named by `verify`, refused by every"
        " reader, left out by status and analysis in spite of their cache",
        "kinds": dict(Counter(kind for kind, _ in results)),
        "contrast": {f"JSON and safetensors alone: {verdict}": number for verdict, number in sorted(verdicts.items())},
        "failures": fleet.listed(failures),
    }
