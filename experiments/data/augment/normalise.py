"""From cut-out 8-bit images to what the network sees: augmentation, normalisation, random erasing, on the device."""

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from experiments.config.settings import Data, Recipe
from experiments.data.augment import autoaugment, trivialaugment
from experiments.data.augment.crops import erasing_boxes
from experiments.data.augment.operations import augment
from experiments.data.augment.randaugment import Draws, draw, parse_policy
from experiments.data.augment.resample import to_device
from experiments.randomness import derive, uniforms

NOISES = 2**20  # places in the pool of noise at which an erased box's noise can start
CACHED = 2**19  # values that a CPU normalises at once, 2 MiB: what lies between two operations stays in its cache


class Augmenter:
    """AutoAugment, RandAugment and TrivialAugment of one run, in this order, on whatever device the images are.

    What becomes of an image is a function of (seed, epoch, sample).
    """

    def __init__(self, data: Data, recipe: Recipe, seed: int) -> None:
        self.seed, self.channels, self.interpolation = seed, data.channels, recipe.interpolation
        self.auto = autoaugment.parse_policy(recipe.auto_augment) if recipe.auto_augment else None
        self.policy = parse_policy(recipe.randaugment) if recipe.randaugment else None
        self.trivial = recipe.trivial_augment
        # what geometric operations show outside the image: the mean colour in AutoAugment and RandAugment, as timm has
        # it, and black in TrivialAugment, as torchvision has it
        self.fill = tuple(min(255, round(255 * value)) for value in data.mean)

    def __call__(self, images: Tensor, epoch: int, samples: np.ndarray) -> Tensor:
        """Augment uint8 (B, C, S, S), perhaps in place; C may be 1 in a grey set that is shown in colour."""
        keys = (self.seed, epoch)
        if self.auto is not None:
            images = self._augment(images, autoaugment.draw(self.auto, keys, samples))
        if self.policy is not None:
            images = self._augment(images, draw(self.policy, keys, samples))
        if self.trivial:
            draws = trivialaugment.draw(keys, samples, images.shape[3])
            images = augment(images.contiguous(), draws, self.interpolation, (0,) * self.channels)
        return images

    def _augment(self, images: Tensor, draws: Draws) -> Tensor:
        """Apply the draws on the mean colour."""
        if images.shape[1] < self.channels and len(set(self.fill)) > 1:
            images = images.expand(-1, self.channels, -1, -1)
        return augment(images.contiguous(), draws, self.interpolation, self.fill)


class Normaliser:
    """The steps after cutting and augmenting, for images of one size on one device."""

    def __init__(self, data: Data, erasing: float, seed: int, size: int, device: torch.device) -> None:
        """`erasing` is a probability, `size` the side in pixels."""
        self.erasing, self.seed, self.size, self.channels = erasing, seed, size, data.channels
        shift, scale = [-m / d for m, d in zip(data.mean, data.std, strict=True)], [1 / (255 * d) for d in data.std]
        # of a row of pixels, whose channels lie side by side in channels-last memory
        self.shift, self.scale = (torch.tensor(values, device=device).repeat(self.size) for values in (shift, scale))

    @cached_property
    def noise(self) -> Tensor:
        """What erased pixels become: N(0, 1) after normalisation (timm's pixel mode).

        An erased image reads its noise from a place of its own in one long sequence, which is quicker than a generator
        per image and needs no state.
        """
        generator = torch.Generator().manual_seed(derive("erasing noise", self.seed))
        return torch.randn(NOISES + self.channels * self.size**2, generator=generator).to(self.shift.device)

    def train(self, parts: Iterable[Tensor], epoch: int, samples: np.ndarray) -> Tensor:
        """Normalise and erase the images `samples` (B,), which come in parts as for `normalise`."""
        pixels = self.normalise(parts, len(samples))
        if self.erasing:
            self._erase(pixels, (self.seed, epoch), samples)
        return pixels

    def normalise(self, parts: Iterable[Tensor], count: int) -> Tensor:
        """`count` images to float32 (B, C, S, S) of mean 0 and deviation 1, channels_last.

        They come in parts, uint8 (b, C, S, S) or, in a grey set, (b, 1, S, S), each of which is worked on as it comes.
        """
        shape = (count, self.channels, self.size, self.size)
        pixels = torch.empty(shape, device=self.shift.device, memory_format=torch.channels_last)
        rows = pixels.permute(0, 2, 3, 1).view(count, self.size, -1)
        at_once = max(1, CACHED // rows[0].numel()) if rows.device.type == "cpu" else count
        done = 0
        for part in parts:
            for some in part.split(at_once):
                place = rows[done : done + len(some)]
                values = some.float().expand(-1, self.channels, -1, -1).permute(0, 2, 3, 1).reshape(place.shape)
                torch.addcmul(self.shift, values, self.scale, out=place)
                done += len(some)
        if done != count:
            raise ValueError(f"{done} images came in parts, {count} were expected")
        return pixels

    def _erase(self, images: Tensor, keys: tuple[int, int], samples: np.ndarray) -> None:
        """Fill boxes of some of the images with noise."""
        chosen, boxes = erasing_boxes(self.erasing, self.size, keys, samples)
        if not len(chosen):
            return
        places = (uniforms(derive("erased place", *keys), samples[chosen], 1)[:, 0] * NOISES).astype("int64")
        fill = _fill_one_by_one if images.device.type == "cpu" else _fill_at_once
        fill(images, self.noise, chosen, boxes, places)


def _fill_one_by_one(images: Tensor, noise: Tensor, chosen: np.ndarray, boxes: np.ndarray, places: np.ndarray) -> None:
    """Copy the noise of each box; in numpy, whose one thread waits for no other while workers hold the cores."""
    pixels, pool, shape = images.numpy(), noise.numpy(), images.shape[1:]
    for index, (top, left, height, width), place in zip(chosen, boxes, places, strict=True):
        box = (slice(None), slice(top, top + height), slice(left, left + width))
        pixels[index][box] = pool[place : place + shape.numel()].reshape(shape)[box]


def _fill_at_once(images: Tensor, noise: Tensor, chosen: np.ndarray, boxes: np.ndarray, places: np.ndarray) -> None:
    """The same for all boxes in a handful of kernels."""
    device, size = images.device, images.shape[2]
    top, left, height, width = to_device(boxes.T.copy(), device)[:, :, None]
    row = torch.arange(size, device=device)
    down = (row >= top) & (row < top + height)
    across = (row >= left) & (row < left + width)
    inside = (down[:, :, None] & across[:, None, :])[:, None].float()
    index = to_device(chosen, device)
    kept = images.index_select(0, index)
    values = noise.unfold(0, kept[0].numel(), 1).index_select(0, to_device(places, device)).view(kept.shape)
    images.index_copy_(0, index, torch.lerp(kept, values, inside))
