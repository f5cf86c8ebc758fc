"""One image file to the 8-bit window that a network sees, in bounded memory. Runs in worker processes."""

import io
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import interpolate

from experiments.data.windows import Axis, Windows

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
LARGEST_FILE = 2**28  # bytes
LARGEST_IMAGE = 90_000_000  # pixels; the largest of ImageNet has 61 million
SCALED_DECODING = 2  # pixels that a JPEG decoded at a lower resolution must still have per output pixel

View = Callable[[np.ndarray, np.ndarray], Windows]  # height and width, (1,) each -> the window to show


class UnreadableImage(Exception):
    """A file that is not an image that we can or want to read; the message says why."""


def load_window(path: Path, view: View, size: int, channels: int, interpolation: str) -> torch.Tensor:
    """Decode a file and cut its window out: uint8 (channels, size, size). UnreadableImage for whatever goes wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about EXIF blocks, palettes and other things that do not matter here
            return _load(path, view, size, channels, interpolation)
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(f"not one of {', '.join(FORMATS)}") from None
    except Exception as error:  # decoders raise whatever they like on damaged files
        raise UnreadableImage(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from None


def _load(path: Path, view: View, size: int, channels: int, interpolation: str) -> torch.Tensor:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage("not a plain file")
    if status.st_size > LARGEST_FILE:
        raise UnreadableImage(f"{status.st_size} bytes, at most {LARGEST_FILE} are read")
    image: Image.Image = Image.open(io.BytesIO(path.read_bytes()), formats=FORMATS)
    if image.width * image.height > LARGEST_IMAGE:
        raise UnreadableImage(f"{image.width} x {image.height} pixels, at most {LARGEST_IMAGE} are read")
    windows = view(np.array([image.height]), np.array([image.width]))
    y, x = _first(windows.y), _first(windows.x)
    mode = "RGB" if channels == 3 else "L"
    y, x = _decode_smaller(image, mode, y, x)
    box = (x[0], y[0], x[0] + x[1], y[0] + y[1])
    if image.mode != mode:
        image = image.convert(mode)
    pixels = torch.from_numpy(np.asarray(image.crop(box)))  # read-only memory, and only read
    planes = pixels.view(y[1], x[1], channels).permute(2, 0, 1)[None]
    # on 8-bit images torch computes what Pillow does, to one grey level, and several times as fast
    resized = interpolate(planes, size=(y[2], x[2]), mode=interpolation, antialias=True)[0]
    shown = _shown(resized, y[3], x[3], size)
    return shown.flip(2) if windows.flip[0] else shown


def _decode_smaller(
    image: Image.Image, mode: str, y: tuple[int, ...], x: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Let the JPEG decoder leave out detail that resizing would remove anyway; returns the window at that scale."""
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


def _first(axis: Axis) -> tuple[int, ...]:
    """start, length, resized and offset of the only image in an axis."""
    return tuple(int(values[0]) for values in axis)
