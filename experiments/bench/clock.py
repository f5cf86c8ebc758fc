"""How a program in a fresh process tells the benchmark when it got where. Torch is imported at its end, if at all."""

import json
import os
import time
from pathlib import Path
from typing import Any

REPORT, STARTED = "BENCH_REPORT", "BENCH_STARTED"


class Clock:
    """Seconds from the start of the process, as its parent saw it, to each named moment."""

    def __init__(self) -> None:
        self._began = float(os.environ[STARTED])
        self._seconds: dict[str, float] = {}

    def __call__(self, name: str) -> None:
        """Remember that this moment is now, unless it has been before."""
        self._seconds.setdefault(name, time.monotonic() - self._began)

    def end(self, name: str) -> None:
        """Mark the moment at which what a GPU was given is done, too; write the report and end the process at once."""
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self(name)
        self.write()
        os._exit(0)  # threads and workers are of no interest any more; the process group is killed

    def write(self, **values: Any) -> None:
        """Write the report: the moments and these values."""
        Path(os.environ[REPORT]).write_text(json.dumps({**self._seconds, **values}))
