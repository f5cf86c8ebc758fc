"""Which images of a data set could not be read: each counts once over all ranks and starts of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from experiments.runtime.distributed import Ranks

TRAIN, EVALUATION = "train", "evaluation"


class Damage:
    """The unreadable images that were met, by split and position in it. A part of a run's state."""

    def __init__(self, train_size: int = 0, eval_size: int = 0) -> None:
        self._met = {
            TRAIN: torch.zeros(train_size, dtype=torch.bool),
            EVALUATION: torch.zeros(eval_size, dtype=torch.bool),
        }

    def add(self, split: str, image: int) -> bool:
        """Note an image; whether it is met for the first time."""
        new = not self._met[split][image]
        self._met[split][image] = True
        return new

    def images(self, split: str) -> list[int]:
        """Positions in a split, ascending."""
        positions: list[int] = self._met[split].nonzero().flatten().tolist()
        return positions

    @property
    def count(self) -> int:
        """How many, of both splits."""
        return sum(int(met.sum()) for met in self._met.values())

    def share(self, ranks: Ranks) -> None:
        """Let every rank know what any has met; all ranks call it at the same point."""
        if ranks.any(self.count > 0):
            numbers = [met.int() for met in self._met.values()]
            ranks.sum(numbers)
            self._met = {split: number > 0 for split, number in zip(self._met, numbers, strict=True)}

    def record(self) -> dict[str, list[int]]:
        """What `restore` puts back, as JSON can hold it; empty where there is no damage."""
        return {split: self.images(split) for split in self._met if self._met[split].any()}

    def restore(self, record: Mapping[str, Sequence[Any]]) -> None:
        """Put a record back. Raises ValueError when it is not one of this data set."""
        for split, met in self._met.items():
            met.zero_()
            positions = list(record.get(split, ()))
            if not all(type(image) is int and 0 <= image < len(met) for image in positions):
                raise ValueError(f"unreadable images that the {split} split does not have")
            met[positions] = True
