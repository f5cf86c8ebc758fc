"""How long it takes to look at many finished runs: `status`, the analysis' reading, and `verify`."""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from experiments.bench import processes
from experiments.bench.made_up import write_runs
from experiments.bench.options import at_least

HELP = "reading and verifying many finished runs, for status, the analysis and verify"
OLD = 1e9  # seconds since 1970: what has only just changed is kept in no cache
# command -> what it imports, and the call that is timed; {runs} is the folder
CALLS = {
    "status": (
        "from experiments.commands.status import cache_file, rows",
        "assert len(rows({runs}, None, cache_file({runs}))) == {count}",
    ),
    "analysis": (
        "from analysis.collect import collect; from experiments.store.cache import cache_file",
        "assert len(collect({runs}, cache_file({runs})).runs) == {count}",
    ),
    "verify": (
        "from collections import Counter; from experiments.commands.verify import faults_below",
        "assert not list(faults_below({runs}, False, Counter()))",
    ),
}
PROGRAM = """
from pathlib import Path
from experiments.bench.clock import Clock
clock = Clock()
{imports}
clock("imported")
{call}
clock("done")
clock.write()
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--runs", type=int, default=2000, help="made-up runs (default: 2000)")


def run(options: argparse.Namespace, device: torch.device) -> tuple[str, list[dict[str, Any]]]:
    """Seconds beyond the imports, of a first look without a cache and of the next; `verify` has no cache."""
    at_least("--runs", options.runs)
    with tempfile.TemporaryDirectory() as name:
        runs = Path(name) / "runs"
        write_runs(runs, options.runs)
        for path in runs.rglob("*"):
            os.utime(path, (OLD, OLD))
        rows = [
            _line(command, look, options.runs, runs, Path(name) / command)
            for command in CALLS
            for look in ("cold", "warm")[: 1 if command == "verify" else 2]
        ]
    return "looking", rows


def _line(command: str, look: str, count: int, runs: Path, cache: Path) -> dict[str, Any]:
    imports, call = CALLS[command]
    code = PROGRAM.format(imports=imports, call=call.format(runs=f"Path({str(runs)!r})", count=count))
    found = processes.run(["-c", code], {"ROADMAP_CACHE": str(cache), "OMP_NUM_THREADS": "1"})
    return {
        "command": command,
        "look": look,
        "runs": count,
        "seconds": found["done"] - found["imported"],
        "seconds_of_imports": found["imported"],
    }
