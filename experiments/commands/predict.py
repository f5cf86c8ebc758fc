"""`python -m experiments predict TARGET IMAGE...`: which classes a trained network sees in images."""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from experiments.commands.target import add_target, network_of, shown_names
from experiments.data.decode import UnreadableImage, opened
from experiments.data.readers.folder import SUFFIXES
from experiments.errors import ConfigError, DataError
from experiments.runtime.device import pick_device
from roadmap.escape import csv_cell, visible
from roadmap.network import RoadmapNet


class Guess(NamedTuple):
    """One of the likeliest classes of an image."""

    name: str
    probability: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_target(parser)
    parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--top", type=int, default=5, help="how many classes an image (default: 5)")
    parser.add_argument("--csv", type=Path, help="write a table here: image, rank, class, probability")
    parser.add_argument("--batch", type=int, default=32, help="images per forward pass")
    parser.add_argument("--device", default="auto")


def run(options: argparse.Namespace) -> int:
    """Print a line per image; returns 0, or 3 where a file was no image."""
    if options.top < 1 or options.batch < 1:
        raise ConfigError("--top and --batch must be at least 1")
    paths = list(_files(options.images))
    device = pick_device(options.device)
    model = network_of(options).to(device).to(memory_format=torch.channels_last)
    rows, broken = [], 0
    for path, guesses in predictions(model, paths, options.top, options.batch, device):
        if isinstance(guesses, UnreadableImage):
            broken += 1
            print(visible(f"{path}: {guesses}"), file=sys.stderr)
            continue
        print(visible(f"{path}  " + "  ".join(f"{guess.name} {guess.probability:.3f}" for guess in guesses)))
        for rank, guess in enumerate(guesses, start=1):
            rows.append((csv_cell(str(path)), rank, csv_cell(guess.name), guess.probability))
    if options.csv:
        with options.csv.open("w", newline="") as file:
            csv.writer(file).writerows([("image", "rank", "class", "probability"), *rows])
    return DataError.exit_code if broken else 0


def predictions(
    model: RoadmapNet, paths: Sequence[Path], top: int, batch: int, device: torch.device
) -> Iterator[tuple[Path, list[Guess] | UnreadableImage]]:
    """The `top` likeliest classes of each image file, or why it cannot be read."""
    names, transform, left = shown_names(model), model.eval_transform(), iter(paths)
    while part := list(islice(left, batch)):
        images: dict[Path, Tensor | UnreadableImage] = {path: opened(path, transform) for path in part}
        whole = [image for image in images.values() if isinstance(image, Tensor)]
        found = iter(_classes(model, torch.stack(whole).to(device), top, names) if whole else [])
        for path, image in images.items():
            yield path, image if isinstance(image, UnreadableImage) else next(found)


@torch.no_grad()
def _classes(model: RoadmapNet, images: Tensor, top: int, names: Sequence[str]) -> list[list[Guess]]:
    shares, classes = model(images).float().softmax(1).topk(min(top, model.num_classes))
    pairs = zip(shares.tolist(), classes.tolist(), strict=True)
    return [[Guess(names[i], share) for share, i in zip(*row, strict=True)] for row in pairs]


def _files(places: Sequence[Path]) -> Iterator[Path]:
    """The files named, and the images below the folders named, sorted. Raises DataError."""
    for place in places:
        if not place.exists():
            raise DataError(f"{place} does not exist")
        if not place.is_dir():
            yield place
            continue
        found = sorted(path for path in place.rglob("*") if path.name.lower().endswith(SUFFIXES))
        if not found:
            raise DataError(f"{place} holds no images; expected {', '.join(SUFFIXES)} files")
        yield from found
