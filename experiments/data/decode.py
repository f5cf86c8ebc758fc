"""One image file to the 8-bit crop that a network sees, in bounded memory. Runs in worker processes.

One image at a time is decoded, and none of more than LARGEST_IMAGE pixels; its size is known before it is.
"""

import os
import stat
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import interpolate

from experiments.data.augment.crops import Axis, Crops, Line, shown_part
from experiments.data.headers import HEAD, LONGEST_HEADER, SHORTEST_SCAN, announced_size, is_endless, scans_of
from experiments.data.patience import patiently
from experiments.errors import StorageError
from roadmap.errors import MEMORY

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
LARGEST_FILE = 2**28  # bytes
LARGEST_IMAGE = 90_000_000  # pixels; the largest of ImageNet has 61 million
LARGEST_RESIZED = 2**24  # pixels of a resized image; of a larger one only the part that is shown is made
LARGEST_WORK = 2**35  # pixels times scans of a JPEG file, about ten seconds; a few bytes make a scan
KEPT_OPEN = 2**22  # bytes; larger files do not stay open while they wait for their turn
SCALED_DECODING = 2  # pixels that a JPEG decoded at a lower resolution must still have per output pixel

Result = TypeVar("Result")
View = Callable[[np.ndarray, np.ndarray], Crops]  # heights and widths (B,) -> the crops to show


class UnreadableImage(Exception):
    """A file that is not an image that we can or want to read; the message says why."""


@dataclass
class Measured:
    """A file whose image has these sides; the image too where it had to be opened to know them."""

    path: Path
    width: int
    height: int
    image: Image.Image | None

    def opened(self) -> Image.Image:
        """The open image, of which no more than the header is decoded."""
        image, self.image = self.image or _open(self.path), None
        if image.size != (self.width, self.height):
            image.close()
            raise UnreadableImage(f"its size changed from {self.width} x {self.height} pixels while it was read")
        return image


def load_crops(
    paths: Sequence[Path], view: View, size: int, channels: int, interpolation: str
) -> list[torch.Tensor | UnreadableImage]:
    """Decode files and cut their crops out: uint8 (channels, size, size) each, or why there is none.

    Raises StorageError where a file cannot be read at the moment, MemoryError where there is too little of it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about EXIF blocks, palettes and other things that do not matter here
        files = [_attempt(path, _measured, path) for path in paths]
        sizes = [(1, 1) if isinstance(file, UnreadableImage) else (file.height, file.width) for file in files]
        y, x, flip = view(*np.array(sizes).T)
        crops = zip(_lines(y), _lines(x), flip.tolist(), strict=True)
        how = (size, channels, interpolation)
        return [
            file if isinstance(file, UnreadableImage) else _attempt(file.path, _cut_out, file, *crop, *how)
            for file, crop in zip(files, crops, strict=True)
        ]


def opened(path: Path, transform: Callable[[Image.Image], torch.Tensor]) -> torch.Tensor | UnreadableImage:
    """What a transform makes of a file, read within the same bounds, or why it cannot be read."""

    def shown() -> torch.Tensor:
        with closing(_measured(path).opened()) as image:
            return transform(image)

    return _attempt(path, shown)


def _lines(axis: Axis) -> list[Line]:
    return [Line(*values) for values in zip(*(values.tolist() for values in axis), strict=True)]


def _attempt(path: Path, read: Callable[..., Result], *arguments: Any) -> Result | UnreadableImage:
    """What a function that reads `path` returns, or what is wrong with the image."""
    try:
        return patiently(path, read, *arguments)
    except StorageError:
        raise
    except UnreadableImage as error:
        return error
    except UnidentifiedImageError:
        return UnreadableImage(f"not one of {', '.join(FORMATS)}")
    except Exception as error:  # decoders raise whatever they like on damaged files
        said = str(error).partition("\n")[0]
        if isinstance(error, MemoryError) or MEMORY.search(str(error)):  # what an image may take is bounded
            raise MemoryError(f"{path}: {said}") from None
        return UnreadableImage(f"{type(error).__name__}: {said}")


def _measured(path: Path) -> Measured:
    """A file and the size of its image, which is allowed."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage("not a plain file")
    if status.st_size > LARGEST_FILE:
        raise UnreadableImage(f"{status.st_size} bytes, at most {LARGEST_FILE} are read")
    with path.open("rb") as file:
        head = file.read(HEAD)
        if head[:1] == b"P" and is_endless(head + file.read(LONGEST_HEADER - HEAD)):
            raise UnreadableImage(f"a header of more than {LONGEST_HEADER} bytes")
    size = announced_size(head)
    if size is not None:
        _check_pixels(*size)
        return Measured(path, *size, None)
    with ExitStack() as files:
        image = _open(path)
        files.callback(image.close)
        _check_pixels(*image.size)
        _check_scans(path, status.st_size, image.width * image.height)
        if status.st_size <= KEPT_OPEN:
            files.pop_all()
            return Measured(path, *image.size, image)
    return Measured(path, *image.size, None)


