"""From cut-out 8-bit images to what the network sees: RandAugment, normalisation, random erasing, on the device."""

import numpy as np
import torch
from torch import Tensor

from experiments.data.operations import augment
from experiments.data.policy import draw, parse_policy
from experiments.data.resample import to_device
from experiments.data.windows import erasing_boxes
from experiments.randomness import derive, uniforms
from experiments.settings import Settings

NOISES = 2**20  # places in the pool of noise at which an erased box's noise can start


class Augmenter:
    """RandAugment of one run, on whatever device the images are; a function of (seed, epoch, sample) for each image."""

    def __init__(self, settings: Settings) -> None:
        data, recipe = settings.data, settings.recipe
        self.seed, self.channels, self.interpolation = settings.seed, data.channels, recipe.interpolation
        self.policy = parse_policy(recipe.randaugment) if recipe.randaugment else None
        # what geometric operations show outside the image: the mean colour, as timm has it
        self.fill = tuple(min(255, round(255 * value)) for value in data.mean)

    def __call__(self, images: Tensor, epoch: int, samples: np.ndarray) -> Tensor:
        """Augment uint8 (B, C, S, S), perhaps in place; C may be 1 in a grey set that is shown in colour."""
        if self.policy is None:
            return images
        if images.shape[1] < self.channels and len(set(self.fill)) > 1:
            images = images.expand(-1, self.channels, -1, -1)
        draws = draw(self.policy, (self.seed, epoch), samples)
        return augment(images.contiguous(), draws, self.interpolation, self.fill)


class Finisher:
    """The steps after cutting and RandAugment, for one run on one device."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        data, recipe = settings.data, settings.recipe
        self.recipe, self.seed, self.size = recipe, settings.seed, settings.image_size
        shape = (1, data.channels, 1, 1)
        self.shift = torch.tensor([-m / d for m, d in zip(data.mean, data.std, strict=True)], device=device).view(shape)
        self.scale = torch.tensor([1 / (255 * value) for value in data.std], device=device).view(shape)
        self.noise: Tensor | None = None
        if recipe.erasing:
            # erased pixels are N(0, 1) after normalisation (timm's pixel mode); an erased image reads its noise from a
            # place of its own in one long sequence, which is quicker than a generator per image and needs no state
            generator = torch.Generator().manual_seed(derive("erasing noise", self.seed))
            count = NOISES + data.channels * self.size**2
            self.noise = torch.randn(count, generator=generator).to(device)

    def train(self, images: Tensor, epoch: int, samples: np.ndarray) -> Tensor:
        """Normalise and erase uint8 (B, C, S, S), of which C may be 1 in a grey set; float32 channels_last."""
        pixels = self._normalised(images)
        if self.noise is not None:
            self._erase(pixels, self.noise, (self.seed, epoch), samples)
        return pixels.contiguous(memory_format=torch.channels_last)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, C or 1, S, S) to float32 (B, C, S, S) of mean 0 and deviation 1, channels_last."""
        return self._normalised(images).contiguous(memory_format=torch.channels_last)

    def _normalised(self, images: Tensor) -> Tensor:
        """In planes, one channel after the other, which is the quicker layout for everything up to here."""
        return torch.addcmul(self.shift, images.contiguous().float(), self.scale)

    def _erase(self, images: Tensor, noise: Tensor, keys: tuple[int, int], samples: np.ndarray) -> None:
        """Fill boxes of some of the images (contiguous) with noise."""
        chosen, boxes = erasing_boxes(self.recipe.erasing, self.size, keys, samples)
        if not len(chosen):
            return
        places = (uniforms(derive("erased place", *keys), samples[chosen], 1)[:, 0] * NOISES).astype("int64")
        fill = _fill_one_by_one if images.device.type == "cpu" else _fill_at_once
        fill(images, noise, chosen, boxes, places)


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
    index, flat = to_device(chosen, device), images.view(len(images), -1)
    kept = flat.index_select(0, index).view(-1, *images.shape[1:])
    values = noise.unfold(0, flat.shape[1], 1).index_select(0, to_device(places, device)).view(kept.shape)
    flat.index_copy_(0, index, torch.lerp(kept, values, inside).view(-1, flat.shape[1]))
