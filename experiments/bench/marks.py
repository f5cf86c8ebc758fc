"""How a program in a fresh process tells the benchmark when it got where. Imports the standard library only."""

import json
import os
import time
from pathlib import Path
from typing import Any

REPORT, STARTED = "BENCH_REPORT", "BENCH_STARTED"


class Marks:
    """Seconds from the start of the process, as its parent saw it, to each named moment."""

    def __init__(self) -> None:
        self._began = float(os.environ[STARTED])
        self._seconds: dict[str, float] = {}

    def __call__(self, name: str) -> None:
        """Remember that this moment is now, unless it has been before."""
        self._seconds.setdefault(name, time.monotonic() - self._began)

    def write(self, **values: Any) -> None:
        """Write the report: the moments and these values."""
        Path(os.environ[REPORT]).write_text(json.dumps({**self._seconds, **values}))
