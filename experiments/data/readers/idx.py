"""IDX files as MNIST and Fashion-MNIST are published, plain or gzipped, read with bounded memory."""

import gzip
import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from experiments.config.settings import Data
from experiments.data.patience import passing
from experiments.data.readers.find import cache_folder, cached_checksum, candidates, not_found
from experiments.data.splits import ImageArrays, Splits
from experiments.errors import ConfigError, DataError

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
PIECE = 2**20  # bytes read at a time
LARGEST = 2**31  # bytes of one file after decompression
MOST_IMAGES = 2**26  # their labels take eight bytes each
TORCHVISION = {"fashion_mnist": "FashionMNIST", "mnist": "MNIST", "kmnist": "KMNIST"}
FASHION = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def read(data: Data, image_size: int) -> Splits:
    """Read the four files; grey images of the size that the files have."""
    found = _files(data)
    train = _read_pair(found[TRAIN[0]], found[TRAIN[1]])
    # with a holdout the test set is not touched at all
    evaluation = train if data.holdout else _read_pair(found[TEST[0]], found[TEST[1]])
    classes = data.classes or int(train.labels.max()) + 1
    for part, name in ((train, TRAIN[1]), (evaluation, TEST[1])):
        if part.labels.max() >= classes:
            raise DataError(f"{found[name]}: label {part.labels.max()}, but data.classes={classes}")
    fashion = data.name == "fashion_mnist" and classes == len(FASHION)
    return Splits(train, evaluation, FASHION if fashion else tuple(str(label) for label in range(classes)))


def checksum(data: Data) -> str:
    """Hash of the decompressed files, so that plain and gzipped copies are the same data."""
    found = _files(data)
    return cached_checksum(list(found.values()), lambda: _contents(list(found.values())))


def _contents(paths: list[Path]) -> Iterator[bytes]:
    for path in paths:
        shape, values = _read_idx(path)
        yield f"{shape}".encode()
        yield values.data  # type: ignore[misc]  # a hash takes it as it is


def _files(data: Data) -> dict[str, Path]:
    """Where each file is; downloads them where data.download allows it."""
    names = TRAIN if data.holdout else TRAIN + TEST
    published = TORCHVISION.get(data.name, data.name)
    dashed = data.name.replace("_", "-")
    debian = f"/usr/share/datasets/{dashed}"  # its package dataset-fashion-mnist
    places = candidates(data, [f"data/{dashed}", debian])
    places = [place / below for place in places for below in ("", "raw", f"{published}/raw")]
    found = _complete(places, names)
    if found is None and data.download:
        place = _download(data) / published / "raw"
        found = _complete([place], names)
    if found is None:
        looked_in = [place for place in places if place.name != "raw"]
        raise not_found(data, f"{', '.join(names)} (plain or .gz)", looked_in)
    return found


def _complete(places: list[Path], names: tuple[str, ...]) -> dict[str, Path] | None:
    for place in places:
        options = {name: [place / name, place / f"{name}.gz"] for name in names}
        found = {name: path for name, paths in options.items() for path in reversed(paths) if path.is_file()}
        if len(found) == len(names):
            return found
    return None


def _download(data: Data) -> Path:
    """Let torchvision fetch the files from its mirrors and check their MD5 sums; returns its root folder."""
    if data.name not in TORCHVISION:
        raise ConfigError(f"data.download=true knows {', '.join(TORCHVISION)}, not data={data.name}; set data.root")
    import torchvision.datasets  # takes a second, and is needed for downloads only

    root = Path(data.root).expanduser() if data.root else cache_folder()
    try:
        getattr(torchvision.datasets, TORCHVISION[data.name])(root, download=True)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"data={data.name}: the download to {root} failed ({reason}); set data.root instead") from None
    return root


def _read_pair(images_path: Path, labels_path: Path) -> ImageArrays:
    shape, images = _read_idx(images_path)
    label_shape, labels = _read_idx(labels_path)
    if len(shape) != 3 or len(label_shape) != 1:
        raise DataError(f"{images_path}: expected images of two axes and labels of none, not {shape} and {label_shape}")
    if shape[0] != label_shape[0] or shape[0] == 0:
        raise DataError(f"{images_path} holds {shape[0]} images, but {labels_path.name} {label_shape[0]} labels")
    return ImageArrays(images.reshape(*shape, 1), labels.astype(np.int64))


def _read_idx(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and flat uint8 values; DataError where the header and the size disagree."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4)
            if len(header) < 4 or header[:3] != b"\x00\x00\x08" or not 1 <= header[3] <= 3:
                raise DataError(
                    f"{path} is not an IDX file of unsigned bytes: it starts with {header.hex() or 'nothing'}"
                )
            sizes = file.read(4 * header[3])
            shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
            expected, largest = math.prod(shape), MOST_IMAGES if len(shape) == 1 else LARGEST
            if expected > largest:
                raise DataError(f"{path} announces {expected} bytes ({shape}); at most {largest} are read")
            content = np.empty(expected, dtype=np.uint8)
            held = _fill(file, memoryview(content))  # type: ignore[arg-type]
            if held == expected and file.read(1):
                held += 1
    except (OSError, EOFError, zlib.error) as error:
        if passing(error):
            raise
        raise DataError(f"{path} cannot be read: {error}") from None
    if held != expected:
        more = "more" if held > expected else str(held)
        raise DataError(f"{path}: its header announces {expected} bytes ({shape}), but it holds {more}")
    return shape, content


def _fill(file: io.BufferedIOBase, buffer: memoryview) -> int:
    """Read into a buffer, of which the system gives out no page before there is something in it; how many bytes."""
    done = 0
    while done < len(buffer):
        step = file.readinto(buffer[done : done + PIECE])
        if not step:
            break
        done += step
    return done
