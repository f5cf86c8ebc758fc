"""Mixup and CutMix.

Draws the same numbers in the same order as timm's `Mixup` (per batch), from a generator of its own that is seeded for
every micro batch; the tests hold the two equal bit for bit. timm itself is not imported: it costs seconds at start.
"""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from experiments.config.settings import Recipe
from experiments.randomness import derive
from experiments.runtime.device import one_thread
from experiments.training.losses import smoothed


@dataclass(frozen=True)
class Mixing:
    """Mixes each micro batch with its own reverse: images by mixup or CutMix, labels in the same proportion."""

    mixup: float  # alpha of the beta distribution; 0 is off
    cutmix: float
    switch: float  # probability of CutMix where both are on
    smoothing: float
    classes: int

    @classmethod
    def of(cls, recipe: Recipe, classes: int) -> "Mixing":
        """The recipe's mixing for a data set of `classes` classes."""
        return cls(recipe.mixup, recipe.cutmix, recipe.mixup_switch, recipe.label_smoothing, classes)

    @property
    def active(self) -> bool:
        """Whether images are mixed at all."""
        return self.mixup > 0 or self.cutmix > 0

    @one_thread()
    def __call__(self, images: Tensor, labels: Tensor, seed: int, step: int, index: int) -> tuple[Tensor, Tensor]:
        """Mix (B, C, H, W) `images` in place; return them with targets: (B, classes) when mixed, else `labels`.

        The draw depends on (seed, optimizer step of the run, micro batch of the step) only.
        """
        if not self.active:
            return images, labels
        draw = np.random.RandomState(derive("mixup", seed, step, index) % 2**32)
        draw.rand()  # timm's test against the probability of mixing at all, which is 1
        cut = draw.rand() < self.switch if self.mixup > 0 and self.cutmix > 0 else self.cutmix > 0
        alpha = self.cutmix if cut else self.mixup
        share = float(draw.beta(alpha, alpha))
        if cut and share != 1.0:
            share = _paste(images, share, draw)
        elif share != 1.0:
            other = images.flip(0).mul_(1.0 - share)
            images.mul_(share).add_(other)
        return images, self._targets(labels, share)

    def _targets(self, labels: Tensor, share: float) -> Tensor:
        """(B, classes) probabilities: smoothed labels, `share` of their own and the rest of the partner's."""
        hot = smoothed(labels, self.classes, self.smoothing)
        return hot * share + hot.flip(0) * (1.0 - share)


def _paste(images: Tensor, share: float, draw: np.random.RandomState) -> float:
    """CutMix: paste the partner's box into every image; return the share of its own pixels that an image keeps."""
    height, width = images.shape[-2:]
    ratio = math.sqrt(1.0 - share)
    box_height, box_width = int(height * ratio), int(width * ratio)
    centre_y, centre_x = draw.randint(0, height), draw.randint(0, width)
    top, bottom = max(0, centre_y - box_height // 2), min(height, centre_y + (box_height + 1) // 2)
    left, right = max(0, centre_x - box_width // 2), min(width, centre_x + (box_width + 1) // 2)
    box = images[:, :, top:bottom, left:right]
    box.copy_(box.flip(0))
    return 1.0 - (bottom - top) * (right - left) / float(height * width)
