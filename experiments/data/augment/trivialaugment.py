"""TrivialAugment Wide's policy (arXiv 2103.10158), drawn for a whole batch without torch.

Each image gets one of 14 operations, the identity among them, at one of 31 strengths; both are uniform, and so is the
sign of the operations that have one. torchvision's `TrivialAugmentWide` is the reference for all of this.
"""

from collections.abc import Callable

import numpy as np

from experiments.data.augment.randaugment import OPERATIONS, Draws
from experiments.randomness import derive, uniforms

BINS = 31
_NONE = np.zeros(BINS)
_ENHANCED = 1 + np.linspace(0, 0.99, BINS) * [[-1], [1]]  # factors: 1 leaves the image as it is


def _either_way(strengths: np.ndarray) -> np.ndarray:
    return np.stack([-strengths, strengths])


def _shares(size: int) -> np.ndarray:
    """Whole pixels up to 32, whatever the image's side, as shares of it."""
    return _either_way(np.floor(np.linspace(0, 32, BINS)) / size)


# operation -> its arguments for an image's side, (BINS,) or (2, BINS) by sign
ARGUMENTS: dict[str, Callable[[int], np.ndarray]] = {
    "identity": lambda _: _NONE,
    "shear_x": lambda _: _either_way(np.linspace(0, 0.99, BINS)),
    "shear_y": lambda _: _either_way(np.linspace(0, 0.99, BINS)),
    "translate_x": _shares,
    "translate_y": _shares,
    "rotate": lambda _: _either_way(np.linspace(0, 135, BINS)),
    "brightness": lambda _: _ENHANCED,
    "color": lambda _: _ENHANCED,
    "contrast": lambda _: _ENHANCED,
    "sharpness": lambda _: _ENHANCED,
    "posterize": lambda _: np.rint(8 - np.arange(BINS) / 5),  # bits to keep, 8 to 2
    "solarize": lambda _: np.linspace(255, 0, BINS),
    "auto_contrast": lambda _: _NONE,
    "equalize": lambda _: _NONE,
}
# by place in ARGUMENTS; -1, the identity, is no operation
_NUMBERS = np.array([OPERATIONS.index(name) if name in OPERATIONS else -1 for name in ARGUMENTS])


def draw(keys: tuple[int, int], samples: np.ndarray, size: int) -> Draws:
    """Operations and arguments, (B, 1), for the images `samples` (B,) of side `size`; `keys` = (run's seed, epoch)."""
    u = uniforms(derive("trivialaugment", *keys), samples, 3)
    chosen, strength = (np.floor(u[:, i] * count).astype(np.int64) for i, count in ((0, len(ARGUMENTS)), (1, BINS)))
    sign = (u[:, 2] < 0.5).astype(np.int64)
    tables = np.stack([np.broadcast_to(arguments(size), (2, BINS)) for arguments in ARGUMENTS.values()])
    return Draws(_NUMBERS[chosen][:, None], tables[chosen, sign, strength][:, None])
