"""Failures of the machine, which libraries report in many ways, as errors of ours: one place that knows their words."""

import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch.distributed as dist

from experiments.errors import LostRankError, ResourceError
from roadmap.errors import UserError, first_line, of_machine

WORKER = re.compile(r"DataLoader worker \(pid.*\) (exited unexpectedly|is killed by signal)")
RANK = re.compile("gloo|nccl", re.IGNORECASE)


@contextmanager
def machine_failures(verdict: Callable[[Exception], Exception] = lambda error: error) -> Iterator[None]:
    """Raise what goes wrong inside as ResourceError, LostRankError or StorageError where it is the machine's doing.

    `verdict` knows what a LostRankError comes from: it names the rank, or is the error by which that rank has ended.
    Other errors pass. What the failed frames held is let go: a multirun keeps the error, and with its frames the very
    memory that ran out.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        failure = _failure_of_machine(error)
        if failure is None:
            raise
        traceback.clear_frames(error.__traceback__)
        raise (verdict(failure) if isinstance(failure, LostRankError) else failure) from None


def _failure_of_machine(error: Exception) -> UserError | None:
    """The error of ours that says the same in one line; None for a bug."""
    said = first_line(error)
    failure = of_machine(error)
    if isinstance(failure, ResourceError):
        return ResourceError(f"{failure}; grad_checkpointing=true takes less and is the same run")
    if isinstance(error, RuntimeError) and WORKER.search(said):
        return ResourceError(
            f"{said}, often because memory or /dev/shm ran out; fewer workers take less and are the same run"
        )
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and RANK.search(str(error))):
        return LostRankError(
            "another rank of this run is lost, and its own message says why:"
            " the same command continues from the last checkpoint"
        )
    return failure
