"""`python -m experiments bench`: measure, print, record."""

import argparse
from typing import Any, Protocol

import torch

from experiments.bench import (
    attribution,
    kernels,
    large,
    looking,
    loop,
    many,
    numerics,
    profiler,
    report,
    small,
    start,
    step,
)
from experiments.bench.options import add_place
from experiments.bench.results import record
from experiments.runtime.device import arithmetic, pick_device
from roadmap.show.tables import as_table

Rows = list[dict[str, Any]]


class Kind(Protocol):
    """What a module that measures offers."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare its options."""
        ...

    def run(self, options: argparse.Namespace, device: torch.device) -> tuple[str, Rows]:
        """Measure; returns the benchmark's name and its rows."""
        ...


KINDS: dict[str, Kind] = {
    "step": step,
    "loop": loop,
    "small": small,
    "large": large,
    "start": start,
    "many": many,
    "profile": profiler,
    "kernels": kernels,
    "numerics": numerics,
    "looking": looking,
    "attribution": attribution,
}
UNRECORDED = ("kind", "command", "device", "out", "threads", "rows")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmarks and their options."""
    kinds = parser.add_subparsers(dest="kind", required=True)
    for name, module in KINDS.items():
        own = kinds.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(own)
        add_place(own)
    report.add_arguments(kinds.add_parser("table", help=report.HELP, description=report.HELP))


def run(options: argparse.Namespace) -> int:
    """Run one benchmark, print its rows and record them; returns the exit code."""
    if options.kind == "table":
        return report.run(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    with arithmetic(getattr(options, "precision", "fp32"), deterministic=False):  # as in a run
        name, rows = KINDS[options.kind].run(options, device)
    conditions = {key: value for key, value in vars(options).items() if key not in UNRECORDED and value is not None}
    print(as_table(_aligned(rows)))
    print(f"\nrecorded as {name!r} in {record(options.out, device, name, conditions, rows)}")
    return 0


def _aligned(rows: Rows) -> Rows:
    """Rows with the same columns each, numbers as short text."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: report.cell(row.get(key, "")) for key in columns} for row in rows]