def _check_pixels(width: int, height: int) -> None:
    if width * height > LARGEST_IMAGE:
        raise UnreadableImage(f"{width} x {height} pixels, at most {LARGEST_IMAGE} are read")


def _check_scans(path: Path, length: int, pixels: int) -> None:
    if length // SHORTEST_SCAN * pixels <= LARGEST_WORK:
        return  # as nearly every file
    with path.open("rb") as file:
        scans = scans_of(file)
    if scans * pixels > LARGEST_WORK:
        raise UnreadableImage(f"{scans} scans of {pixels} pixels, at most {LARGEST_WORK // pixels} are decoded")


def _open(path: Path) -> Image.Image:
    image = Image.open(path, formats=FORMATS)
    image.filename = ""  # read, not mapped: where a mapped file shrinks meanwhile, the process is killed
    return image


def _cut_out(
    file: Measured, y: Line, x: Line, flip: bool, size: int, channels: int, interpolation: str
) -> torch.Tensor:
    if y.resized * x.resized > LARGEST_RESIZED:
        y, x = shown_part(y, size), shown_part(x, size)
    pixels, y, x = _decoded(file, "RGB" if channels == 3 else "L", y, x)
    planes = torch.from_numpy(pixels).view(y.length, x.length, channels).permute(2, 0, 1)[None]
    # on 8-bit images torch computes what Pillow does, to one grey level, and several times as fast
    resized = interpolate(planes, size=(y.resized, x.resized), mode=interpolation, antialias=True)[0]
    shown = _shown(resized, y.offset, x.offset, size)
    return shown.flip(2) if flip else shown


def _decoded(file: Measured, mode: str, y: Line, x: Line) -> tuple[np.ndarray, Line, Line]:
    """Read-only pixels of the crop, and the crop at the scale at which they were decoded."""
    with closing(file.opened()) as image:  # what is decoded need not wait for the rest of a chunk
        y, x = _decode_smaller(image, mode, y, x)
        box = (x.start, y.start, x.start + x.length, y.start + y.length)
        part = image if box == (0, 0, *image.size) else image.crop(box)
        if part.mode != mode:
            part = part.convert(mode)
        if part is not image:
            image.close()  # before its pixels are copied once more
        return np.asarray(part), y, x


def _decode_smaller(image: Image.Image, mode: str, y: Line, x: Line) -> tuple[Line, Line]:
    """Let the JPEG decoder leave out detail that resizing would remove anyway; returns the crop at that scale."""
    scale = min(line.length // (SCALED_DECODING * line.resized) for line in (y, x))
    if image.format != "JPEG" or scale < 2:
        return y, x
    height, width = image.height, image.width
    image.draft(mode, (width // scale, height // scale))
    axes = []
    for (start, length, resized, offset), full, scaled in ((y, height, image.height), (x, width, image.width)):
        first = round(start * scaled / full)
        last = max(first + 1, min(scaled, round((start + length) * scaled / full)))
        axes.append(Line(first, last - first, resized, offset))
    return axes[0], axes[1]


def _shown(resized: torch.Tensor, top: int, left: int, size: int) -> torch.Tensor:
    """The size x size pixels from (top, left) on, black where the image has none."""
    height, width = resized.shape[1:]
    if 0 <= top <= height - size and 0 <= left <= width - size:
        return resized[:, top : top + size, left : left + size]
    shown = resized.new_zeros(resized.shape[0], size, size)
    rows, columns = (
        slice(max(0, first), min(length, first + size)) for first, length in ((top, height), (left, width))
    )
    part = resized[:, rows, columns]
    down, across = rows.start - top, columns.start - left
    shown[:, down : down + part.shape[1], across : across + part.shape[2]] = part
    return shown
