"""Image files: decoding against Pillow, unreadable ones in twelve ways, and hostile ones."""

import errno
import logging
import os
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from experiments.config.settings import Batch, Data, Recipe
from experiments.data import decode, patience
from experiments.data.augment.crops import centre_crops, draw_crops, training_crops
from experiments.data.decode import LARGEST_IMAGE, UnreadableImage, View, load_crops
from experiments.data.readers import folder
from experiments.data.source import Pipeline
from experiments.data.worker import Chunk, ChunkDataset
from experiments.errors import DataError, StorageError
from tests.experiments.data.sources import batches, encoded, make_folders, photograph, same, settings_for, source_for

pytestmark = pytest.mark.numeric

SMALL = Batch(8, 4)


def centred(size: int, side: int):
    return lambda height, width: centre_crops(size, side, height, width)


def load_window(path: Path, view: View, size: int, channels: int, interpolation: str) -> torch.Tensor:
    (image,) = load_crops([path], view, size, channels, interpolation)
    if isinstance(image, UnreadableImage):
        raise image
    return image


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Two grey levels at most, hardly ever more than one: torch's weights have 16 bits where Pillow's have 22."""
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= 2 and (difference > 1).mean() < 0.001 and (difference > 0).mean() < 0.1


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "WEBP", "PPM"])
@pytest.mark.parametrize("height, width", [(200, 301), (224, 224), (100, 90)])
def test_centre_crops_agree_with_pillow(tmp_path, format, height, width):
    path = tmp_path / "image"
    path.write_bytes(encoded(photograph(1, height, width), format))
    ours = load_window(path, centred(64, 72), 64, 3, "bicubic").permute(1, 2, 0).numpy()
    image = Image.open(path).convert("RGB")
    theirs = np.asarray(CenterCrop(64)(Resize(72, InterpolationMode.BICUBIC)(image)))
    assert_close(ours, theirs)


def test_random_resized_crops_agree_with_pillow(tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(photograph(2, 120, 160), quality=95))
    image = Image.open(path).convert("RGB")
    for sample in range(30):

        def view(height, width, sample=sample):
            drawn = draw_crops(Recipe(), (0, 0), np.array([sample]))
            return training_crops(Recipe(), 96, drawn, height, width)

        crops = view(np.array([120]), np.array([160]))
        y, x = (axis.start[0] for axis in crops[:2]), (axis.length[0] for axis in crops[:2])
        (top, left), (height, width) = map(int, y), map(int, x)
        crop = image.crop((left, top, left + width, top + height)).resize((96, 96), Image.Resampling.BICUBIC)
        theirs = np.asarray(crop)[:, ::-1] if crops.flip[0] else np.asarray(crop)
        ours = load_window(path, view, 96, 3, "bicubic").permute(1, 2, 0).numpy()
        assert_close(ours, theirs)


def test_a_large_jpeg_decoded_at_a_lower_resolution_looks_the_same(tmp_path):
    path = tmp_path / "large.jpg"
    path.write_bytes(encoded(photograph(3, 1500, 2100), quality=95))
    ours = load_window(path, centred(96, 110), 96, 3, "bicubic").permute(1, 2, 0).numpy()
    theirs = np.asarray(CenterCrop(96)(Resize(110, InterpolationMode.BICUBIC)(Image.open(path).convert("RGB"))))
    difference = np.abs(ours.astype(int) - theirs)
    assert 0 < difference.mean() < 1 and np.quantile(difference, 0.999) < 20


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "LA", "1", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_other_modes_become_grey_or_colour(tmp_path, mode, channels):
    image = Image.fromarray(photograph(4, 60, 50)).convert("L" if mode == "I;16" else mode)
    path = tmp_path / "image"
    image.convert(mode).save(path, "JPEG" if mode in ("L", "CMYK") else "PNG")
    assert load_window(path, centred(32, 36), 32, channels, "bilinear").shape == (channels, 32, 32)


def png(width: int, height: int, content: bytes = b"\0") -> bytes:
    """A PNG file that announces any size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def damage(path: Path, way: int) -> None:
    """Make an image file unreadable, in one of WAYS ways."""
    good = path.read_bytes()
    path.unlink()
    if way == 0:
        path.write_bytes(b"")
    elif way == 1:
        path.write_bytes(good[: len(good) // 2])
    elif way == 2:
        path.write_bytes(b"not an image at all")
    elif way == 3:
        path.write_bytes(good[20:])
    elif way == 4:
        path.write_bytes(bytes(len(good)))
    elif way == 5:
        path.write_bytes(good[:40])
    elif way == 6:
        path.write_bytes(png(60_000, 60_000))
    elif way == 7:
        path.write_bytes(png(200, 200, b"\0" * 50))
    elif way == 8:
        path.symlink_to(path.parent / "missing.jpg")
    elif way == 9:
        os.mkfifo(path)
    elif way == 10:
        path.write_bytes(b"GIF89a" + bytes(200))
    elif way == 11:
        path.write_bytes(good[:2] + b"\xff\xc4\x00\x05" + good[2:200])


WAYS = 12


@pytest.mark.parametrize("way", range(WAYS))
def test_every_kind_of_damage_is_one_clear_error(tmp_path, way):
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(photograph(5, 80, 80)))
    damage(path, way)
    with pytest.raises(UnreadableImage) as caught:
        load_window(path, centred(32, 36), 32, 3, "bicubic")
    assert str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def damaged(tmp_path: Path) -> Data:
    data = make_folders(tmp_path / "photos", train=60, val=24)
    files = sorted((tmp_path / "photos" / "train").rglob("*.jpg"))
    for way in range(WAYS):
        damage(files[5 * way], way)
    damage(sorted((tmp_path / "photos" / "val").rglob("*.jpg"))[0], 1)
    return replace(data, damaged_share=0.25)


@pytest.mark.parametrize("workers, repeats, epochs", [(0, 1, 3), (2, 1, 3), (2, 2, 12)])
def test_unreadable_images_are_counted_named_and_replaced(damaged, workers, repeats, epochs, caplog):
    source = source_for(damaged, {"repeats": repeats}, batch=SMALL, workers=workers)
    with caplog.at_level(logging.WARNING, logger="experiments.data.from_files"):
        first = [batches(source, range(7), epoch=epoch) for epoch in range(epochs)]
        assert sum(len(labels) for _, labels in source.evaluate()) == 24
    named = [record.getMessage() for record in caplog.records]
    assert source.damage.count == WAYS + 1 == len(named) == len(set(named))
    assert all("train/class" in message or "val/class" in message for message in named)
    source.close()
    other = source_for(damaged, {"repeats": repeats}, batch=SMALL)
    assert all(same(batches(other, range(7), epoch=epoch), first[epoch]) for epoch in range(epochs))


def test_the_replacement_is_a_readable_image_of_the_same_class_and_not_always_the_neighbour(damaged):
    splits = folder.read(damaged, 32)
    loader = ChunkDataset(Pipeline.of(settings_for(damaged)), splits.train, splits.evaluation)
    distances = set()
    for sample in range(len(splits.train)):
        _, found, hopeless, passing = loader[Chunk(0, np.array([sample]))]
        assert hopeless is None and passing is None
        if found:
            tried = [image for image, _ in found]
            assert tried[0] == sample
            assert (splits.train.labels[tried] == splits.train.labels[sample]).all()
            candidates = [sample, *loader._candidates(splits.train, sample)]
            used = candidates[len(found)]
            assert splits.train.labels[used] == splits.train.labels[sample]
            distances.add(used - sample)
    assert len(distances) > 4


def test_too_many_unreadable_images_stop_the_run_in_one_line(damaged):
    source = source_for(replace(damaged, damaged_share=0.05), batch=SMALL)
    with pytest.raises(DataError, match=r"of 60 images are unreadable, more than data\.damaged_share=0\.05") as caught:
        batches(source, range(7))
    assert "\n" not in str(caught.value) and "train/class" in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_class_without_a_readable_image_stops_the_run(tmp_path, workers):
    data = make_folders(tmp_path, train=30)
    for path in (tmp_path / "train" / "class1").iterdir():
        path.write_bytes(b"")
    source = source_for(replace(data, damaged_share=0.5), batch=SMALL, workers=workers)
    with pytest.raises(DataError, match="all unreadable") as caught:
        batches(source, range(3))
    source.close()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_passing_error_reaches_the_run_as_one_line(tmp_path, workers, monkeypatch):
    def stale(path):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(patience, "WAITS", ())
    monkeypatch.setattr(decode, "_open", stale)
    source = source_for(make_folders(tmp_path), batch=SMALL, workers=workers)
    with pytest.raises(StorageError, match="cannot be read at the moment") as caught:
        batches(source, range(3))
    source.close()
    assert "\n" not in str(caught.value) and source.damage.count == 0


def test_bombs_are_refused_before_they_are_decoded(tmp_path):
    """A small file that announces gigabytes: memory stays bounded."""
    side = int(LARGEST_IMAGE**0.5) + 500
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, bytes(side)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableImage, match="pixels, at most"):
        load_window(path, centred(32, 36), 32, 3, "bicubic")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(2**34)  # sparse
    with pytest.raises(UnreadableImage, match="bytes, at most"):
        load_window(path, centred(32, 36), 32, 3, "bicubic")


