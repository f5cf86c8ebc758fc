"""Decoding: bit for bit what Pillow's and torch's plain calls give, in bounded memory, with patience."""

import errno
import io
import os
import resource
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate, pad

from experiments.config.settings import Recipe
from experiments.data import decode, headers, patience
from experiments.data.augment.crops import Crops, Line, centre_crops, draw_crops, shown_part, training_crops
from experiments.data.decode import LARGEST_IMAGE, UnreadableImage, load_crops
from experiments.data.headers import HEAD, announced_size, scans_of
from experiments.errors import StorageError
from tests.experiments.data.sources import encoded, photograph

CENTRED = partial(centre_crops, 32, 36)
MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "L", "P", "RGBA", "LA", "1", "I;16"),
    "BMP": ("RGB", "L", "P", "1"),
    "WEBP": ("RGB", "RGBA"),
    "PPM": ("RGB", "L", "1"),
}


def file_of(index: int, format: str, mode: str) -> tuple[bytes, int, int]:
    """A file of any shape, some large enough for a JPEG to be decoded at a lower resolution; height and width."""
    generator = np.random.default_rng(index)
    low, high = (600, 900) if index % 5 == 0 else (1, 300)
    height, width = (int(side) for side in generator.integers(low, high, 2))
    image = Image.fromarray(photograph(index, max(height, 4), max(width, 4))).crop((0, 0, width, height))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif image.mode != mode:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, format, **({"transparency": 3} if mode == "P" and format == "PNG" else {}))
    return buffer.getvalue(), height, width


