"""From settings to an open data set. Imports torch only when a data set is opened."""

import dataclasses
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from experiments.config.registry import READERS
from experiments.config.settings import Data, Settings
from experiments.data.patience import read_or_refuse
from experiments.data.source import DataSource, Pipeline, steps_per_epoch
from experiments.data.splits import ImageArrays, ImageFiles, Splits, chosen_images
from experiments.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch


class Reader(Protocol):
    """What a module in experiments.data.readers offers."""

    def read(self, data: Data, image_size: int) -> Splits:
        """The images, before subsets are taken."""
        ...

    def checksum(self, data: Data) -> str:
        """A hash of their content."""
        ...


def _reader(data: Data) -> Reader:
    reader: Reader = READERS[data.reader].load()
    return reader


def checksum_of(data: Data) -> str:
    """32 hex digits that stand for the data's content; DataError where it is missing. Imports no torch."""
    return read_or_refuse(f"data={data.name}", _reader(data).checksum, data)


def with_checksum(data: Data) -> Data:
    """The same with its checksum filled in, which is computed unless it is known already."""
    return data if data.checksum else dataclasses.replace(data, checksum=checksum_of(data))


def evaluation_size(settings: Settings) -> int:
    """How many images a run is scored on; reads the set or lists its files. DataError where it is missing."""
    data = settings.data
    return len(_images(with_checksum(data), settings.image_size).evaluation)


@lru_cache(maxsize=1)  # the runs of a study, one after the other in one process, share what is read
def _images(data: Data, image_size: int) -> Splits:
    """The images of a set; `data.checksum` says which content they have."""
    return chosen_images(read_or_refuse(f"data={data.name}", _reader(data).read, data, image_size), data)


def open_data(settings: Settings, *, device: "torch.device | str", to_train: bool = True) -> DataSource:
    """Read a data set, or list its files, and make it ready for training, or for evaluation alone, on `device`.

    Every rank holds the whole set: `train` and `evaluate` are told which share is theirs.
    Raises DataError where files are missing, damaged or of another shape than configured, ConfigError where the
    settings contradict each other or an epoch would have no step.
    """
    import torch

    if settings.data.channels not in (1, 3):
        raise ConfigError(f"data.channels={settings.data.channels} must be 1 or 3: images are grey or coloured")
    data = with_checksum(settings.data)
    splits = _images(data, settings.image_size)
    if to_train:
        steps_per_epoch(len(splits.train), settings.batch.size)
    if data.classes is not None and len(splits.class_names) != data.classes:
        raise DataError(f"data={data.name} has {len(splits.class_names)} classes, but data.classes={data.classes}")
    device = torch.device(device)
    asked = Pipeline.of(settings)
    if isinstance(splits.train, ImageFiles):
        from experiments.data.from_files import FileSource

        return FileSource(asked, splits, device)
    from experiments.data.in_memory import InMemorySource

    _check_channels(splits.train, data)
    return InMemorySource(asked, splits, device)


def _check_channels(images: ImageArrays, data: Data) -> None:
    """Grey images are shown in as many channels as asked for; colour is not thrown away."""
    found = images.pixels.shape[3]
    if found not in (1, data.channels):
        raise DataError(f"data={data.name} has images of {found} channels, but data.channels={data.channels}")
