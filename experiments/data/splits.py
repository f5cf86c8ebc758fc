"""Labelled images before they are loaded, and which of them train and which evaluate."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from experiments.config.settings import Data
from experiments.errors import DataError
from experiments.randomness import derive, permutation

Part = TypeVar("Part", bound="ImageArrays | ImageFiles")


@dataclass(frozen=True)
class ImageArrays:
    """Decoded images in memory."""

    pixels: np.ndarray  # uint8 (N, H, W, C)
    labels: np.ndarray  # int64 (N,)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "ImageArrays":
        """The images at `indices`."""
        return ImageArrays(self.pixels[indices], self.labels[indices])


@dataclass(frozen=True)
class ImageFiles:
    """Image files below a folder."""

    root: Path
    names: np.ndarray  # object (N,): paths relative to root
    labels: np.ndarray  # int64 (N,)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "ImageFiles":
        """The files at `indices`."""
        return replace(self, names=self.names[indices], labels=self.labels[indices])


@dataclass(frozen=True)
class Splits:
    """A data set: what trains, what evaluates (both arrays or both files), and the classes' names."""

    train: ImageArrays | ImageFiles
    evaluation: ImageArrays | ImageFiles
    class_names: tuple[str, ...]


def stratified(labels: np.ndarray, count: int, purpose: str) -> np.ndarray:
    """Positions, ascending, of `count` of the labels, in every class the same share (to one image).

    A function of the labels and the purpose alone: every run, whatever its seed, gets the same ones.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * (count / len(labels))
    quota = np.floor(exact).astype(np.int64)
    largest_remainders = np.argsort(quota - exact, kind="stable")[: count - quota.sum()]
    quota[largest_remainders] += 1
    chosen = []
    for label, size, wanted in zip(classes, sizes, quota, strict=True):
        members = np.flatnonzero(labels == label)
        chosen.append(members[permutation(derive(purpose, int(label)), int(size))[:wanted]])
    return np.sort(np.concatenate(chosen))


def divide(part: Part, count: int, purpose: str) -> tuple[Part, Part]:
    """Split off a stratified part of `count` images; returns (the rest, this part)."""
    chosen = stratified(part.labels, count, purpose)
    rest = np.setdiff1d(np.arange(len(part)), chosen)
    return part.take(rest), part.take(chosen)  # type: ignore[return-value]


def chosen_images(splits: Splits, data: Data) -> Splits:
    """Apply data.holdout, data.train_images and data.eval_images.

    A holdout is taken from the training images and replaces the evaluation images, so that tuning never sees the test
    set. The subsets are taken afterwards.
    """
    train, evaluation = splits.train, splits.evaluation
    if data.holdout:
        train, evaluation = divide(train, round(data.holdout * len(train)), "holdout")
    train = _subset(train, data.train_images, "data.train_images")
    evaluation = _subset(evaluation, data.eval_images, "data.eval_images")
    missing = np.flatnonzero(np.bincount(train.labels, minlength=len(splits.class_names)) == 0)
    if len(missing):
        names = ", ".join(splits.class_names[i] for i in missing[:5])
        raise DataError(
            f"data={data.name}: no training image of {len(missing)} of {len(splits.class_names)} classes ({names});"
            " raise data.train_images or lower data.holdout"
        )
    if not len(evaluation):
        raise DataError(f"data={data.name}: no image to evaluate on; raise data.holdout or data.eval_images")
    return replace(splits, train=train, evaluation=evaluation)


def _subset(part: Part, count: int | None, key: str) -> Part:
    if count is None or count == len(part):
        return part
    if count > len(part):
        raise DataError(f"{key}={count} is more than the {len(part)} images that there are")
    return part.take(stratified(part.labels, count, key))  # type: ignore[return-value]
