"""One image file to the 8-bit crop that a network sees, in bounded memory. Runs in worker processes."""

import os
import stat
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import interpolate

from experiments.data.augment.crops import Axis, Crops

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
LARGEST_FILE = 2**28  # bytes
LARGEST_IMAGE = 90_000_000  # pixels; the largest of ImageNet has 61 million
SCALED_DECODING = 2  # pixels that a JPEG decoded at a lower resolution must still have per output pixel

Result = TypeVar("Result")
Line = tuple[int, int, int, int]  # start, length, resized and offset of one image, as in an Axis
View = Callable[[np.ndarray, np.ndarray], Crops]  # heights and widths (B,) -> the crops to show


class UnreadableImage(Exception):
    """A file that is not an image that we can or want to read; the message says why."""


def load_crops(
    paths: Sequence[Path], view: View, size: int, channels: int, interpolation: str
) -> list[torch.Tensor | UnreadableImage]:
    """Decode files and cut their crops out: uint8 (channels, size, size) each, or why there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about EXIF blocks, palettes and other things that do not matter here
        images = [_attempt(_open, path) for path in paths]
        sizes = [(1, 1) if isinstance(image, UnreadableImage) else (image.height, image.width) for image in images]
        y, x, flip = view(*np.array(sizes).T)
        crops = zip(_lines(y), _lines(x), flip.tolist(), strict=True)
        how = (size, channels, interpolation)
        return [
            image if isinstance(image, UnreadableImage) else _attempt(_cut_out, image, *crop, *how)
            for image, crop in zip(images, crops, strict=True)
        ]


def opened(path: Path, transform: Callable[[Image.Image], torch.Tensor]) -> torch.Tensor | UnreadableImage:
    """What a transform makes of a file, read within the same bounds, or why it cannot be read."""

    def shown() -> torch.Tensor:
        with closing(_open(path)) as image:
            return transform(image)

    return _attempt(shown)


def _lines(axis: Axis) -> list[Line]:
    return list(zip(*(values.tolist() for values in axis), strict=True))


def _attempt(function: Callable[..., Result], *arguments: Any) -> Result | UnreadableImage:
    """What a function returns, or what is wrong with the image."""
    try:
        return function(*arguments)
    except UnreadableImage as error:
        return error
    except UnidentifiedImageError:
        return UnreadableImage(f"not one of {', '.join(FORMATS)}")
    except Exception as error:  # decoders raise whatever they like on damaged files
        return UnreadableImage(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def _open(path: Path) -> Image.Image:
    """The open file, of which only the header is read yet."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage("not a plain file")
    if status.st_size > LARGEST_FILE:
        raise UnreadableImage(f"{status.st_size} bytes, at most {LARGEST_FILE} are read")
    image = Image.open(path, formats=FORMATS)
    if image.width * image.height > LARGEST_IMAGE:
        image.close()
        raise UnreadableImage(f"{image.width} x {image.height} pixels, at most {LARGEST_IMAGE} are read")
    return image


def _cut_out(
    image: Image.Image, y: Line, x: Line, flip: bool, size: int, channels: int, interpolation: str
) -> torch.Tensor:
    mode = "RGB" if channels == 3 else "L"
    with closing(image):  # what is decoded need not wait for the rest of a chunk
        y, x = _decode_smaller(image, mode, y, x)
        plain = image if image.mode == mode else image.convert(mode)
        pixels = np.asarray(plain.crop((x[0], y[0], x[0] + x[1], y[0] + y[1])))
    planes = torch.from_numpy(pixels).view(y[1], x[1], channels).permute(2, 0, 1)[None]  # only read: so is its memory
    # on 8-bit images torch computes what Pillow does, to one grey level, and several times as fast
    resized = interpolate(planes, size=(y[2], x[2]), mode=interpolation, antialias=True)[0]
    shown = _shown(resized, y[3], x[3], size)
    return shown.flip(2) if flip else shown


def _decode_smaller(image: Image.Image, mode: str, y: Line, x: Line) -> tuple[Line, Line]:
    """Let the JPEG decoder leave out detail that resizing would remove anyway; returns the crop at that scale."""
    scale = min(y[1] // (SCALED_DECODING * y[2]), x[1] // (SCALED_DECODING * x[2]))
    if image.format != "JPEG" or scale < 2:
        return y, x
    height, width = image.height, image.width
    image.draft(mode, (width // scale, height // scale))
    axes = []
    for (start, length, resized, offset), full, scaled in ((y, height, image.height), (x, width, image.width)):
        first = round(start * scaled / full)
        last = max(first + 1, min(scaled, round((start + length) * scaled / full)))
        axes.append((first, last - first, resized, offset))
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
