"""What the training loop sees of a data set, and the order in which it sees the images. Imports no torch."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from experiments.config.settings import Batch, Data, Recipe, Settings
from experiments.errors import ConfigError
from experiments.randomness import derive, permutation

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.data.damage import Damage
    from experiments.runtime.distributed import Ranks


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
    image_size: int  # side of an evaluation image
    train_side: int
    seed: int
    workers: int
    worker_timeout: float

    @classmethod
    def of(cls, settings: Settings) -> "Pipeline":
        """That part of a run's settings."""
        return cls(*(getattr(settings, name) for name in cls._fields))

    def side(self, epoch: int | None) -> int:
        """Side in pixels of the images of a training epoch, or (None) of an evaluation."""
        return self.image_size if epoch is None else self.train_side


class DataSource(Protocol):
    """A data set that is ready to train on."""

    num_classes: int
    in_chans: int
    train_size: int
    eval_size: int
    class_names: tuple[str, ...]
    damage: "Damage"  # the unreadable images met so far, which others of their class replaced

    def train(self, epoch: int, steps: range, micro: range) -> Iterator[MicroBatch]:
        """The micro batches with an index in `micro` (this rank's share) of each optimizer step in `steps`."""
        ...

    def evaluate(self, rank: int = 0, world_size: int = 1) -> Iterator[tuple["Tensor", "Tensor"]]:
        """Batches of images and labels; over all ranks, every evaluation image exactly once."""
        ...

    def share_damage(self, ranks: "Ranks") -> None:
        """Make `damage` that of all ranks; DataError where it is more than data.damaged_share allows."""
        ...

    def close(self) -> None:
        """End worker processes and free memory."""
        ...


class SampledBatch(NamedTuple):
    """A micro batch before it is loaded: where it stands in the epoch and which training images it holds."""

    step: int
    index: int  # type: ignore[assignment]
    samples: np.ndarray  # int64 (B,)


COPIES = 2**40  # copy c of training image i is sample i + c * COPIES, so that its augmentation is its own


def images_of(samples: np.ndarray) -> np.ndarray:
    """The training images that are shown by `samples`, of which several may be copies of one (recipe.repeats)."""
    return samples % COPIES


def steps_per_epoch(train_size: int, batch_size: int) -> int:
    """floor(N / batch.size) optimizer steps; ConfigError where that is none."""
    if batch_size > train_size:
        raise ConfigError(
            f"batch.size={batch_size} is more than the {train_size} training images, so an epoch would have no step;"
            f" set batch.size to at most {train_size}"
        )
    return train_size // batch_size


def sample_batches(asked: Pipeline, epoch: int, train_size: int, steps: range, micro: range) -> Iterator[SampledBatch]:
    """The micro batches of one rank, in training order.

    An epoch is a permutation of the training images; step s takes batch.size of them from s * batch.size on, and micro
    batch m of it batch.micro of these. The images that are left over at the end are not seen in this epoch.

    With recipe.repeats = k each image of the permutation stands there k times in a row, and as many images fewer are
    seen (Hoffer et al., arXiv 1901.09335). A step's samples are then dealt out to its micro batches one by one, so that
    neighbours, the copies of an image, fall into different ones, as torchvision's RASampler deals them out to ranks.
    """
    size, per_step, repeats = asked.batch.micro, asked.batch.size, asked.recipe.repeats
    order = permutation(derive("order", asked.seed, epoch), train_size)
    if repeats > 1:
        copies = np.arange(repeats) * COPIES
        order = (order[: -(-train_size // repeats), None] + copies).ravel()[:train_size]
    for step in steps:
        batch = order[step * per_step : (step + 1) * per_step]
        for index in micro:
            samples = batch[index * size : (index + 1) * size] if repeats == 1 else batch[index :: per_step // size]
            if len(samples):
                yield SampledBatch(step, index, samples)


def evaluation_batches(eval_size: int, micro_size: int, rank: int, world_size: int) -> list[np.ndarray]:
    """Blocks of evaluation images for one rank; the blocks are the same for every number of ranks."""
    blocks = [np.arange(start, min(start + micro_size, eval_size)) for start in range(0, eval_size, micro_size)]
    return blocks[rank::world_size]
