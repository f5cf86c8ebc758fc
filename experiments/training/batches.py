"""Batch arithmetic: how an effective batch is divided over ranks and accumulation."""

from dataclasses import dataclass

from experiments.config.settings import Batch
from experiments.data import steps_per_epoch


@dataclass(frozen=True)
class BatchLayout:
    """effective batch = ranks x micro batch x accumulation; `steps` optimizer steps make an epoch."""

    size: int
    micro: int
    ranks: int
    accumulation: int
    steps: int

    @classmethod
    def of(cls, batch: Batch, train_size: int, ranks: int) -> "BatchLayout":
        """Divide a batch over `ranks`; ConfigError with the nearest batch sizes that fit when it does not."""
        steps = steps_per_epoch(train_size, batch.size)
        return cls(batch.size, batch.micro, ranks, batch.accumulation(ranks), steps)

    def micro_batches(self, rank: int) -> range:
        """Indices, within an optimizer step, of the micro batches that `rank` computes."""
        return range(rank * self.accumulation, (rank + 1) * self.accumulation)

    def __str__(self) -> str:
        ranks = "1 rank" if self.ranks == 1 else f"{self.ranks} ranks"
        return f"batch {self.size} = {ranks} x {self.micro} images x {self.accumulation} accumulated"
