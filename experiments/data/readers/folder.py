"""Class folders of image files: `train/CLASS/...` and `val/CLASS/...`, as ImageNet and Imagenette are unpacked."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.config.settings import Data
from experiments.data.readers.find import candidates, hashed, not_found
from experiments.data.splits import ImageFiles, Splits
from experiments.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
TRAIN, VAL = "train", "val"


class Entry(NamedTuple):
    """An image file: its path below the data set's folder, and its size in bytes (-1: not a readable file)."""

    name: str
    size: int


_listings: dict[tuple, dict[str, list[Entry]]] = {}


def read(data: Data, image_size: int) -> Splits:
    """List the files; the classes are the sorted names of the folders in train/."""
    root = _root(data)
    train = _listing(root, TRAIN)
    names = tuple(train)
    if data.classes is not None and data.classes != len(names):
        raise DataError(f"{root / TRAIN} has {len(names)} class folders, but data.classes={data.classes}")
    if data.holdout:
        files = _files(root, train)
        return Splits(files, files, names)
    val = _listing(root, VAL)
    if set(val) != set(names):
        only_train, only_val = sorted(set(names) - set(val)), sorted(set(val) - set(names))
        differences = [
            f"only in {split}/: {', '.join(some[:3])}{' ...' if len(some) > 3 else ''}"
            for split, some in ((TRAIN, only_train), (VAL, only_val))
            if some
        ]
        raise DataError(f"{root}: the class folders of train/ and val/ differ ({'; '.join(differences)})")
    return Splits(_files(root, train), _files(root, val), names)


def evaluation_only(root: Path) -> Splits:
    """Class folders of a set that is not for training, directly below `root` or in its val/; both parts are these.

    Folders that are all numbers (ImageNet-V2) are in the order of the numbers.
    """
    listing = _listing(root, VAL if (root / VAL).is_dir() else ".")
    if all(name.isdecimal() for name in listing):
        listing = dict(sorted(listing.items(), key=lambda item: int(item[0])))
    files = _files(root, listing)
    return Splits(files, files, tuple(listing))


def checksum(data: Data) -> str:
    """Hash of the files' relative paths and sizes; reading all of ImageNet would take hours on a slow disk."""
    root = _root(data)
    splits = (TRAIN,) if data.holdout else (TRAIN, VAL)

    def content() -> Iterator[bytes]:
        for split in splits:
            for entries in _listing(root, split).values():
                yield from (f"{entry.name}\0{entry.size}\n".encode() for entry in entries)

    return hashed(content())


def _root(data: Data) -> Path:
    folders = candidates(data)
    for folder in folders:
        if (folder / TRAIN).is_dir():
            if not data.holdout and not (folder / VAL).is_dir():
                raise DataError(f"{folder} has a train/ but no val/; expected both, or data.holdout above 0")
            return folder
    raise not_found(data, "the folders train/CLASS/ and val/CLASS/", folders)


def _listing(root: Path, split: str) -> dict[str, list[Entry]]:
    """Class name -> its images, all sorted; remembered while no class folder changes."""
    folders = sorted((item for item in os.scandir(root / split) if item.is_dir()), key=lambda item: item.name)
    key = (str(root), split, tuple((folder.name, folder.stat().st_mtime_ns) for folder in folders))
    if key not in _listings:
        listing = {folder.name: sorted(_images_in(root, f"{split}/{folder.name}")) for folder in folders}
        empty = [name for name, entries in listing.items() if not entries]
        if empty or not listing:
            where = f"{root / split / empty[0]}" if empty else f"{root / split}"
            raise DataError(f"{where} holds no images; expected {', '.join(SUFFIXES)} files in class folders")
        _listings[key] = listing
    return _listings[key]


def _images_in(root: Path, folder: str) -> Iterator[Entry]:
    """Image files in a folder and below it; links to folders are not followed, so there is no way around in circles."""
    for item in os.scandir(root / folder):
        name = f"{folder}/{item.name}"
        if item.is_dir(follow_symlinks=False):
            yield from _images_in(root, name)
        elif item.name.lower().endswith(SUFFIXES):
            # what is not a plain file is kept: it is met, named and replaced like any other unreadable image
            yield Entry(name, item.stat().st_size if item.is_file() else -1)


def _files(root: Path, listing: dict[str, list[Entry]]) -> ImageFiles:
    names = [entry.name for entries in listing.values() for entry in entries]
    labels = np.repeat(np.arange(len(listing)), [len(entries) for entries in listing.values()])
    return ImageFiles(root, np.array(names, dtype=object), labels.astype(np.int64))
