"""What the training loop sees of a data set, and the order in which it sees the images. Imports no torch."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from experiments.config.settings import Batch, Data, Recipe, Settings
from experiments.errors import ConfigError
from experiments.randomness import derive, permutation

if TYPE_CHECKING:
    from torch import Tensor


class MicroBatch(NamedTuple):
    """The images of one forward pass, on the training device."""

    images: "Tensor"  # float32 (B, C, H, W), normalised, channels_last
    labels: "Tensor"  # int64 (B,)
    step: int  # optimizer step within the epoch
    index: int  # type: ignore[assignment]  # micro batch within the step


class Pipeline(NamedTuple):
    """The part of a run's settings that its images depend on."""

    data: Data
    recipe: Recipe
    batch: Batch
    image_size: int
    seed: int
    workers: int

    @classmethod
    def of(cls, settings: Settings) -> "Pipeline":
        """That part of a run's settings."""
        return cls(*(getattr(settings, name) for name in cls._fields))


class DataSource(Protocol):
    """A data set that is ready to train on."""

    num_classes: int
    in_chans: int
    train_size: int
    eval_size: int
    class_names: tuple[str, ...]

    def train(self, epoch: int, steps: range, micro: range) -> Iterator[MicroBatch]:
        """The micro batches with an index in `micro` (this rank's share) of each optimizer step in `steps`."""
        ...

    def evaluate(self, rank: int = 0, world_size: int = 1) -> Iterator[tuple["Tensor", "Tensor"]]:
        """Batches of images and labels; over all ranks, every evaluation image exactly once."""
        ...

    @property
    def damaged(self) -> int:
        """How many unreadable images were met and replaced so far."""
        ...

    def close(self) -> None:
        """End worker processes and free memory."""
        ...


class SampledBatch(NamedTuple):
    """A micro batch before it is loaded: where it stands in the epoch and which training images it holds."""

    step: int
    index: int  # type: ignore[assignment]
    samples: np.ndarray  # int64 (B,)


def steps_per_epoch(train_size: int, batch_size: int) -> int:
    """floor(N / batch.size) optimizer steps; ConfigError where that is none."""
    if batch_size > train_size:
        raise ConfigError(
            f"batch.size={batch_size} is more than the {train_size} training images, so an epoch would have no step;"
            f" set batch.size to at most {train_size}"
        )
    return train_size // batch_size


def sample_batches(
    seed: int, epoch: int, train_size: int, batch_size: int, micro_size: int, steps: range, micro: range
) -> Iterator[SampledBatch]:
    """The micro batches of one rank, in training order.

    An epoch is a permutation of the training images; step s takes batch.size of them from s * batch.size on, and micro
    batch m of it batch.micro of these. The images that are left over at the end are not seen in this epoch.
    """
    order = permutation(derive("order", seed, epoch), train_size)
    for step in steps:
        batch = order[step * batch_size : (step + 1) * batch_size]
        for index in micro:
            samples = batch[index * micro_size : (index + 1) * micro_size]
            if len(samples):
                yield SampledBatch(step, index, samples)


def evaluation_batches(eval_size: int, micro_size: int, rank: int, world_size: int) -> list[np.ndarray]:
    """Blocks of evaluation images for one rank; the blocks are the same for every number of ranks."""
    blocks = [np.arange(start, min(start + micro_size, eval_size)) for start in range(0, eval_size, micro_size)]
    return blocks[rank::world_size]
