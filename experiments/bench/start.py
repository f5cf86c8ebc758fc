"""From the command to the first optimizer step, in fresh processes: `python run.py` beside a script of timm's parts."""

import argparse
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from experiments.bench.options import ENDS, add_rounds, at_least, check_rounds, chosen_rows
from experiments.bench.processes import alternate
from experiments.bench.tasks import digits_settings, write_digits, write_task
from experiments.bench.timing import ratio
from roadmap.regimes import REGIMES

HELP = "time from the command to the first optimizer step on digits, beside a script of timm's parts"
LAST = "first step"
PEER = "timm's parts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--rows", default=ENDS[1])
    parser.add_argument("--regime", choices=REGIMES, default="tiny")
    add_rounds(parser)
    parser.add_argument("--workers", type=int, default=2, help="timm's worker processes; ours has none for digits")


def run(options: argparse.Namespace, device: torch.device) -> tuple[str, list[dict[str, Any]]]:
    """The ratio of both times, then where they go, part by part."""
    check_rounds(options.rounds)
    at_least("--workers", options.workers, 0)
    lines: list[dict[str, Any]] = []
    for row in chosen_rows(options.rows):
        lines += _compare(row, options, device)
    return "start", lines


def _compare(row: str, options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    threads = torch.get_num_threads()
    asked = [f"regime={options.regime}", f"threads={threads}", f"workers={options.workers}", f"device={device}"]
    asked.append("precision=fp32")  # on a GPU, too: the peer's
    settings = digits_settings(row, *asked)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_digits(folder / "digits", settings)
        ours = [
            "-m",
            "experiments.bench.our_start",
            f"+step={row}",
            *asked,
            f"runs_dir={folder / 'runs'}",
            "rerun=true",
        ]
        theirs = write_task(folder / "task.json", folder / "digits", settings, until_first_step=True)
        environment = {"OMP_NUM_THREADS": str(threads)}
        reports = alternate({"ours": ours, PEER: theirs}, options.rounds, environment)
    first = {name: [report[LAST] for report in found] for name, found in reports.items()}
    total = {"start": row, "peer": PEER, **ratio(first["ours"], first[PEER])}
    total |= {"seconds": median(first["ours"]), "peer_seconds": median(first[PEER])}
    return [total, *_parts(row, "ours", reports["ours"]), *_parts(row, PEER, reports[PEER])]


def _parts(row: str, who: str, reports: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """The median time between two marks, in the order in which they are passed."""
    marks = [name for name in sorted(reports[0], key=lambda name: reports[0][name]) if name not in OTHER]
    lines = []
    for before, mark in itertools.pairwise(["", *marks]):
        spent = median(report[mark] - report.get(before, 0.0) for report in reports)
        lines.append({"start": f"{row}, {who}: {mark}", "seconds": spent})
    return lines


OTHER = ("seconds", "peak_bytes")  # of the process, beside its marks