def plainly(content: bytes, crops: Crops, size: int, channels: int, interpolation: str) -> torch.Tensor:
    """The same crop without any care for memory."""
    y, x = ([int(values[0]) for values in axis] for axis in crops[:2])
    image, mode = Image.open(io.BytesIO(content)), "RGB" if channels == 3 else "L"
    scale = min(y[1] // (2 * y[2]), x[1] // (2 * x[2]))
    if image.format == "JPEG" and scale > 1:
        full = image.size
        image.draft(mode, (full[0] // scale, full[1] // scale))
        for line, before, after in ((x, full[0], image.size[0]), (y, full[1], image.size[1])):
            first = round(line[0] * after / before)
            line[:2] = first, max(first + 1, min(after, round(sum(line[:2]) * after / before))) - first
    pixels = np.asarray(image.convert(mode).crop((x[0], y[0], x[0] + x[1], y[0] + y[1])))
    planes = torch.from_numpy(pixels.reshape(y[1], x[1], channels).copy()).permute(2, 0, 1)[None]
    resized = interpolate(planes, size=(y[2], x[2]), mode=interpolation, antialias=True)[0]
    around = size + max(abs(y[3]), abs(x[3]))
    top, left = y[3] + around, x[3] + around
    shown = pad(resized, (around,) * 4)[:, top : top + size, left : left + size]
    return shown.flip(2) if crops.flip[0] else shown


@pytest.mark.numeric
@pytest.mark.parametrize("format, mode", [(format, mode) for format, modes in MODES.items() for mode in modes])
def test_crops_are_those_of_plain_calls_bit_for_bit(tmp_path: Path, format: str, mode: str) -> None:
    path = tmp_path / "image"
    for index in range(12):
        content, height, width = file_of(index, format, mode)
        path.write_bytes(content)
        drawn = draw_crops(Recipe(), (0, 0), np.array([index]))
        size, channels = (32, 96, 224)[index % 3], 1 + 2 * (index % 2)
        for view in (partial(centre_crops, size, 8 * size // 7), partial(training_crops, Recipe(), size, drawn)):
            how = (size, channels, ("bicubic", "bilinear")[index % 4 // 2])
            (ours,) = load_crops([path], view, *how)
            assert not isinstance(ours, UnreadableImage), ours
            assert torch.equal(ours, plainly(content, view(np.array([height]), np.array([width])), *how))


@pytest.mark.numeric
@pytest.mark.parametrize("height, width", [(1, 700), (700, 1), (3, 900), (40, 800), (500, 500)])
def test_the_part_that_is_shown_looks_like_that_of_the_whole(
    tmp_path: Path, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image.png"
    pixels = Image.fromarray(photograph(1, 64, 64)).resize((width, height), Image.Resampling.BICUBIC)
    path.write_bytes(encoded(np.asarray(pixels), "PNG"))
    (whole,) = load_crops([path], CENTRED, 32, 3, "bicubic")
    monkeypatch.setattr(decode, "LARGEST_RESIZED", 0)
    (part,) = load_crops([path], CENTRED, 32, 3, "bicubic")
    assert isinstance(whole, torch.Tensor) and isinstance(part, torch.Tensor)
    difference = (whole.int() - part.int()).abs()  # of half an output pixel at most
    assert difference.max() <= 4 and difference.float().mean() < 1


@pytest.mark.parametrize("line", [Line(0, 90_000_000, 23_000_000_000, 11_000_000_000), Line(5, 9, 2000, -3000)])
def test_the_part_that_is_shown_is_small_and_within(line: Line) -> None:
    part = shown_part(line, 224)
    assert line.start <= part.start < part.start + part.length <= line.start + line.length
    assert part.length <= 12 and 0 < part.resized <= 8 * line.resized // line.length + 2 * 224


@pytest.mark.parametrize("format, options", [("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True})])
@pytest.mark.parametrize("extended", [False, True])
def test_the_announced_size_is_the_image_s(format: str, options: dict[str, Any], extended: bool) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA" if extended else "RGB", (300, 17), (9, 9, 9)).save(buffer, format, **options)
    assert announced_size(buffer.getvalue()[:HEAD]) == (300, 17)
    assert announced_size(buffer.getvalue()[:20]) is None


MEASURED = """
import resource, sys
from functools import partial
from pathlib import Path
from experiments.data.augment.crops import centre_crops
from experiments.data.decode import load_crops
from experiments.data.in_memory import keep_freed_memory
keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = load_crops([Path(name) for name in sys.argv[1:]], partial(centre_crops, 224, 256), 224, 3, "bicubic")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10, *{type(image).__name__ for image in found})
"""


def megabytes_for(*paths: Path) -> int:
    """What a fresh process takes to load images, all of them readable."""
    command = [sys.executable, "-c", MEASURED, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    peak, *kinds = done.stdout.split()
    assert kinds == ["Tensor"]
    return int(peak)


@pytest.mark.parametrize("size", [(8000, 1), (1, 8000), (60_000, 3)])
def test_a_thin_image_takes_no_more_than_its_crop(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "thin.png"
    Image.new("RGB", size, (9, 8, 7)).save(path)
    assert megabytes_for(path) < 100


def padded(content: bytes, size: int) -> bytes:
    """A WebP file with a chunk at its end that nobody reads; the last `size` bytes are missing."""
    body = content[8:] + b"JUNK" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", len(body) + size) + body


def test_a_chunk_of_padded_files_takes_no_more_than_one_of_them(tmp_path: Path) -> None:
    path, size = tmp_path / "padded.webp", 200 << 20
    with path.open("wb") as file:
        file.write(padded(encoded(photograph(1, 64, 64), "WEBP"), size))
        file.truncate(file.tell() + size)
    links = [tmp_path / f"{index}.webp" for index in range(16)]
    for link in links:
        link.symlink_to(path)
    assert megabytes_for(*links) < 900


@pytest.mark.parametrize("format, mode", [("PNG", "RGBA"), ("JPEG", "CMYK"), ("WEBP", "RGB")])
def test_no_allowed_image_takes_more_than_the_documented_bound(tmp_path: Path, format: str, mode: str) -> None:
    side = int(LARGEST_IMAGE**0.5)
    path = tmp_path / "large"
    image = Image.new(mode, (side, side), "white")
    image.save(path, format, **({"method": 0} if format == "WEBP" else {}))
    assert megabytes_for(path, path) < 2048


def fail(monkeypatch: pytest.MonkeyPatch, number: int, times: int) -> list[int]:
    """Let the first `times` attempts to read an image fail; the list grows with each."""
    real = Image.open
    met: list[int] = []

    def opened(path: Path, **options: Any) -> Image.Image:
        if len(met) < times:
            met.append(number)
            raise OSError(number, os.strerror(number))
        return real(path, **options)

    monkeypatch.setattr(decode.Image, "open", opened)
    monkeypatch.setattr(patience, "WAITS", (0.0, 0.0))
    return met


@pytest.mark.parametrize("name", ["EIO", "EMFILE", "ENFILE", "ESTALE", "ETIMEDOUT", "EAGAIN", "EINTR", "ECONNRESET"])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_passing_error_is_tried_again_and_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, format: str
) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded(photograph(1, 50, 50), format))
    (usual,) = load_crops([path], CENTRED, 32, 3, "bicubic")
    assert isinstance(usual, torch.Tensor)
    with monkeypatch.context() as patch:
        met = fail(patch, getattr(errno, name), times=2)
        (image,) = load_crops([path], CENTRED, 32, 3, "bicubic")
        assert isinstance(image, torch.Tensor) and torch.equal(image, usual) and len(met) == 2
    with monkeypatch.context() as patch:
        fail(patch, getattr(errno, name), times=99)
        with pytest.raises(StorageError, match="cannot be read at the moment, after 3 attempts") as caught:
            load_crops([path], CENTRED, 32, 3, "bicubic")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_error_that_stays_is_damage_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(photograph(1, 50, 50)))
    met = fail(monkeypatch, errno.EACCES, times=99)
    (image,) = load_crops([path], CENTRED, 32, 3, "bicubic")
    assert isinstance(image, UnreadableImage) and len(met) == 1


def test_too_few_descriptors_are_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(photograph(1, 50, 50)))
    load_crops([path], CENTRED, 32, 3, "bicubic")
    monkeypatch.setattr(patience, "WAITS", ())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, hard))
    try:
        with pytest.raises(StorageError, match="Too many open files"):
            load_crops([path], CENTRED, 32, 3, "bicubic")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(taken[0])


def test_too_little_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(photograph(1, 50, 50)))
    monkeypatch.setattr(decode, "interpolate", lambda *_, **__: torch.empty(2**60, dtype=torch.uint8))
    with pytest.raises(MemoryError) as caught:
        load_crops([path], CENTRED, 32, 3, "bicubic")
    assert "\n" not in str(caught.value)


def test_a_jpeg_file_that_is_decoded_again_and_again_is_refused(tmp_path: Path) -> None:
    """A scan of ten bytes has its decoder go over all blocks once more."""
    buffer = io.BytesIO()
    Image.new("L", (4000, 4000), 128).save(buffer, "JPEG", progressive=True)
    usual = buffer.getvalue()
    last = usual.rindex(b"\xff\xda")
    path = tmp_path / "image.jpg"
    path.write_bytes(usual + bytes(20_000))
    assert scans_of(io.BytesIO(usual)) == 6
    (image,) = load_crops([path], CENTRED, 32, 3, "bicubic")
    assert isinstance(image, torch.Tensor)
    path.write_bytes(usual[:-2] + usual[last : last + 10] * 200_000 + b"\xff\xd9")
    (image,) = load_crops([path], CENTRED, 32, 3, "bicubic")
    assert isinstance(image, UnreadableImage) and "200006 scans of 16000000 pixels, at most 2147" in str(image)


@pytest.mark.parametrize("start", [b"P6 #", b"P6 4 #", b"P5\n" + b" " * 70_000, b"P6\n# made by hand\n#"])
def test_a_header_without_end_is_not_read(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "image.ppm"
    path.write_bytes(start + bytes(10 << 20) + b"\n4 4 255\n" + bytes(48))
    (image,) = load_crops([path], CENTRED, 32, 3, "bicubic")
    assert isinstance(image, UnreadableImage) and "a header of more than 65536 bytes" in str(image)
    path.write_bytes(b"P6\n# made by hand\n 300 300\n255\n" + bytes(270_000))
    (image,) = load_crops([path], CENTRED, 32, 3, "bicubic")
    assert isinstance(image, torch.Tensor)


def test_scans_are_found_across_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    content = 7 * (b"\xff\xda\x00\x0c\x03" + bytes(9)) + b"\xff\xda\x00\x0b\x03"
    for piece in range(1, 30):
        monkeypatch.setattr(headers, "PIECE", piece)
        assert scans_of(io.BytesIO(content)) == 7


def test_a_file_that_changes_between_its_header_and_its_turn_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(encoded(photograph(1, 50, 50), "PNG"))

    def view(height: np.ndarray, width: np.ndarray) -> Crops:
        path.write_bytes(encoded(photograph(1, 20, 30), "PNG"))
        return CENTRED(height, width)

    (image,) = load_crops([path], view, 32, 3, "bicubic")
    assert isinstance(image, UnreadableImage) and "changed from 50 x 50" in str(image)
