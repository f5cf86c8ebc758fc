"""The storms of docs/reliability.md: `python -m tests.storms SUITE [--count N] [--out FILE.json]`.

Each suite prints one row, writes its figures as JSON and exits with 1 when anything failed. `all` runs every suite at
its full size into a folder, `report` puts the figures of results/storms/*.json into docs/reliability.md.
"""

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.storms import fleet, report

# Full sizes; CI runs fewer (tests/storms/test_storms.py).
SUITES = {
    "damage": 5000,
    "final": 10_000,
    "faults": 250,
    "hostile": 500,
    "records": 400,
    "kill": 200,
    "resume": 420,
    "controls": 20,
    "signals": 300,
    "owners": 500,
    "starts": 50,
    "studies": 200,
}


def run_suite(name: str, count: int, seed: int, jobs: int, minutes: float | None) -> dict[str, Any]:
    """Run one suite; its figures with the command that repeats them."""
    began = time.monotonic()
    fleet.preload()
    fleet.limit(minutes)
    figures = importlib.import_module(f"tests.storms.{name}").run(count, seed=seed, jobs=jobs)
    command = f"python -m tests.storms {name} --count {figures['total']} --seed {seed}"
    return {"suite": name, **figures, "seconds": round(time.monotonic() - began), "command": command}


def main() -> int:
    """The exit code: 0 when every trial of every suite passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.storms", description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=[*SUITES, "all", "report"])
    parser.add_argument("--count", type=int, help="trials (default: the full size)")
    parser.add_argument("--out", type=Path, help="JSON file for the figures; with `all` a folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--minutes", type=float, help="begin no trial later than this after a suite's first")
    arguments = parser.parse_args()
    if arguments.suite == "report":
        report.update()
        return 0
    failed = False
    for name in SUITES if arguments.suite == "all" else [arguments.suite]:
        figures = run_suite(name, arguments.count or SUITES[name], arguments.seed, arguments.jobs, arguments.minutes)
        print(report.row(figures), flush=True)
        for failure in figures["failures"]:
            print(f"  {failure}", file=sys.stderr)
        failed |= figures["passed"] != figures["total"]
        if arguments.out:
            target = arguments.out / f"{name}.json" if arguments.suite == "all" else arguments.out
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(figures, indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
