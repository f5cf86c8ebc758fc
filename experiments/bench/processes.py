"""Programs in fresh processes, in turns: what they report and how much memory all their processes held.

A program writes its report with `Clock`; its clock starts when this process starts it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.bench.clock import REPORT, STARTED
from experiments.bench.timing import turns

ROOT = Path(__file__).parents[2]
POLL = 0.05  # seconds between two looks at the memory


def alternate(
    programs: Mapping[str, Sequence[str]], rounds: int, environment: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """Reports of each program's runs: every program once per round, in an order shuffled for each round."""
    reports: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    for name in turns(list(programs), rounds):
        reports[name].append(run(programs[name], environment))
    return reports


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Run Python with these arguments; its report with the `seconds` until it ended and its `peak_bytes`.

    Raises RuntimeError with the end of its output where it fails. Whatever it leaves behind is killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        report, output = Path(folder) / "report.json", Path(folder) / "output"
        began = time.monotonic()
        told = {**os.environ, **environment, REPORT: str(report), STARTED: repr(began), "PYTHONPATH": str(ROOT)}
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *arguments], env=told, cwd=folder, stdout=file, stderr=file, start_new_session=True
            )
        try:
            peak = _watch(process)
            seconds = time.monotonic() - began
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            raise RuntimeError(f"{' '.join(arguments)} failed: {output.read_text()[-2000:]}")
        found = json.loads(report.read_text()) if report.exists() else {}
    return {**found, "seconds": seconds, "peak_bytes": peak}


def _watch(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end; returns the most bytes that the process and its descendants held at once."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, _held(process.pid))
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL)
    return peak


def _held(pid: int) -> int:
    """Bytes of a process and its descendants, pages that several share counted once; 0 where that is not known."""
    total = 0
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += 1024 * int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(_held(int(child)) for child in (task / "children").read_text().split())
    return total
