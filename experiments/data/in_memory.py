"""Small data sets: 8-bit images that live on the training device, augmented there in blocks."""

import ctypes
import sys
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from experiments.data.augment.crops import Crops, centre_crops, draw_crops, evaluation_side, training_crops
from experiments.data.augment.normalise import Augmenter, Normaliser
from experiments.data.augment.resample import cut, to_device
from experiments.data.damage import Damage
from experiments.data.source import MicroBatch, Pipeline, SampledBatch, evaluation_batches, images_of, sample_batches
from experiments.data.splits import ImageArrays, Splits
from experiments.runtime.distributed import Ranks

BLOCK = 2**20  # pixels augmented at once, 1024 images of 32 x 32: enough to hide the cost of launching operations


class InMemorySource:
    """A DataSource over arrays; see experiments.data.source for what the methods promise."""

    def __init__(self, asked: Pipeline, splits: Splits, device: torch.device) -> None:
        if device.type == "cpu":
            keep_freed_memory()
        self._asked, self._device = asked, device
        data, recipe = asked.data, asked.recipe
        self._augment = Augmenter(data, recipe, asked.seed)
        self._normaliser = Normaliser(data, recipe.erasing, asked.seed, asked.train_side, device)
        self._evaluation_normaliser = Normaliser(data, 0.0, asked.seed, asked.image_size, device)
        self._train, self._evaluation = (_on_device(part, device) for part in (splits.train, splits.evaluation))
        self.class_names = splits.class_names
        self.num_classes, self.in_chans = len(splits.class_names), asked.data.channels
        self.train_size, self.eval_size = len(splits.train), len(splits.evaluation)
        self.damage = Damage()  # arrays have no unreadable images

    def train(self, epoch: int, steps: range, micro: range) -> Iterator[MicroBatch]:
        """Micro batches of the given steps; images depend on (seed, epoch, sample) only, so blocks change nothing."""
        queue = sample_batches(self._asked, epoch, self.train_size, steps, micro)
        images = BLOCK // self._asked.train_side**2
        while block := list(islice(queue, max(1, images // self._asked.batch.micro))):
            yield from self._augmented(epoch, block)

    @torch.no_grad()
    def _augmented(self, epoch: int, block: list[SampledBatch]) -> list[MicroBatch]:
        samples = np.concatenate([batch.samples for batch in block])
        index = to_device(images_of(samples), self._device)
        pixels, labels = (tensor.index_select(0, index) for tensor in self._train)
        keys = (self._asked.seed, epoch)
        recipe, size = self._asked.recipe, self._asked.train_side
        drawn = draw_crops(recipe, keys, samples)
        crops = training_crops(recipe, size, drawn, *_sizes(pixels))
        images = self._augment(self._cut(pixels, crops, size), epoch, samples)
        images = self._normaliser.train([images], epoch, samples)
        sizes = [len(batch.samples) for batch in block]
        parts = zip(block, images.split(sizes), labels.split(sizes), strict=True)
        return [MicroBatch(image, label, batch.step, batch.index) for batch, image, label in parts]

    def evaluate(self, rank: int = 0, world_size: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """Centre crops of this rank's evaluation images, with their labels."""
        for samples in evaluation_batches(self.eval_size, self._asked.batch.micro, rank, world_size):
            yield self._centred(samples)

    @torch.no_grad()
    def _centred(self, samples: np.ndarray) -> tuple[Tensor, Tensor]:
        index = to_device(samples, self._device)
        pixels, labels = (tensor.index_select(0, index) for tensor in self._evaluation)
        size = self._asked.image_size
        crops = centre_crops(size, evaluation_side(size, self._asked.recipe.eval_crop), *_sizes(pixels))
        return self._evaluation_normaliser.normalise([self._cut(pixels, crops, size)], len(samples)), labels

    def _cut(self, pixels: Tensor, crops: Crops, size: int) -> Tensor:
        return cut(pixels, crops, size, self._asked.recipe.interpolation)

    def share_damage(self, ranks: Ranks) -> None:
        """There is none."""

    def close(self) -> None:
        """Free the images."""
        self._train = self._evaluation = (torch.empty(0), torch.empty(0))


def _on_device(part: object, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels, uint8 (N, W, C, H) as `cut` wants them, and labels."""
    assert isinstance(part, ImageArrays)
    pixels = torch.from_numpy(np.ascontiguousarray(part.pixels.transpose(0, 2, 3, 1)))
    return pixels.to(device), torch.from_numpy(part.labels).to(device)


def _sizes(pixels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths (B,) of images (B, W, C, H)."""
    return np.full(len(pixels), pixels.shape[3]), np.full(len(pixels), pixels.shape[1])


def keep_freed_memory() -> None:
    """Ask glibc to keep freed memory instead of returning it to the system after every operation.

    Buffers of a few megabytes are otherwise mapped and faulted in anew each time, which takes longer than filling them:
    augmentation on a CPU is 1.5 times as fast without, and so are the steps of networks whose activations fill
    gigabytes. Where there is no mallopt, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD in malloc.h
        mallopt(mmap_threshold, 2**31 - 1)
        mallopt(trim_threshold, -1)  # never
