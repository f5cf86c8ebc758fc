"""Batch arithmetic: how an effective batch is divided over ranks and accumulation."""

from dataclasses import dataclass

from experiments.config.settings import Settings
from experiments.errors import ConfigError


@dataclass(frozen=True)
class BatchLayout:
    """effective batch = ranks x micro batch x accumulation; `steps` optimizer steps make an epoch."""

    size: int
    micro: int
    ranks: int
    accumulation: int
    steps: int

    @classmethod
    def of(cls, settings: Settings, train_size: int, ranks: int) -> "BatchLayout":
        """Divide `settings.batch` over `ranks`; ConfigError with the nearest batch sizes that fit when it does not."""
        size, micro, recipe = settings.batch.size, settings.batch.micro, settings.recipe
        if micro % 2 and (recipe.mixup > 0 or recipe.cutmix > 0):
            raise ConfigError(f"batch.micro={micro} must be even: mixup and cutmix mix images in pairs")
        if train_size < size:
            raise ConfigError(
                f"batch.size={size} is larger than the {train_size} training images of data={settings.data.name}"
            )
        return cls(size, micro, ranks, settings.batch.accumulation(ranks), train_size // size)

    def micro_batches(self, rank: int) -> range:
        """Indices, within an optimizer step, of the micro batches that `rank` computes."""
        return range(rank * self.accumulation, (rank + 1) * self.accumulation)

    def __str__(self) -> str:
        ranks = "1 rank" if self.ranks == 1 else f"{self.ranks} ranks"
        return f"batch {self.size} = {ranks} x {self.micro} images x {self.accumulation} accumulated"
