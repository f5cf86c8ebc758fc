"""CIFAR-10 and CIFAR-100 in the published binary version; the Python version is a pickle and is never opened."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.config.settings import Data
from experiments.data.patience import passing
from experiments.data.readers.find import cache_folder, cached_checksum, candidates, not_found
from experiments.data.splits import ImageArrays, Splits
from experiments.errors import ConfigError, DataError

PIXELS = 3 * 32 * 32
LARGEST_ARCHIVE = 2**28  # bytes after decompression; the published ones have 184 million


class Version(NamedTuple):
    """File names and layout of one of the two sets; a record is label bytes, of which the last counts, and pixels."""

    classes: int
    folder: str
    archive: str
    md5: str
    pickled: tuple[str, str]
    train: tuple[str, ...]
    test: str
    names: str
    label_bytes: int
    train_records: int  # in each file
    test_records: int


VERSIONS = {
    10: Version(
        10,
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test_batch.bin",
        "batches.meta.txt",
        1,
        10_000,
        10_000,
    ),
    100: Version(
        100,
        "cifar-100-binary",
        "cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        ("cifar-100-python", "cifar-100-python.tar.gz"),
        ("train.bin",),
        "test.bin",
        "fine_label_names.txt",
        2,
        50_000,
        10_000,
    ),
}


class Bounded(io.RawIOBase):
    """An unpacked stream of no more than LARGEST_ARCHIVE bytes; tarfile reads headers of whatever length they name."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file, self._left = file, LARGEST_ARCHIVE

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes; DataError where there were too many."""
        size = self._file.readinto(buffer)
        self._left -= size
        if self._left < 0:
            raise DataError(f"{self._file.name} unpacks to more than {LARGEST_ARCHIVE} bytes, not as published")
        return size


def read(data: Data, image_size: int) -> Splits:
    """Read the images, 32 x 32 in colour, from the folder or straight from the archive."""
    version = _version(data)
    files = _contents(data, version)
    train = _images(version, b"".join(files[name] for name in version.train))
    evaluation = train if data.holdout else _images(version, files[version.test])
    names = files[version.names].decode("ascii", "replace").split()
    known = len(names) == version.classes
    return Splits(train, evaluation, tuple(names) if known else tuple(map(str, range(version.classes))))


def checksum(data: Data) -> str:
    """Hash of the binary files, whether they are unpacked or not."""
    version = _version(data)
    place = _place(data, version)
    paths = [place] if place.is_file() else [place / name for name in _needed(data, version)]
    return cached_checksum(paths, lambda: [_contents(data, version)[name] for name in _needed(data, version)])


def _version(data: Data) -> Version:
    if data.classes not in VERSIONS:
        raise ConfigError(f"data.classes={data.classes} with data.reader=cifar must be 10 or 100")
    return VERSIONS[data.classes]


def _needed(data: Data, version: Version) -> tuple[str, ...]:
    return version.train if data.holdout else (*version.train, version.test)


def _place(data: Data, version: Version) -> Path:
    """The folder or the archive; downloads the archive where data.download allows it."""
    folders = candidates(data)
    for folder in folders:
        for place in (folder / version.folder, folder / version.archive):
            if place.exists():
                return place
        if all((folder / name).is_file() for name in _needed(data, version)):
            return folder
    if data.download:
        return _download(data, version)
    pickled = [folder / name for folder in folders for name in version.pickled if (folder / name).exists()]
    if pickled:
        raise DataError(
            f"{pickled[0]} is the pickled version of {data.name}, which is not read because pickles can run code;"
            f" get {version.archive} from https://www.cs.toronto.edu/~kriz/cifar.html, or set data.download=true"
        )
    raise not_found(data, f"{version.folder}/ or {version.archive}", folders)


def _download(data: Data, version: Version) -> Path:
    from torchvision.datasets.utils import download_url  # takes a second, and is needed for downloads only

    root = Path(data.root).expanduser() if data.root else cache_folder()
    try:
        download_url(f"https://www.cs.toronto.edu/~kriz/{version.archive}", root, version.archive, version.md5)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"data={data.name}: the download to {root} failed ({reason}); set data.root instead") from None
    return root / version.archive


def _contents(data: Data, version: Version) -> dict[str, bytes]:
    """The needed files' bytes, of exactly the published sizes, and the file of class names (empty where missing)."""
    place = _place(data, version)
    record = version.label_bytes + PIXELS
    sizes = dict.fromkeys(version.train, version.train_records * record)
    sizes |= {version.test: version.test_records * record}
    needed = _needed(data, version)
    try:
        read_file = _from_archive(place, version) if place.is_file() else _from_folder(place)
        contents = {name: read_file(name, sizes[name] + 1) for name in needed}
        contents[version.names] = read_file(version.names, 65536)
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError) as error:
        if passing(error):
            raise
        raise DataError(f"{place} cannot be read: {error}") from None
    for name in needed:
        if len(contents[name]) != sizes[name]:
            held = "more" if len(contents[name]) > sizes[name] else f"{len(contents[name])} bytes"
            raise DataError(f"{name} in {place}: expected {sizes[name]} bytes, it holds {held}")
    return contents


def _from_folder(place: Path) -> Callable[[str, int], bytes]:
    def read_file(name: str, limit: int) -> bytes:
        if not (place / name).is_file():
            return b""
        with (place / name).open("rb") as file:
            return file.read(limit)

    return read_file


def _from_archive(place: Path, version: Version) -> Callable[[str, int], bytes]:
    """Reads members by their published names; nothing is unpacked, so no name can point outside."""
    wanted = {f"{version.folder}/{name}": name for name in (*version.train, version.test, version.names)}
    contents: dict[str, bytes] = {}
    record = version.label_bytes + PIXELS
    limit = max(version.train_records, version.test_records) * record + 1
    with gzip.open(place) as packed, tarfile.open(fileobj=Bounded(packed), mode="r|") as archive:
        while (member := archive.next()) is not None:
            name = wanted.get(member.name.removeprefix("./"))
            file = archive.extractfile(member) if name is not None and member.isreg() else None
            if name is not None and file is not None:
                contents[name] = file.read(limit)
            archive.members = []  # type: ignore[attr-defined]  # it keeps them, and there may be half a million
    return lambda name, _: contents.get(name, b"")


def _images(version: Version, content: bytes) -> ImageArrays:
    table = np.frombuffer(content, dtype=np.uint8).reshape(-1, version.label_bytes + PIXELS)
    labels = table[:, version.label_bytes - 1].astype(np.int64)
    if labels.max() >= version.classes:
        raise DataError(f"{version.folder}: label {labels.max()} among {version.classes} classes")
    pixels = table[:, version.label_bytes :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return ImageArrays(np.ascontiguousarray(pixels), labels)
