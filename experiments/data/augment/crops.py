"""Which part of an image a network sees: one form for random and centre crops, drawn without torch.

A crop says, for each axis of each image: take `length` pixels from `start`, resize them to `resized` pixels, and show
`size` of these from `offset` on (black where there are none), mirrored horizontally where `flip` is set. Random resized
crops, shifts, centre crops and evaluation all have this form, so both pipelines need one way to cut them out.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.config.registry import CROPS
from experiments.config.settings import Recipe
from experiments.randomness import derive, uniforms

ATTEMPTS = 10  # draws of a crop or an erased box before giving up, as in torchvision and timm
FILTER = 2  # half width of the widest filter, bicubic, in pixels
RATIO = (3 / 4, 4 / 3)  # range of aspect ratios of a random resized crop


class Axis(NamedTuple):
    """One axis of a batch of crops; int64 arrays of shape (B,), in pixels."""

    start: np.ndarray
    length: np.ndarray
    resized: np.ndarray
    offset: np.ndarray


class Line(NamedTuple):
    """One axis of one crop."""

    start: int
    length: int
    resized: int
    offset: int


class Crops(NamedTuple):
    """The views of B images; `flip` is bool (B,)."""

    y: Axis
    x: Axis
    flip: np.ndarray


class Drawn(NamedTuple):
    """What is random about the crops of B images, whatever their sizes are."""

    flip: np.ndarray  # bool (B,)
    place: np.ndarray  # uniforms (B, K), of which K depends on the kind of crop


class CropKind(NamedTuple):
    """A value of recipe.crop: how many uniforms an image's crop takes, and what becomes of them.

    `crops` maps (recipe, size, uniforms (B, draws), heights (B,), widths (B,)) to crops that are not yet flipped.
    """

    draws: int
    crops: Callable[[Recipe, int, np.ndarray, np.ndarray, np.ndarray], Crops]


def draw_crops(recipe: Recipe, keys: tuple[int, int], samples: np.ndarray) -> Drawn:
    """The draws of one epoch for the images `samples` (B,); `keys` = (run's seed, epoch)."""
    flip = uniforms(derive("flip", *keys), samples, 1)[:, 0] < recipe.flip
    return Drawn(flip, uniforms(derive("crop", *keys), samples, CROPS[recipe.crop].load().draws))


def training_crops(recipe: Recipe, size: int, drawn: Drawn, height: np.ndarray, width: np.ndarray) -> Crops:
    """Crops for images of the given sizes (B,)."""
    crops: Crops = CROPS[recipe.crop].load().crops(recipe, size, drawn.place, height, width)
    return crops._replace(flip=drawn.flip)


def _resized(recipe: Recipe, size: int, u: np.ndarray, height: np.ndarray, width: np.ndarray) -> Crops:
    top, left, crop_height, crop_width = resized_boxes(u, height, width, recipe.crop_scale)
    whole = np.full_like(top, size)
    zero = np.zeros_like(top)
    return _unflipped(Axis(top, crop_height, whole, zero), Axis(left, crop_width, whole, zero))


def _shifted(recipe: Recipe, size: int, u: np.ndarray, height: np.ndarray, width: np.ndarray) -> Crops:
    centre = centre_crops(size, size, height, width)
    shift = np.floor(u * (2 * recipe.crop_pad + 1)).astype(np.int64) - recipe.crop_pad
    y = centre.y._replace(offset=centre.y.offset + shift[:, 0])
    x = centre.x._replace(offset=centre.x.offset + shift[:, 1])
    return _unflipped(y, x)


def _centred(recipe: Recipe, size: int, u: np.ndarray, height: np.ndarray, width: np.ndarray) -> Crops:
    return centre_crops(size, size, height, width)


RESIZED = CropKind(2 * ATTEMPTS + 2, _resized)  # random resized crops
SHIFTED = CropKind(2, _shifted)  # the whole image, moved by up to recipe.crop_pad pixels
CENTRED = CropKind(0, _centred)


def _unflipped(y: Axis, x: Axis) -> Crops:
    return Crops(y, x, np.zeros(len(y.start), dtype=bool))


def centre_crops(size: int, shorter: int, height: np.ndarray, width: np.ndarray) -> Crops:
    """Resize the shorter side to `shorter` pixels, keep the aspect ratio, show the central `size` x `size` pixels."""
    side = np.minimum(height, width)
    axes = []
    for length in (height, width):
        resized = shorter * length // side
        axes.append(Axis(np.zeros_like(length), length, resized, np.rint((resized - size) / 2).astype(np.int64)))
    return _unflipped(axes[0], axes[1])


def shown_part(line: Line, size: int) -> Line:
    """A line that takes no more pixels than the `size` shown ones need, for the filters' width on both sides.

    What it shows is moved by up to half an output pixel, since a line begins and ends at whole ones.
    """
    margin = 1 + FILTER * max(1, -(-line.length // line.resized))
    low = min(max(0, line.offset), line.resized - 1)
    high = max(low + 1, min(line.resized, line.offset + size))
    first = max(0, low * line.length // line.resized - margin)
    last = min(line.length, -(-high * line.length // line.resized) + margin)
    begin, end = (round(pixel * line.resized / line.length) for pixel in (first, last))
    return Line(line.start + first, last - first, end - begin, line.offset - begin)


def evaluation_side(size: int, eval_crop: float) -> int:
    """Shorter side after resizing for evaluation, e.g. 256 for a crop of 224 and eval_crop = 0.875."""
    return math.floor(size / eval_crop)


def resized_boxes(
    u: np.ndarray, height: np.ndarray, width: np.ndarray, scale: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (top, left, height, width), int64 (B,), of random resized crops from uniforms `u` (B, 2 * ATTEMPTS + 2).

    As in torchvision and timm: an area share from `scale` and a log-uniform aspect ratio from RATIO; the first of
    ATTEMPTS draws that fits, else the largest central box whose aspect ratio is within RATIO.
    """
    areas, ratios, place = u[:, :ATTEMPTS], u[:, ATTEMPTS : 2 * ATTEMPTS], u[:, 2 * ATTEMPTS :]
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    area = (scale[0] + (scale[1] - scale[0]) * areas) * (height * width)[:, None]
    root = np.exp((low + (high - low) * ratios) / 2)
    box_width = np.rint(np.sqrt(area) * root).astype(np.int64)
    box_height = np.rint(np.sqrt(area) / root).astype(np.int64)
    # a box of zero pixels is possible on tiny images only; an interpolation needs at least one
    box_width, box_height = np.maximum(box_width, 1), np.maximum(box_height, 1)
    h, w, found = _first(box_height, box_width, (box_width <= width[:, None]) & (box_height <= height[:, None]))
    top = np.floor(place[:, 0] * (height - h + 1)).astype(np.int64)
    left = np.floor(place[:, 1] * (width - w + 1)).astype(np.int64)
    if found.all():
        return top, left, h, w
    aspect = width / height
    central_h = np.where(aspect < RATIO[0], np.rint(width / RATIO[0]).astype(np.int64), height)
    central_w = np.where(aspect > RATIO[1], np.rint(height * RATIO[1]).astype(np.int64), width)
    return (
        np.where(found, top, (height - central_h) // 2),
        np.where(found, left, (width - central_w) // 2),
        np.where(found, h, central_h),
        np.where(found, w, central_w),
    )


def erasing_boxes(
    probability: float, size: int, keys: tuple[int, int], samples: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rectangles to erase: positions (E,) in `samples` and boxes (E, 4) of top, left, height, width.

    As timm's RandomErasing: an area of 2 % to 33 %, a log-uniform aspect ratio from 0.3 to 1/0.3, the first of ATTEMPTS
    draws that is smaller than the image; no erasing if none is.
    """
    chosen = np.flatnonzero(uniforms(derive("erase", *keys), samples, 1)[:, 0] < probability)
    u = uniforms(derive("erased box", *keys), samples[chosen], 2 * ATTEMPTS + 2)
    areas, ratios, place = u[:, :ATTEMPTS], u[:, ATTEMPTS : 2 * ATTEMPTS], u[:, 2 * ATTEMPTS :]
    area = (0.02 + (1 / 3 - 0.02) * areas) * size * size
    root = np.exp(math.log(0.3) * (1 - 2 * ratios) / 2)
    heights, widths = np.rint(np.sqrt(area) * root).astype(np.int64), np.rint(np.sqrt(area) / root).astype(np.int64)
    h, w, found = _first(heights, widths, (heights < size) & (widths < size))
    top, left = (np.floor(place[:, i] * (size - side + 1)).astype(np.int64) for i, side in enumerate((h, w)))
    return chosen[found], np.stack([top, left, h, w], axis=1)[found]


def _first(heights: np.ndarray, widths: np.ndarray, fits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes (B,) of the first attempt that fits, from (B, ATTEMPTS), and whether there was one."""
    rows, attempt = np.arange(len(fits)), fits.argmax(axis=1)
    return heights[rows, attempt], widths[rows, attempt], np.asarray(fits.any(axis=1))
