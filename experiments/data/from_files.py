"""Large data sets: files decoded by worker processes in chunks, augmented in micro batches on the training device."""

import atexit
import logging
import multiprocessing
import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from experiments.data.augment.normalise import Augmenter, Normaliser
from experiments.data.damage import EVALUATION, TRAIN, Damage
from experiments.data.in_memory import keep_freed_memory
from experiments.data.patience import one_line
from experiments.data.source import MicroBatch, Pipeline, evaluation_batches, images_of, sample_batches
from experiments.data.splits import ImageFiles, Splits
from experiments.data.waiting import Delivery
from experiments.data.worker import ChunkDataset, ChunkSampler, LoadedChunk, chunks_of, start_worker
from experiments.errors import DataError, StorageError
from experiments.runtime.device import one_thread
from experiments.runtime.distributed import Ranks

PREFETCHED = 6  # chunks per worker that are loaded ahead
log = logging.getLogger(__name__)


class FileSource:
    """A DataSource over files; see experiments.data.source for what the methods promise. One pass at a time."""

    def __init__(self, asked: Pipeline, splits: Splits, device: torch.device) -> None:
        if device.type == "cpu":
            keep_freed_memory()
        assert isinstance(splits.train, ImageFiles) and isinstance(splits.evaluation, ImageFiles)
        self._asked, self._device = asked, device
        # a GPU augments whole batches; on a CPU the workers do
        augment, by_workers = Augmenter(asked.data, asked.recipe, asked.seed), device.type == "cpu"
        self._augment = None if by_workers else augment
        self._normaliser = Normaliser(asked.data, asked.recipe.erasing, asked.seed, asked.train_side, device)
        self._evaluation_normaliser = Normaliser(asked.data, 0.0, asked.seed, asked.image_size, device)
        self.class_names = splits.class_names
        self.num_classes, self.in_chans = len(splits.class_names), asked.data.channels
        self.train_size, self.eval_size = len(splits.train), len(splits.evaluation)
        self._labels = (torch.from_numpy(splits.train.labels), torch.from_numpy(splits.evaluation.labels))
        self._orders = ChunkSampler()
        self._may_end = multiprocessing.Event()  # until it is set, workers ignore SIGTERM
        # multiprocessing sends SIGTERM at exit and then waits for the workers, as torch does for a lost loader
        weakref.finalize(self, self._may_end.set)
        atexit.register(self._may_end.set)
        self._loader: DataLoader[LoadedChunk] | None = DataLoader(
            ChunkDataset(asked, splits.train, splits.evaluation, augment if by_workers else None),
            batch_size=None,  # a chunk is a whole item
            sampler=self._orders,
            num_workers=asked.workers,
            worker_init_fn=partial(start_worker, self._may_end),
            persistent_workers=asked.workers > 0,
            prefetch_factor=PREFETCHED if asked.workers else None,
            pin_memory=device.type == "cuda",
        )
        self._pass = 0
        self._loaded: Any = None  # what the loader's workers deliver in this pass
        self._delivery: Delivery | None = None
        self._files = {TRAIN: splits.train, EVALUATION: splits.evaluation}
        self.damage = Damage(self.train_size, self.eval_size)

    def train(self, epoch: int, steps: range, micro: range) -> Iterator[MicroBatch]:
        """Micro batches of the given steps. Workers begin at the call, before the first batch is asked for."""
        queue = list(sample_batches(self._asked, epoch, self.train_size, steps, micro))
        batches = self._start(epoch, [item.samples for item in queue])
        return (
            MicroBatch(self._finished(parts, epoch, item.samples), self._labels_of(0, item.samples), *item[:2])
            for item, parts in zip(queue, batches, strict=True)
        )

    def evaluate(self, rank: int = 0, world_size: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """Centre crops of this rank's evaluation images, with their labels."""
        blocks = evaluation_batches(self.eval_size, self._asked.batch.micro, rank, world_size)
        batches = self._start(None, blocks)
        return (
            (self._finished(parts, None, samples), self._labels_of(1, samples))
            for samples, parts in zip(blocks, batches, strict=True)
        )

    def _start(self, epoch: int | None, batches: list[np.ndarray]) -> Iterator[Iterator[Tensor]]:
        """Give the workers their orders; returns the parts of each batch, uint8 (b, C, S, S) on the device."""
        if self._loader is None:
            raise RuntimeError("the data source is closed")
        self._pass += 1
        asked, split = self._asked, EVALUATION if epoch is None else TRAIN
        chunks = [chunks_of(epoch, samples, asked.side(epoch), asked.workers) for samples in batches]
        self._orders.chunks = [chunk for batch in chunks for chunk in batch]
        loaded = self._loaded = iter(self._loader)
        if asked.workers and self._delivery is None:  # with workers it is one iterator for all passes
            self._delivery = Delivery(loaded, asked.worker_timeout)
        current = self._pass
        return (self._parts(current, loaded, len(batch), split) for batch in chunks)

    def _parts(self, current: int, loaded: Any, count: int, split: str) -> Iterator[Tensor]:
        for _ in range(count):
            if current != self._pass:
                raise RuntimeError("another pass over the data has begun")
            chunk = next(loaded)
            self._note(chunk, split)
            yield chunk.images.to(self._device, non_blocking=True)

    @torch.no_grad()
    @one_thread()
    def _finished(self, parts: Iterator[Tensor], epoch: int | None, samples: np.ndarray) -> Tensor:
        """A batch as the network sees it: on a CPU each part as it comes, on a GPU all at once."""
        whole: Iterable[Tensor] = parts if self._device.type == "cpu" else [torch.cat(list(parts))]
        if epoch is None:
            return self._evaluation_normaliser.normalise(whole, len(samples))
        if self._augment is not None:
            whole = [self._augment(images, epoch, samples) for images in whole]
        return self._normaliser.train(whole, epoch, samples)

    def _labels_of(self, split: int, samples: np.ndarray) -> Tensor:
        labels = self._labels[split][torch.from_numpy(images_of(samples))]
        if self._device.type == "cuda":
            labels = labels.pin_memory()
        return labels.to(self._device, non_blocking=True)

    def _note(self, chunk: LoadedChunk, split: str) -> None:
        """Log each unreadable file once; DataError when they are too many, StorageError when the machine failed."""
        if chunk.passing is not None:
            raise StorageError(chunk.passing)
        for image, reason in chunk.damaged:
            if self.damage.add(split, image):
                name = one_line(self._files[split].names[image])
                log.warning("unreadable image %s (%s); another one of its class takes its place", name, reason)
                self._refuse_too_many(split, f"the last is {name} ({reason})")
        if chunk.hopeless is not None:
            name = one_line(chunk.hopeless)
            raise DataError(f"{name} and the images of its class that could replace it are all unreadable")

    def _refuse_too_many(self, split: str, example: str) -> None:
        share, images = self._asked.data.damaged_share, len(self._files[split])
        count = len(self.damage.images(split))
        if count > share * images:
            raise DataError(
                f"{count} of {images} images are unreadable, more than data.damaged_share={share} allows; {example}"
            )

    def share_damage(self, ranks: Ranks) -> None:
        """Count what any rank has met; DataError, on all of them, when that is too much."""
        self.damage.share(ranks)
        for split in self._files:
            self._refuse_too_many(split, "the ranks' logs name them")

    def close(self) -> None:
        """End the worker processes."""
        self._pass += 1
        self._may_end.set()
        atexit.unregister(self._may_end.set)
        if self._delivery is not None:
            self._delivery.end()
        self._loader = self._loaded = self._delivery = None
