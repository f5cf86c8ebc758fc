"""What a worker process does: load a piece, a few images of one pass, and say which files were unreadable."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments.data.decode import UnreadableImage, load_window
from experiments.data.resident import keep_freed_memory
from experiments.data.splits import ImageFiles
from experiments.data.windows import Windows, centre_windows, evaluation_side, training_windows
from experiments.randomness import derive
from experiments.settings import Settings

PIECE = 16  # images: small, so that all workers share the first batch
REPLACEMENTS = 32  # images of the same class that are tried in place of an unreadable one


class Piece(NamedTuple):
    """An order to a worker: the images `samples` of the training set in an epoch, or (None) of the evaluation set."""

    epoch: int | None
    samples: np.ndarray


class Loaded(NamedTuple):
    """What comes back: 8-bit images, and (name, reason) of every file that could not be read."""

    images: Tensor  # uint8 (B, S, S, C)
    damaged: list[tuple[str, str]]
    hopeless: str | None  # the name of an image that could not be replaced either


class PieceLoader(torch.utils.data.Dataset[Loaded]):
    """Maps a Piece to its Loaded images; a function of nothing else, so that any worker may do it."""

    def __init__(self, settings: Settings, train: ImageFiles, evaluation: ImageFiles) -> None:
        self.settings, self.train, self.evaluation = settings, train, evaluation

    def __getitem__(self, piece: Piece) -> Loaded:
        size, channels = self.settings.image_size, self.settings.data.channels
        images = torch.empty(len(piece.samples), size, size, channels, dtype=torch.uint8)
        damaged: list[tuple[str, str]] = []
        for position, sample in enumerate(piece.samples):
            image = self._load(piece.epoch, int(sample), damaged)
            if image is None:
                files = self.train if piece.epoch is not None else self.evaluation
                return Loaded(images, damaged, files.names[sample])
            images[position] = image.permute(1, 2, 0)
        return Loaded(images, damaged, None)

    def _load(self, epoch: int | None, sample: int, damaged: list[tuple[str, str]]) -> Tensor | None:
        """An image, or the first readable one of others of its class, in an order that depends on the sample only."""
        files = self.train if epoch is not None else self.evaluation
        settings = self.settings
        size = settings.image_size

        def view(height: np.ndarray, width: np.ndarray) -> Windows:
            if epoch is None:
                return centre_windows(size, evaluation_side(size, settings.recipe.eval_crop), height, width)
            keys = (settings.seed, epoch)
            return training_windows(settings.recipe, size, keys, np.array([sample]), height, width)

        for candidate in self._candidates(files, sample):
            path = files.root / files.names[candidate]
            try:
                return load_window(path, view, size, settings.data.channels, settings.recipe.interpolation)
            except UnreadableImage as error:
                damaged.append((files.names[candidate], str(error)))
        return None

    @staticmethod
    def _candidates(files: ImageFiles, sample: int) -> Iterator[int]:
        yield sample
        members = np.flatnonzero(files.labels == files.labels[sample])
        for attempt in range(REPLACEMENTS):
            yield int(members[derive("replacement", sample, attempt) % len(members)])


@dataclass
class Orders:
    """The pieces of the current pass, as a sampler for a DataLoader that lives longer than one pass."""

    pieces: list[Piece] = field(default_factory=list)

    def __iter__(self) -> Iterator[Piece]:
        return iter(self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)


def start_worker(may_end: Event, _: int) -> None:
    """Leave signals to the parent, which decides when to stop; a worker whose parent is gone ends by itself.

    A scheduler's SIGTERM reaches every process of a job: workers ignore it until the parent has set `may_end`.
    """

    def terminated(_signal: int, _frame: object) -> None:
        if may_end.is_set():
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminated)
    keep_freed_memory()


def cut_up(epoch: int | None, samples: np.ndarray) -> list[Piece]:
    """The pieces of a batch."""
    return [Piece(epoch, samples[start : start + PIECE]) for start in range(0, len(samples), PIECE)]