def test_random_bytes_in_good_files_never_do_more_than_fail(tmp_path):
    """Bit flips may leave a readable image; anything else is an UnreadableImage."""
    generator = np.random.default_rng(0)
    originals = [encoded(photograph(6, 50, 60), format) for format in ("JPEG", "PNG", "WEBP", "BMP", "PPM")]
    path = tmp_path / "image"
    unreadable = 0
    for i in range(300):
        content = np.frombuffer(originals[i % 5], dtype=np.uint8).copy()
        places = generator.integers(0, len(content), 1 + i % 12)
        content[places] = generator.integers(0, 256, len(places))
        path.write_bytes(content.tobytes())
        try:
            assert load_window(path, centred(32, 36), 32, 3, "bicubic").shape == (3, 32, 32)
        except UnreadableImage:
            unreadable += 1
    assert unreadable > 30


def test_a_piece_depends_on_nothing_but_the_order(tmp_path):
    data = make_folders(tmp_path)
    splits = folder.read(data, 32)
    loader = ChunkDataset(Pipeline.of(settings_for(data)), splits.train, splits.evaluation)
    np.random.seed(1)
    torch.manual_seed(1)
    one = loader[Chunk(3, np.array([4, 5]))].images
    assert torch.equal(loader[Chunk(3, np.array([5]))].images[0], one[1])
    assert not torch.equal(loader[Chunk(4, np.array([5]))].images[0], one[1])


LOADING = """
import sys, time
from tests.experiments.data.sources import make_folders, source_for
from experiments.config.settings import Batch
from pathlib import Path
if __name__ == "__main__":
    source = source_for(make_folders(Path(sys.argv[1])), batch=Batch(8, 4), workers=2)
    next(source.train(0, range(3), range(2)))
    print("ready", *(worker.pid for worker in source._loader._iterator._workers), flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_workers_leave_signals_to_the_parent_and_end_with_it(tmp_path, name):
    command = [sys.executable, "-c", LOADING, str(tmp_path), "60"]
    parent = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    with parent.stdout as lines:
        workers = [int(pid) for pid in lines.readline().split()[1:]]
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    time.sleep(0.3)
    assert all(running(pid) for pid in workers)
    parent.send_signal(getattr(signal, name))
    parent.wait(20)
    deadline = time.monotonic() + 20
    while any(running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(running(pid) for pid in workers)


def test_a_program_that_forgets_to_close_still_ends(tmp_path):
    """Workers that ignore SIGTERM must not keep multiprocessing waiting at exit."""
    command = [sys.executable, "-c", LOADING, str(tmp_path), "0"]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False
