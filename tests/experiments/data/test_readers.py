"""Readers: what they read, and one clear line for everything that is wrong with the files."""

import errno
import gzip
import io
import os
import struct
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.config.settings import Data
from experiments.data import checksum_of, patience
from experiments.data.readers import cifar, digits, folder, idx, synthetic
from experiments.data.splits import ImageArrays, chosen_images, stratified
from experiments.errors import ConfigError, DataError, StorageError
from tests.conftest import FASHION_MNIST_PLACES, has_fashion_mnist, require
from tests.experiments.data.sources import make_folders, source_for

DIGITS = Data()


def idx_file(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(struct.pack(">I", size) for size in values.shape)
    return header + values.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> Data:
    """A small IDX set in a folder of its own."""
    generator = np.random.default_rng(0)
    for (images, labels), count in ((idx.TRAIN, 50), (idx.TEST, 20)):
        (tmp_path / images).write_bytes(idx_file(generator.integers(0, 256, (count, 28, 28))))
        (tmp_path / labels).write_bytes(idx_file(np.arange(count) % 10))
    return Data(name="fashion_mnist", reader="idx", root=str(tmp_path), image_size=28)


def refused(data: Data, match: str, error: type[Exception] = DataError) -> None:
    """Opening the data fails with one line, and so does its checksum or it works."""
    with pytest.raises(error, match=match) as caught:
        source_for(data)
    assert "\n" not in str(caught.value)


# digits and synthetic


def test_digits_are_split_by_class_in_a_fixed_way():
    splits = digits.read(DIGITS, 32)
    assert (len(splits.train), len(splits.evaluation)) == (1437, 360)
    assert isinstance(splits.train, ImageArrays) and splits.train.pixels.shape == (1437, 32, 32, 1)
    assert np.abs(np.bincount(splits.evaluation.labels) - 36).max() <= 1
    assert splits.train.pixels.max() == 255 and splits.train.pixels.min() == 0
    from sklearn.datasets import load_digits

    counts = np.bincount(load_digits().target)
    together = np.bincount(splits.train.labels) + np.bincount(splits.evaluation.labels)
    np.testing.assert_array_equal(counts, together)
    assert checksum_of(DIGITS) == checksum_of(replace(DIGITS, root="/elsewhere"))


def test_synthetic_images_can_be_learnt_and_are_always_the_same():
    data = Data(name="synthetic", reader="synthetic", train_images=200, eval_images=100, image_size=16)
    one, two = synthetic.read(data, 16), synthetic.read(data, 16)
    assert isinstance(one.train, ImageArrays) and isinstance(two.train, ImageArrays)
    assert isinstance(one.evaluation, ImageArrays)
    np.testing.assert_array_equal(one.train.pixels, two.train.pixels)
    means = np.stack([one.train.pixels[one.train.labels == label].mean(0) for label in range(10)])
    distance = ((one.evaluation.pixels[:, None] - means[None]) ** 2).sum((2, 3, 4))
    assert (distance.argmin(1) == one.evaluation.labels).mean() > 0.95
    assert not np.array_equal(one.train.pixels[:100], one.evaluation.pixels)


# IDX


def test_idx_files_are_read_plain_and_gzipped_with_the_same_checksum(mnist):
    plain = idx.read(mnist, 28)
    assert isinstance(plain.train, ImageArrays) and plain.train.pixels.shape == (50, 28, 28, 1)
    assert plain.class_names[1] == "trouser"
    before = checksum_of(mnist)
    root = Path(mnist.root or "")
    for path in list(root.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = idx.read(mnist, 28)
    assert isinstance(packed.train, ImageArrays)
    np.testing.assert_array_equal(plain.train.pixels, packed.train.pixels)
    assert checksum_of(mnist) == before


def test_a_changed_file_changes_the_checksum(mnist):
    before = checksum_of(mnist)
    path = Path(mnist.root or "") / idx.TRAIN[0]
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(bytes(content))
    assert checksum_of(mnist) != before


@pytest.mark.parametrize(
    "name, content, match",
    [
        (idx.TRAIN[0], b"", "not an IDX file"),
        (idx.TRAIN[0], b"\x80\x04pickled", "not an IDX file"),
        (idx.TRAIN[0], idx_file(np.zeros((50, 28, 28)))[:-1], r"announces 39200 bytes .* holds 39199"),
        (idx.TRAIN[0], idx_file(np.zeros((50, 28, 28))) + b"x", "holds more"),
        (idx.TRAIN[0], bytes([0, 0, 8, 3]) + b"\xff" * 12, "at most 2147483648"),
        (idx.TRAIN[0], idx_file(np.zeros((49, 28, 28))), "holds 49 images, but .* 50 labels"),
        (idx.TRAIN[1], idx_file(np.full(50, 11)), "label 11, but data.classes=10"),
        (idx.TRAIN[0], idx_file(np.zeros((50, 28))), "expected images of two axes"),
    ],
)
def test_wrong_idx_files_are_one_clear_line(mnist, name, content, match):
    (Path(mnist.root or "") / name).write_bytes(content)
    refused(mnist, match)


def test_damaged_gzip_is_one_clear_line(mnist):
    path = Path(mnist.root or "") / idx.TEST[0]
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    for content in (packed[:-100], packed[:50] + bytes(50) + packed[100:], b"nothing"):
        path.with_name(path.name + ".gz").write_bytes(content)
        refused(mnist, "t10k-images-idx3-ubyte.gz cannot be read")


def test_a_gzip_bomb_is_not_unpacked(mnist):
    path = Path(mnist.root or "") / idx.TEST[0]
    bomb = gzip.compress(idx_file(np.zeros((20, 28, 28))) + bytes(50_000_000))
    path.unlink()
    path.with_name(path.name + ".gz").write_bytes(bomb)
    refused(mnist, "holds more")


def test_a_missing_set_says_what_was_expected_where(tmp_path):
    data = Data(name="mnist", reader="idx", root=str(tmp_path))
    refused(data, rf"expected train-images-idx3-ubyte, .* in one of: {tmp_path}.*; check data\.root")
    refused(replace(data, root=str(tmp_path / "missing")), r"data\.root=.* is not a folder")
    with pytest.raises(DataError, match=r"set data\.root"):
        checksum_of(replace(data, root=None, name="no_such_set"))
    refused(replace(data, root=None, name="no_such_set", download=True), "knows fashion_mnist, mnist", ConfigError)


def test_fashion_mnist_as_published():
    require("fashion_mnist", any(map(has_fashion_mnist, FASHION_MNIST_PLACES)), "Fashion-MNIST is not installed")
    splits = idx.read(Data(name="fashion_mnist", reader="idx"), 32)
    assert (len(splits.train), len(splits.evaluation)) == (60_000, 10_000)
    assert isinstance(splits.train, ImageArrays)
    assert (np.bincount(splits.train.labels) == 6000).all()
    assert abs(splits.train.pixels[:10_000].mean() / 255 - 0.286) < 0.01


# CIFAR


def binary_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, classes: int = 10) -> Data:
    """A small set in the published layout; the expected number of records is lowered to match."""
    small = cifar.VERSIONS[classes]._replace(train_records=20, test_records=10)
    monkeypatch.setitem(cifar.VERSIONS, classes, small)
    place = root / small.folder
    place.mkdir()
    generator = np.random.default_rng(0)
    for name in (*small.train, small.test):
        count = small.test_records if name == small.test else small.train_records
        records = generator.integers(0, 256, (count, small.label_bytes + cifar.PIXELS), dtype=np.uint8)
        records[:, small.label_bytes - 1] = np.arange(count) * classes // count
        (place / name).write_bytes(records.tobytes())
    (place / small.names).write_text("\n".join(f"name{i}" for i in range(classes)) + "\n\n")
    return Data(name=f"cifar{classes}", reader="cifar", root=str(root), classes=classes)


def test_cifar_is_read_from_the_folder_and_from_the_archive(tmp_path, monkeypatch):
    data = binary_cifar(tmp_path, monkeypatch)
    version = cifar.VERSIONS[10]
    unpacked, before = cifar.read(data, 32), checksum_of(data)
    assert isinstance(unpacked.train, ImageArrays) and unpacked.train.pixels.shape == (100, 32, 32, 3)
    assert unpacked.class_names[3] == "name3"
    record = np.frombuffer((tmp_path / version.folder / version.train[0]).read_bytes(), dtype=np.uint8)[1 : 1 + 3072]
    np.testing.assert_array_equal(unpacked.train.pixels[0], record.reshape(3, 32, 32).transpose(1, 2, 0))
    with tarfile.open(tmp_path / version.archive, "w:gz") as archive:
        archive.add(tmp_path / version.folder, version.folder)
    for path in (tmp_path / version.folder).iterdir():
        path.unlink()
    (tmp_path / version.folder).rmdir()
    packed = cifar.read(data, 32)
    assert isinstance(packed.train, ImageArrays)
    np.testing.assert_array_equal(unpacked.train.pixels, packed.train.pixels)
    assert packed.class_names == unpacked.class_names and checksum_of(data) == before
    assert not (tmp_path / version.folder).exists()


def test_cifar100_has_fine_labels(tmp_path, monkeypatch):
    data = binary_cifar(tmp_path, monkeypatch, 100)
    assert cifar.read(data, 32).train.labels.max() == 95


def test_the_pickled_version_is_named_and_never_opened(tmp_path):
    place = tmp_path / "cifar-10-batches-py"
    place.mkdir()
    (place / "data_batch_1").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    data = Data(name="cifar10", reader="cifar", root=str(tmp_path))
    refused(data, r"cifar-10-batches-py is the pickled version .* get cifar-10-binary\.tar\.gz")


def test_wrong_cifar_files_are_one_clear_line(tmp_path, monkeypatch):
    data = binary_cifar(tmp_path, monkeypatch)
    version = cifar.VERSIONS[10]
    path = tmp_path / version.folder / version.train[2]
    path.write_bytes(path.read_bytes()[:-5])
    refused(data, rf"{version.train[2]} in .*: expected {20 * 3073} bytes, it holds {20 * 3073 - 5} bytes")
    path.unlink()
    refused(data, "it holds 0 bytes")
    refused(replace(data, classes=20), r"data\.classes=20 .* must be 10 or 100", ConfigError)
    refused(replace(data, root=str(tmp_path / "nowhere")), "is not a folder")


def test_a_hostile_archive_writes_nothing_and_is_refused(tmp_path):
    data = Data(name="cifar10", reader="cifar", root=str(tmp_path))
    with tarfile.open(tmp_path / cifar.VERSIONS[10].archive, "w:gz") as archive:
        for name in ("../escaped.bin", "/tmp/escaped.bin", "cifar-10-batches-bin/data_batch_1.bin"):
            member = tarfile.TarInfo(name)
            member.size = 10
            archive.addfile(member, io.BytesIO(b"0123456789"))
        link = tarfile.TarInfo("cifar-10-batches-bin/data_batch_2.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    refused(data, r"data_batch_1\.bin in .*: expected 30730000 bytes, it holds 10 bytes")
    assert [path.name for path in tmp_path.iterdir()] == [cifar.VERSIONS[10].archive]
    assert not (tmp_path.parent / "escaped.bin").exists()


# class folders


def test_folders_are_listed_in_order(tmp_path):
    data = make_folders(tmp_path)
    deep = tmp_path / "train" / "class0" / "below"
    deep.mkdir()
    (tmp_path / "train" / "class0" / "0000.jpg").rename(deep / "first.JPEG")
    (tmp_path / "train" / "class0" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "readme.md").write_text("not a class")
    splits = folder.read(data, 32)
    assert splits.class_names == ("class0", "class1", "class2")
    assert len(splits.train) == 24 and "train/class0/below/first.JPEG" in splits.train.names
    assert list(splits.train.names[:8]) == sorted(splits.train.names[:8])
    assert len(folder.read(replace(data, classes=None), 32).class_names) == 3


def test_the_checksum_of_folders_follows_names_and_sizes(tmp_path):
    data = make_folders(tmp_path)
    before = checksum_of(data)
    assert checksum_of(replace(data, root=str(tmp_path))) == before
    (tmp_path / "val" / "class0" / "new.jpg").write_bytes(b"x")
    after = checksum_of(data)
    assert after != before
    assert checksum_of(replace(data, holdout=0.2)) not in (before, after)  # val/ does not count


def test_wrong_folders_are_one_clear_line(tmp_path):
    refused(
        Data(name="photos", reader="folder", root=str(tmp_path)), r"expected the folders train/CLASS/ and val/CLASS/"
    )
    data = make_folders(tmp_path)
    refused(replace(data, classes=4), r"train has 3 class folders, but data\.classes=4")
    (tmp_path / "val" / "class1").rename(tmp_path / "val" / "klass1")
    refused(data, r"differ \(only in train/: class1; only in val/: klass1\)")
    (tmp_path / "val" / "klass1").rename(tmp_path / "val" / "class1")
    for path in (tmp_path / "val" / "class1").iterdir():
        path.unlink()
    refused(data, r"val/class1 holds no images; expected \.jpg")
    for path in (tmp_path / "val").iterdir():
        for image in path.iterdir():
            image.unlink()
        path.rmdir()
    (tmp_path / "val").rmdir()
    refused(data, "has a train/ but no val/")
    assert source_for(replace(data, holdout=0.25)).eval_size == 6


def test_links_to_folders_do_not_go_around_in_circles(tmp_path):
    data = make_folders(tmp_path)
    (tmp_path / "train" / "class0" / "circle").symlink_to(tmp_path / "train", target_is_directory=True)
    assert len(folder.read(data, 32).train) == 24


# subsets and holdouts


@pytest.mark.parametrize("count", [1, 7, 50, 99, 100])
def test_a_stratified_choice_has_the_right_size_and_shares(count):
    labels = np.repeat(np.arange(4), [50, 30, 15, 5])
    chosen = stratified(labels, count, "test")
    assert len(chosen) == count == len(set(chosen.tolist()))
    assert np.abs(np.bincount(labels[chosen], minlength=4) - count * np.array([0.5, 0.3, 0.15, 0.05])).max() < 1
    np.testing.assert_array_equal(chosen, stratified(labels, count, "test"))
    if count == 50:
        assert not np.array_equal(chosen, stratified(labels, count, "other"))


def test_a_holdout_comes_from_the_training_images_and_never_from_the_test_set(mnist):
    root = Path(mnist.root or "")
    for name in idx.TEST:  # not even read
        (root / name).unlink()
    data = replace(mnist, holdout=0.2)
    splits = chosen_images(idx.read(data, 28), data)
    assert (len(splits.train), len(splits.evaluation)) == (40, 10)
    assert isinstance(splits.train, ImageArrays) and isinstance(splits.evaluation, ImageArrays)
    seen = {image.tobytes() for image in splits.train.pixels}
    assert not seen & {image.tobytes() for image in splits.evaluation.pixels}
    assert (np.bincount(splits.evaluation.labels) == 1).all()


def test_subsets_are_fixed_and_stratified():
    data = replace(DIGITS, train_images=100, eval_images=50)
    one, other = source_for(data, seed=1), source_for(data, seed=2)
    assert (one.train_size, one.eval_size) == (100, 50)
    for (images, labels), (again, labels_again) in zip(one.evaluate(), other.evaluate(), strict=True):
        assert torch.equal(images, again) and torch.equal(labels, labels_again)
    splits = chosen_images(digits.read(data, 32), data)
    assert (np.bincount(splits.train.labels) == 10).all()


def test_impossible_subsets_are_one_clear_line():
    refused(replace(DIGITS, train_images=5000), r"data\.train_images=5000 is more than the 1437 images")
    refused(replace(DIGITS, train_images=5), "no training image of 5 of 10 classes")
    refused(replace(DIGITS, holdout=0.0001), "no image to evaluate on")
    assert source_for(replace(DIGITS, holdout=0.1, train_images=100)).eval_size == 144


def test_more_classes_than_configured_are_refused(mnist):
    refused(replace(DIGITS, classes=12), r"data=digits has 10 classes, but data\.classes=12")


def test_colour_is_not_thrown_away(tmp_path, monkeypatch):
    data = binary_cifar(tmp_path, monkeypatch)
    refused(replace(data, channels=1, mean=(0.5,), std=(0.5,)), "images of 3 channels, but data.channels=1")


# what the system refuses, and what is too large


def peak_of(data: Data) -> tuple[str, int]:
    """What a fresh process says when it opens hostile data, and the MiB that it takes for that."""
    code = (
        "import resource, sys, time; from experiments.config.settings import Data; import experiments.data.build as b;"
        "import torch, experiments.data.readers.cifar, experiments.data.readers.idx\n"
        "usual = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"try: b.checksum_of(Data(name={data.name!r}, reader={data.reader!r}, root={data.root!r}))\n"
        "except b.DataError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - usual >> 10)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    said, peak = done.stdout.splitlines()
    return said, int(peak)


def test_an_archive_cannot_exhaust_memory_with_its_headers(tmp_path):
    with gzip.open(tmp_path / cifar.VERSIONS[10].archive, "wb", compresslevel=1) as file:
        header = tarfile.TarInfo("bomb")
        header.type, header.size = tarfile.XHDTYPE, 2**32
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(300):
            file.write(bytes(2**20))
    said, peak = peak_of(Data(name="cifar10", reader="cifar", root=str(tmp_path)))
    assert "unpacks to more than 268435456 bytes" in said and peak < 700


def test_an_archive_of_half_a_million_members_is_read_through(tmp_path):
    block = b"".join(tarfile.TarInfo(f"{number}").tobuf(tarfile.USTAR_FORMAT) for number in range(500))
    with gzip.open(tmp_path / cifar.VERSIONS[10].archive, "wb", compresslevel=1) as file:
        for _ in range(200):
            file.write(block)
    said, peak = peak_of(Data(name="cifar10", reader="cifar", root=str(tmp_path)))
    assert "it holds 0 bytes" in said and peak < 60


def test_labels_are_fewer_than_images_may_have_bytes(mnist):
    path = Path(mnist.root) / idx.TRAIN[1]
    path.write_bytes(b"\0\0\x08\x01" + struct.pack(">I", idx.MOST_IMAGES + 1))
    refused(mnist, f"announces {idx.MOST_IMAGES + 1} bytes .*; at most {idx.MOST_IMAGES} are read")


def test_an_announced_size_is_no_memory_before_it_is_there(tmp_path, mnist):
    (tmp_path / idx.TRAIN[0]).write_bytes(b"\0\0\x08\x03" + struct.pack(">III", 2**11, 2**10, 2**10) + bytes(1000))
    said, peak = peak_of(mnist)
    assert "but it holds 1000" in said and peak < 60


@pytest.mark.parametrize("name", ["loop", "missing"])
def test_links_that_lead_nowhere_are_counted_as_unreadable_images(tmp_path, name):
    data = make_folders(tmp_path)
    link = tmp_path / "train" / "class0" / f"{name}.jpg"
    link.symlink_to(link if name == "loop" else tmp_path / "nothing")
    (tmp_path / "train" / "round").symlink_to(tmp_path / "train" / "round")  # no class
    splits = folder.read(data, 32)
    assert len(splits.train) == 25 and splits.class_names == ("class0", "class1", "class2")


@pytest.fixture
def pit(tmp_path):
    """A folder for what is nested too deeply for Python to remove it."""
    yield tmp_path / "pit"
    subprocess.run(["rm", "-rf", str(tmp_path / "pit")], check=True)


def test_folders_may_be_nested_as_deeply_as_the_system_lets_them(pit, monkeypatch):
    data = make_folders(pit)
    image = (pit / "train" / "class0" / "0000.jpg").read_bytes()
    monkeypatch.chdir(pit / "train" / "class0")
    depth = (4000 - len(str(Path.cwd()))) // 2
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    Path("a.jpg").write_bytes(image)
    assert len(folder.read(data, 32).train) == 25
    for _ in range(200):
        Path("d").mkdir()
        os.chdir("d")
    folder._listings.clear()
    refused(data, "data=photos cannot be read: .*File name too long")


def test_names_of_files_may_be_any_bytes_and_those_of_classes_are_text(tmp_path):
    data = make_folders(tmp_path)
    before = checksum_of(data)
    odd = os.fsencode(tmp_path / "train" / "class0") + b"/\xff\n.jpg"
    os.rename(tmp_path / "train" / "class0" / "0000.jpg", odd)
    assert checksum_of(data) != before
    source = source_for(data)
    assert source.train_size == 24
    for split in ("train", "val"):
        os.rename(tmp_path / split / "class2", os.fsencode(tmp_path / split) + b"/class\xff")
    refused(data, r"class\\udcff: the name of a class must be text in UTF-8")


@pytest.mark.parametrize("name, code", [("EACCES", DataError), ("ESTALE", StorageError), ("EIO", StorageError)])
def test_what_the_system_refuses_is_one_clear_line(tmp_path, monkeypatch, name, code):
    data = make_folders(tmp_path)
    monkeypatch.setattr(patience, "WAITS", (0.0,))
    number = getattr(errno, name)

    def scandir(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(folder.os, "scandir", scandir)
    refused(data, os.strerror(number), code)


@pytest.mark.parametrize("reader", [idx, cifar])
def test_a_passing_error_in_an_archive_is_tried_again(tmp_path, monkeypatch, reader):
    for name in (*idx.TRAIN, *idx.TEST):
        with gzip.open(tmp_path / f"{name}.gz", "wb") as file:
            count = 20 if name in idx.TRAIN else 4
            file.write(idx_file(np.zeros((count, 28, 28)) if "images" in name else np.arange(count) % 4))
    (tmp_path / cifar.VERSIONS[10].archive).write_bytes(b"")
    data = Data(name="fashion_mnist", reader="idx", root=str(tmp_path))
    if reader is cifar:
        data = Data(name="cifar10", reader="cifar", root=str(tmp_path))
    failures = []

    def failing(*arguments):
        failures.append(arguments)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(patience, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(reader.gzip, "open", failing)
    refused(data, "after 3 attempts: Input/output error", StorageError)
    assert len(failures) == 3
