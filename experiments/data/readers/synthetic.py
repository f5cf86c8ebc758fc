"""Made-up images that can be learnt: a smooth pattern per class, shifted in brightness, under noise."""

import math

import numpy as np
from PIL import Image

from experiments.config.settings import Data
from experiments.data.splits import ImageArrays, Splits
from experiments.randomness import derive, normals, uniforms

TRAIN_IMAGES = 1024  # where data.train_images is not set
EVAL_IMAGES = 256
NOISE = 24.0  # standard deviation, in grey levels


def read(data: Data, image_size: int) -> Splits:
    """data.train_images and data.eval_images images of image_size pixels in data.classes classes."""
    classes = data.classes or 10
    patterns = np.stack([_pattern(label, image_size, data.channels) for label in range(classes)])
    count = math.ceil((data.train_images or TRAIN_IMAGES) / (1 - data.holdout))
    train = _images(patterns, count, "train")
    evaluation = _images(patterns, data.eval_images or EVAL_IMAGES, "evaluation")
    return Splits(train, evaluation, tuple(f"pattern {label}" for label in range(classes)))


def checksum(data: Data) -> str:
    """The generator is its own content; a change of it raises results_version."""
    return f"{derive('synthetic'):032x}"


def _pattern(label: int, size: int, channels: int) -> np.ndarray:
    """float32 (size, size, channels): a 4 x 4 random mosaic, smoothed by enlarging."""
    coarse = uniforms(derive("synthetic pattern", label), np.arange(channels), 16).reshape(channels, 4, 4)
    planes = [Image.fromarray((plane * 160 + 48).astype(np.float32)) for plane in coarse]
    return np.stack([np.asarray(p.resize((size, size), Image.Resampling.BICUBIC)) for p in planes], axis=-1)


def _images(patterns: np.ndarray, count: int, split: str) -> ImageArrays:
    labels = np.arange(count, dtype=np.int64) % len(patterns)
    pixels = np.empty((count, *patterns.shape[1:]), dtype=np.uint8)
    values = math.prod(patterns.shape[1:])
    for start in range(0, count, 1024):
        block = np.arange(start, min(start + 1024, count))
        brightness = uniforms(derive("synthetic brightness", split), block, 1)[:, :, None, None] * 48 - 24
        noise = normals(uniforms(derive("synthetic noise", split), block, 2 * values).reshape(len(block), -1, 2))
        shown = patterns[labels[block]] + brightness + NOISE * noise.reshape(len(block), *patterns.shape[1:])
        pixels[block] = np.clip(np.rint(shown), 0, 255)
    return ImageArrays(pixels, labels)
