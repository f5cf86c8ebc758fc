"""One run over several processes: torchrun or SLURM tasks, DistributedDataParallel over nccl or gloo.

Every collective here is called by all ranks at the same point of the program. Files belong to rank 0; what it reads is
sent to the others as JSON and plain tensors, so the other hosts need no shared file system and nothing is unpickled.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from experiments import errors
from experiments.runtime.roll_call import RollCall, connector
from roadmap.errors import UserError

# For a rank that shows life but does not get on, such as rank 0 while it lists a data set; one that shows none is lost
# after roll_call.SILENT_SECONDS, and the death of one is noticed at once.
TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Rendezvous:
    """Where this process stands among the processes of its run, read from the environment."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    address: str = "env://"


def find_rendezvous(environment: Mapping[str, str]) -> Rendezvous:
    """The rendezvous that torchrun, or srun for its tasks, gave to this process; a single process without either."""
    if int(environment.get("WORLD_SIZE", 1)) > 1 and "RANK" in environment:
        local = int(environment.get("LOCAL_RANK", 0))
        return Rendezvous(int(environment["RANK"]), int(environment["WORLD_SIZE"]), local)
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))  # SLURM_NTASKS would also count tasks never started
    if tasks > 1 and "SLURM_PROCID" in environment:
        nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
        port = 20000 + int(environment["SLURM_JOB_ID"]) % 20000
        local = int(environment.get("SLURM_LOCALID", 0))
        return Rendezvous(int(environment["SLURM_PROCID"]), tasks, local, f"tcp://{first_host(nodes)}:{port}")
    return Rendezvous()


def first_host(nodes: str) -> str:
    """The first host of a SLURM node list: `gpu[003-007,9],cpu1` -> `gpu003`."""
    match = re.match(r"([^\[,]+)(?:\[([0-9]+)[^\]]*\]([^,\[]*))?", nodes)
    if match is None:
        raise errors.ConfigError(f"SLURM_STEP_NODELIST={nodes!r} names no host")
    return "".join(part or "" for part in match.groups())


