"""Settings and small data sets for the tests of experiments.data."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from experiments.config.settings import Batch, Budget, Data, Recipe, Settings
from experiments.data import DataSource, MicroBatch, open_data
from roadmap import Design

SYNTHETIC = Data(name="synthetic", reader="synthetic", train_images=48, eval_images=20)


def settings_for(data: Data = SYNTHETIC, recipe: dict[str, Any] | None = None, **more: Any) -> Settings:
    """The paper's augmentation on a small batch, unless told otherwise."""
    values: dict[str, Any] = {"batch": Batch(16, 8), "seed": 0, "image_size": data.image_size, "precision": "fp32"}
    values |= {"step": "resnet50", "changes": (), "label": "resnet50", "workers": 0, **more}
    return Settings(
        design=Design(),
        regime="micro",
        recipe=replace(Recipe(), **(recipe or {})),
        budget=Budget(),
        data=data,
        **values,
    )


def source_for(*args: Any, **kwargs: Any) -> DataSource:
    """An open data source on the CPU."""
    return open_data(settings_for(*args, **kwargs), device="cpu")


def batches(source: DataSource, steps: range, micro: range = range(2), epoch: int = 0) -> list[MicroBatch]:
    """Micro batches of a few steps."""
    return list(source.train(epoch, steps, micro))


def same(ours: list[MicroBatch], others: list[MicroBatch]) -> bool:
    """Whether two lists of micro batches are equal in every bit."""
    return len(ours) == len(others) and all(
        a[2:] == b[2:] and torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        for a, b in zip(ours, others, strict=True)
    )


def photograph(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """uint8 (H, W, C): smooth shapes, edges and a little noise."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = generator.integers(0, 256, 3)
    pixels += generator.normal(0, 4, pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)[..., :channels]


def encoded(pixels: np.ndarray, format: str = "JPEG", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def make_folders(root: Path, train: int = 24, val: int = 9, classes: int = 3, side: int = 40) -> Data:
    """`train/` and `val/` with JPEG files of different sizes in class folders; returns their Data."""
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            folder = root / split / f"class{i % classes}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = photograph(1000 * len(split) + i, side + 3 * (i % 5), side + 4 * (i % 7))
            (folder / f"{i:04d}.jpg").write_bytes(encoded(pixels, quality=92))
    return Data(name="photos", reader="folder", root=str(root), classes=classes, image_size=32)
