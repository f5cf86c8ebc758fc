"""A contender in a process of its own, with the memory allocator as it is in use: it takes a step whenever it is told.

`python -m experiments.bench.apart TASK` is that process. A run of ours on a CPU keeps freed memory
(`experiments.data.in_memory`), which the peers' programs do not do; within one process both would have it or neither.
"""

import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Any

import torch

from experiments.bench.contenders import PEERS, make_step, network_of

READY = "ready"


class Apart:
    """The process of one contender; calling it takes one training step there and waits for its end."""

    def __init__(self, **task: Any) -> None:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        self._name = task["name"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "experiments.bench.apart", json.dumps(task)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env={**os.environ, "PYTHONPATH": root},
        )  # fmt: skip

    def __enter__(self) -> "Apart":
        self._wait()  # until the network is built, so that nobody is timed meanwhile
        return self

    def __call__(self) -> None:
        """Take one step."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._wait()

    def _wait(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != READY:
            raise RuntimeError(f"the process of {self._name} has ended")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Build the network of the task that the command line holds, then take a step for every line of input."""
    task = json.loads(sys.argv[1])
    from experiments.data.in_memory import keep_freed_memory
    from experiments.runtime.device import arithmetic, synchronize

    torch.set_num_threads(task["threads"])
    device = torch.device(task["device"])
    if task["name"] not in PEERS and device.type == "cpu":
        keep_freed_memory()
    how = (task["size"], task["batch"], device, task["precision"], task["compile"])
    step = make_step(network_of(task["name"], task["size"]), *how)
    with arithmetic(task["precision"], deterministic=False):
        print(READY, flush=True)
        for _ in sys.stdin:
            step()
            synchronize(device)
            print(READY, flush=True)


if __name__ == "__main__":
    main()