class Ranks:
    """The processes of a run as seen by one of them; with one process every method is the identity."""

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        """`torch.distributed` must be initialised when `world_size` exceeds 1."""
        self.rank, self.world_size = rank, world_size
        self._votes: Any = dist.new_group(backend="gloo", timeout=TIMEOUT) if world_size > 1 else None
        self.roll: RollCall | None = None
        self.when_lost: Callable[[Exception], None] | None = None  # called before this process ends for another's sake
        self._vote: tuple[Any, Tensor] | None = None

    def call_roll(self, connect: Callable[[], Any]) -> RollCall:
        """Show the others life, and look whether they do (experiments.runtime.roll_call)."""
        self.roll = RollCall(self.rank, self.world_size, connect, self._lost)
        return self.roll

    def _lost(self, error: Exception) -> None:
        if self.main and self.when_lost is not None:
            self.when_lost(error)

    def verdict(self, error: Exception) -> Exception:
        """What a failed collective, as `error`, comes from; the error itself where nobody knows better."""
        return self.roll.verdict() if self.roll else error

    @property
    def main(self) -> bool:
        """Whether this rank owns the files and the console."""
        return self.rank == 0

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """`model` whose gradients are averaged over ranks; BN's running averages stay each rank's own until `mean`."""
        if self.world_size == 1:
            return model
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            model, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    @torch.no_grad()
    def mean(self, tensors: list[Tensor]) -> None:
        """Replace floating-point `tensors` (one dtype and device) by their mean over ranks, in place."""
        self._reduce(tensors, dist.ReduceOp.SUM, 1.0 / self.world_size)

    @torch.no_grad()
    def sum(self, tensors: list[Tensor]) -> None:
        """Replace `tensors` (one dtype and device) by their sum over ranks, in place."""
        self._reduce(tensors, dist.ReduceOp.SUM, 1)

    def _reduce(self, tensors: list[Tensor], operation: Any, factor: float) -> None:
        if self.world_size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat, operation)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_((part * factor).view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank."""
        if self.world_size == 1:
            return flag
        votes = torch.tensor(int(flag))
        dist.all_reduce(votes, dist.ReduceOp.MAX, group=self._votes)
        return bool(votes.item())

    def vote(self, flag: bool) -> bool:
        """Whether any rank set `flag` by its previous call: agreement at every step without waiting for one.

        The exchange runs on the CPU beside the step and is read at the next call, so that all ranks stop at the same
        step and the device is never waited for. With one rank the answer is immediate.
        """
        if self.world_size == 1:
            return flag
        answer = self.drain_vote()
        votes = torch.tensor(int(flag))
        self._vote = (dist.all_reduce(votes, dist.ReduceOp.MAX, group=self._votes, async_op=True), votes)
        return answer

    def drain_vote(self) -> bool:
        """Finish the vote under way, if there is one, and return its answer."""
        if self._vote is None:
            return False
        work, votes = self._vote
        self._vote = None
        work.wait()
        return bool(votes.item())

    def share(self, value: Any) -> Any:
        """Rank 0's `value`, which JSON can hold, on every rank."""
        if self.world_size == 1:
            return value
        text = json.dumps(value).encode() if self.main else b""
        length = torch.tensor(len(text))
        dist.broadcast(length, 0, group=self._votes)
        buffer = torch.frombuffer(bytearray(text), dtype=torch.uint8) if self.main else None
        buffer = torch.empty(int(length), dtype=torch.uint8) if buffer is None else buffer
        dist.broadcast(buffer, 0, group=self._votes)
        return json.loads(bytes(buffer.numpy()))

    def on_main(self, work: Callable[[], Any]) -> Any:
        """Run `work` on rank 0 and give its result (which JSON can hold) to all; its user error is raised on all."""
        if self.world_size == 1:
            return work()
        outcome: dict[str, Any] = {}
        if self.main:
            try:
                outcome = {"value": work()}
            except UserError as error:
                outcome = {"error": type(error).__name__, "message": str(error)}
        outcome = self.share(outcome)
        if "error" in outcome:
            raise getattr(errors, outcome["error"], UserError)(outcome["message"])
        return outcome["value"]

    def share_tensors(self, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Rank 0's named CPU `tensors` on every rank (the others pass None)."""
        if self.world_size == 1:
            return dict(tensors or {})
        mine = tensors or {}
        shapes = self.share([[name, list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in mine.items()])
        shared = {}
        for name, shape, dtype in shapes:
            tensor = mine[name].contiguous() if self.main else torch.empty(shape, dtype=getattr(torch, dtype))
            dist.broadcast(tensor, 0, group=self._votes)
            shared[name] = tensor
        return shared

    @torch.no_grad()
    def gather(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """The named tensors of every rank, in rank order, as CPU tensors on every rank."""
        gathered: list[dict[str, Tensor]] = [{} for _ in range(self.world_size)]
        for name, tensor in tensors.items():
            mine = tensor.detach().cpu().contiguous()
            parts = [torch.empty_like(mine) for _ in range(self.world_size)]
            dist.all_gather(parts, mine, group=self._votes)
            for rank, part in enumerate(parts):
                gathered[rank][name] = part
        return gathered


@contextmanager
def ranks_of(rendezvous: Rendezvous, device: torch.device) -> Iterator[Ranks]:
    """Join the processes of this run; a rank whose peer has died fails within seconds instead of waiting."""
    if rendezvous.world_size == 1:
        yield Ranks()
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, init_method=rendezvous.address, rank=rendezvous.rank, world_size=rendezvous.world_size, timeout=TIMEOUT
    )
    ranks = Ranks(rendezvous.rank, rendezvous.world_size)
    roll = ranks.call_roll(connector(rendezvous.address))
    try:
        yield ranks
    except (errors.InterruptedRun, errors.DivergedError) as error:
        # All ranks get here, but for one that has waited for its data alone (after any other error a peer may be stuck
        # as well). They leave together: a launcher that sees one process fail ends the others, and rank 0 may still be
        # closing its files.
        if not isinstance(error, errors.StoppedWaiting):
            _leave_together(ranks)
        roll.close(error)
        raise
    except BaseException as error:
        roll.close(error)
        raise
    _leave_together(ranks)
    roll.close(None)
    dist.destroy_process_group()


def _leave_together(ranks: Ranks) -> None:
    with suppress(RuntimeError):  # another rank was lost at the last moment, when all was done
        ranks.any(False)


def detected() -> Rendezvous:
    """The rendezvous of this very process."""
    return find_rendezvous(os.environ)
