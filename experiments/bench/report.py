"""The recorded figures as Markdown: aims for the README, speed for docs/speed.md, attribution for docs/studies.md."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.bench.targets import TARGETS, Target
from roadmap.show.markers import update_file
from roadmap.show.tables import as_markdown

HELP = "what is recorded, as Markdown"
# What a row is about comes first.
NAMES = ("network", "convolution", "loop", "pipeline", "large images", "start", "study", "profile")
CONDITIONS = ("batch", "images", "rounds", "seeds", "starts", "launcher", "steps", "threads", "workers", "data")
ATTRIBUTION = "attribution"  # is no matter of speed: docs/studies.md has its table
EMPTY = "Nothing has been measured yet: `python -m experiments bench step` records the first figures."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--readme", type=Path, metavar="FILE", help="put the aims between a document's bench markers")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put every table between a document's bench markers")
    parser.add_argument(
        "--studies", type=Path, metavar="FILE", help="put the table of attribution between a document's markers"
    )
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="folder of <device>.json")


def run(options: argparse.Namespace) -> int:
    """Write into the documents that are named, or print everything; returns the exit code."""
    if options.readme:
        update_file(options.readme, {"bench": aims(options.out)})
    if options.page:
        update_file(options.page, {"bench": tables(options.out)})
    if options.studies:
        update_file(options.studies, {ATTRIBUTION: attribution(options.out)})
    if not (options.readme or options.page or options.studies):
        print(f"{aims(options.out)}\n\n{tables(options.out)}\n\n{attribution(options.out)}")
    return 0


def aims(folder: Path) -> str:
    """One line per target and device: the ratio with its range, the aim, and whether it is reached."""
    rows = [line for target in TARGETS for line in _against(target, folder)]
    return as_markdown(rows)


def _against(target: Target, folder: Path) -> list[dict[str, str]]:
    found = []
    for device, name, benchmark in _benchmarks(folder):
        for row in benchmark["rows"] if name == target.benchmark else ():
            if target.covers(row):
                text, value = target.measured(row)
                found.append(_aim(target, text, device, "yes" if target.reached(value) else "no"))
    return found or [_aim(target, "not measured", "", "")]


def _aim(target: Target, measured: str, device: str, reached: str) -> dict[str, str]:
    return {"what": target.what, "measured": measured, "aim": target.aim, "reached": reached, "on": device}


def tables(folder: Path) -> str:
    """Every benchmark of speed on every device in `folder`: conditions, then a row per contender."""
    parts = []
    for device, name, benchmark in _benchmarks(folder):
        if name == ATTRIBUTION:
            continue
        parts.append(f"**{name}** on {device} ({_conditions(benchmark)})")
        shown = [_shown(row) for row in benchmark["rows"]]
        columns = dict.fromkeys(key for row in shown for key in row)
        parts.append(as_markdown([{key: row.get(key, "") for key in columns} for row in shown]))
    return "\n\n".join(parts) or EMPTY


def attribution(folder: Path) -> str:
    """The table of `bench attribution`: of the first device, since the figures are the same on all."""
    for _, name, benchmark in _benchmarks(folder):
        if name == ATTRIBUTION:
            rows = [_shown(row) for row in benchmark["rows"]]
            first = [key for key in ("game", "players", "noise") if key in rows[0]]
            errors = [key for key in rows[0] if "error" in key or "below" in key]
            columns = dict.fromkeys([*first, *errors, *rows[0]])
            return as_markdown([{key: row[key] for key in columns} for row in rows])
    return EMPTY


def _benchmarks(folder: Path) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(device, name, content) of everything that is recorded."""
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        for name, benchmark in sorted(content["benchmarks"].items()):
            yield content["device"], name, benchmark


def _conditions(benchmark: Mapping[str, Any]) -> str:
    conditions, versions = benchmark["conditions"], benchmark["versions"]
    told = [f"{key} {conditions[key]}" for key in CONDITIONS if key in conditions]
    return ", ".join([*told, f"torch {versions['torch']}", f"timm {versions['timm']}"])


def _shown(row: Mapping[str, Any]) -> dict[str, str]:
    """A row with its ratio and the range over rounds in one cell, other numbers to three digits."""
    shown = {key: cell(value) for key, value in row.items() if key not in ("ratio_low", "ratio_high")}
    if "ratio" in row:
        shown["ratio"] = f"{row['ratio']:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})"
    first = [key for key in NAMES if key in shown]
    return {key.replace("_", " "): shown[key] for key in [*first, *(key for key in shown if key not in first)]}


def cell(value: Any) -> str:
    """A number to three digits, anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
