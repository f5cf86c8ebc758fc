"""What a worker process does: load a chunk, a few images of one pass, and say which files were unreadable."""

import gc
import multiprocessing.queues
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.synchronize import Event
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments.data.augment.crops import centre_crops, draw_crops, evaluation_side, training_crops
from experiments.data.augment.normalise import Augmenter
from experiments.data.decode import UnreadableImage, View, load_crops
from experiments.data.in_memory import keep_freed_memory
from experiments.data.source import Pipeline, images_of
from experiments.data.splits import ImageFiles
from experiments.errors import StorageError
from experiments.randomness import derive
from roadmap.errors import first_line

# of a chunk: enough that a worker's batched operations pay, and little enough that what they need stays in a cache
MOST_IMAGES, MOST_PIXELS = 32, 2**19
REPLACEMENTS = 32  # images of the same class that are tried in place of an unreadable one


class Chunk(NamedTuple):
    """An order to a worker: `samples` of the training set in an epoch, or (None) of the evaluation set."""

    epoch: int | None
    samples: np.ndarray


class LoadedChunk(NamedTuple):
    """What comes back: 8-bit images, and (position in the split, reason) of every file that could not be read."""

    images: Tensor  # uint8 (B, C, S, S)
    damaged: list[tuple[int, str]]
    hopeless: str | None  # the name of an image that could not be replaced either
    passing: str | None = None  # the machine's error because of which there are no images


class ChunkDataset(torch.utils.data.Dataset[LoadedChunk]):
    """Maps a Chunk to its LoadedChunk images; a function of nothing else, so that any worker may do it.

    `augment` is applied too: to a chunk of the training set, where no GPU does it better.
    """

    def __init__(
        self, asked: Pipeline, train: ImageFiles, evaluation: ImageFiles, augment: Augmenter | None = None
    ) -> None:
        self.asked, self.train, self.evaluation, self.augment = asked, train, evaluation, augment

    def __getitem__(self, chunk: Chunk) -> LoadedChunk:
        try:
            return self._loaded(chunk)
        except StorageError as error:  # raised where it is one line still, in the parent
            return LoadedChunk(torch.empty(0, dtype=torch.uint8), [], None, str(error))

    def _loaded(self, chunk: Chunk) -> LoadedChunk:
        data, size = self.asked.data, self.asked.side(chunk.epoch)
        images = torch.empty(len(chunk.samples), data.channels, size, size, dtype=torch.uint8)
        files = self.train if chunk.epoch is not None else self.evaluation
        damaged: list[tuple[int, str]] = []
        for position, image in enumerate(self._load(files, images_of(chunk.samples), chunk)):
            if isinstance(image, UnreadableImage):
                only = chunk._replace(samples=chunk.samples[position : position + 1])
                (sample,) = images_of(only.samples).tolist()
                damaged.append((sample, str(image)))
                replacement = self._replacement(files, only, damaged)
                if replacement is None:
                    return LoadedChunk(images, damaged, files.names[sample])
                image = replacement
            images[position] = image
        if chunk.epoch is not None and self.augment is not None:
            images = self.augment(images, chunk.epoch, chunk.samples)
        return LoadedChunk(images, damaged, None)

    def _load(self, files: ImageFiles, candidates: np.ndarray, chunk: Chunk) -> list[Tensor | UnreadableImage]:
        """The files `candidates`, cut out as is due to the chunk's images, however many or few these are."""
        asked = self.asked
        paths = [files.root / files.names[candidate] for candidate in candidates]
        how = (asked.side(chunk.epoch), asked.data.channels, asked.recipe.interpolation)
        return load_crops(paths, self._view(chunk), *how)

    def _view(self, chunk: Chunk) -> View:
        """Which part to show of each of the chunk's images, once their sizes are known."""
        asked, size = self.asked, self.asked.side(chunk.epoch)
        if chunk.epoch is None:
            return partial(centre_crops, size, evaluation_side(size, asked.recipe.eval_crop))
        drawn = draw_crops(asked.recipe, (asked.seed, chunk.epoch), chunk.samples)
        return partial(training_crops, asked.recipe, size, drawn)

    def _replacement(self, files: ImageFiles, only: Chunk, damaged: list[tuple[int, str]]) -> Tensor | None:
        """The first readable one of other images of the same class as the chunk's only one."""
        for candidate in self._candidates(files, int(images_of(only.samples)[0])):
            image = self._load(files, np.array([candidate]), only)[0]
            if not isinstance(image, UnreadableImage):
                return image
            damaged.append((candidate, str(image)))
        return None

    @staticmethod
    def _candidates(files: ImageFiles, sample: int) -> Iterator[int]:
        """Images that may replace one, in an order that depends on nothing else."""
        members = np.flatnonzero(files.labels == files.labels[sample])
        for attempt in range(REPLACEMENTS):
            yield int(members[derive("replacement", sample, attempt) % len(members)])


@dataclass
class ChunkSampler:
    """The chunks of the current pass, as a sampler for a DataLoader that lives longer than one pass."""

    chunks: list[Chunk] = field(default_factory=list)

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)


def start_worker(may_end: Event, _: int) -> None:
    """Leave signals to the parent, which decides when to stop; a worker whose parent is gone ends by itself.

    A scheduler's SIGTERM reaches every process of a job: workers ignore it until the parent has set `may_end`.
    """

    def terminated(_signal: int, _frame: object) -> None:
        if may_end.is_set():
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminated)
    # what this thread cannot send, as with a full /dev/shm, is a lost batch: Python would only print a traceback
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_without_delivery)  # type: ignore[attr-defined]
    gc.freeze()  # to look for garbage in what the parent made would copy all of it
    keep_freed_memory()


def _end_without_delivery(error: Exception, _: object) -> None:
    """End this worker, which the run notices within seconds, where a batch could not be handed over."""
    reason = first_line(error)
    print(f"a data worker cannot hand over its images: {reason}", file=sys.stderr, flush=True)
    os._exit(1)


def chunks_of(epoch: int | None, samples: np.ndarray, side: int, workers: int) -> list[Chunk]:
    """The chunks of a batch, of which every worker gets its share."""
    size = max(1, min(MOST_IMAGES, MOST_PIXELS // side**2, -(-len(samples) // max(1, workers))))
    return [Chunk(epoch, samples[start : start + size]) for start in range(0, len(samples), size)]
