"""Archives and folders of images made to leave their place, to exhaust memory or to run code."""

import gzip
import io
import os
import shutil
import socket
import struct
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from experiments.data.readers import cifar, idx
from tests.storms.payloads import Place, pickled

BINARY = cifar.VERSIONS[10]


class Archive(NamedTuple):
    """A set that is not made of folders: the value of `data=`, and what puts its files into a folder."""

    data: str
    plant: Callable[[Place, Path], None]


# ---- IDX files


def idx_file(shape: tuple[int, ...], content: bytes, magic: bytes = b"\0\0\x08") -> bytes:
    """A header that announces `shape`, whatever follows."""
    return magic + bytes((len(shape),)) + b"".join(struct.pack(">I", size) for size in shape) + content


def whole_idx(folder: Path) -> None:
    """A set of the right form."""
    for (images, labels), count in ((idx.TRAIN, 96), (idx.TEST, 32)):
        with gzip.open(folder / f"{images}.gz", "wb") as file:
            file.write(idx_file((count, 28, 28), bytes(range(256)) * (count * 784 // 256)))
        (folder / labels).write_bytes(idx_file((count,), bytes(i % 10 for i in range(count))))


def _packed(content: bytes, endless: int = 0) -> Callable[[Place, Path], None]:
    """Replace the training images by a gzip file of `content` and `endless` MiB of zeros."""

    def plant(place: Place, folder: Path) -> None:
        whole_idx(folder)
        with gzip.open(folder / f"{idx.TRAIN[0]}.gz", "wb", compresslevel=1) as file:
            file.write(content)
            for _ in range(endless):
                file.write(bytes(1 << 20))

    return plant


def _raw(make: Callable[[Place], bytes], name: str = f"{idx.TRAIN[0]}.gz") -> Callable[[Place, Path], None]:
    def plant(place: Place, folder: Path) -> None:
        whole_idx(folder)
        (folder / name).write_bytes(make(place))

    return plant


def _wrong_idx(place: Place) -> bytes:
    """Headers of other types and sizes."""
    random_ = place.random
    shape = tuple(random_.choice((0, 1, 10, 28, 1 << 16, (1 << 32) - 1)) for _ in range(random_.choice((1, 3, 7, 255))))
    return idx_file(shape, random_.randbytes(1000), random_.choice((b"\0\0\x08", b"\0\0\x0d", b"\x80\x04K", b"PK\3")))


def _wrong_labels(place: Place) -> bytes:
    count = place.random.choice((96, 95, 97))
    return idx_file((count,), bytes((255,)) * count)


def _damaged_gzip(place: Place) -> bytes:
    content = bytearray(gzip.compress(idx_file((96, 28, 28), place.random.randbytes(96 * 784))))
    for _ in range(3):
        content[place.random.randrange(len(content))] ^= 1 << place.random.randrange(8)
    return bytes(content[: place.random.choice((len(content), len(content) // 2))])


def _npz(place: Place) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(
            "x_train.npy", b"\x93NUMPY\1\0\x3e\0{'descr': '|O', 'fortran_order': False, 'shape': (1,)}   \n"
        )
        archive.writestr("y_train.pkl", pickled(place))
    return buffer.getvalue()


def _no_idx_file(place: Place, folder: Path) -> None:
    whole_idx(folder)
    path = folder / f"{idx.TRAIN[0]}.gz"
    path.unlink()
    _no_file(place, path)


def _no_file(place: Place, path: Path) -> None:
    """What stands where a file should: a pipe, a socket, a folder, or a link to what does not end or does not exist."""
    kind = place.random.choice(("pipe", "socket", "folder", "/dev/zero", "/dev/full", "loop"))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with closing(socket.socket(socket.AF_UNIX)) as server:
            descriptor = os.open(path.parent, os.O_RDONLY)
            server.bind(f"/proc/self/fd/{descriptor}/{path.name}")
            os.close(descriptor)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path if kind == "loop" else kind)


# ---- CIFAR's archives


def _member(name: str, content: bytes = b"0123456789", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def _archive(make: Callable[[Place], bytes], endless: int = 0) -> Callable[[Place, Path], None]:
    def plant(place: Place, folder: Path) -> None:
        with gzip.open(folder / BINARY.archive, "wb", compresslevel=1) as file:
            file.write(make(place))
            for _ in range(endless):
                file.write(bytes(1 << 20))

    return plant


def _leaves_its_place(place: Place) -> bytes:
    escape = str(place.canary)
    names = (escape, f"..{escape}", f"{BINARY.folder}/../../../..{escape}", f"./{BINARY.folder}/../canary")
    return b"".join(_member(name) for name in names)


def _links(place: Place) -> bytes:
    wanted = f"{BINARY.folder}/{place.random.choice(BINARY.train)}"
    kind = place.random.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE))
    return _member(wanted, b"", kind, place.random.choice(("/etc/passwd", wanted, "../../canary", "/dev/zero")))


def _long_header(place: Place) -> bytes:
    """A header that announces a name or attributes of gigabytes."""
    kinds = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
    info = tarfile.TarInfo("header")
    info.type, info.size = place.random.choice(kinds), 8 << 30
    return info.tobuf(tarfile.GNU_FORMAT)


def _wrong_attributes(place: Place) -> bytes:
    lines = place.random.choice(
        (b"99999999999 path=x\n", b"12 size=-50\n", b"20 GNU.sparse.map=1,\n", b"x", b"16 size=1e400ab\n", b"0 path=\n")
    )
    return _member("header", lines, tarfile.XHDTYPE) + _member(f"{BINARY.folder}/{BINARY.train[0]}")


def _random_header(place: Place) -> bytes:
    content = bytearray(_member(f"{BINARY.folder}/{BINARY.train[0]}"))
    for _ in range(8):
        content[place.random.randrange(512)] = place.random.randrange(256)
    checksum = sum(content[:148]) + 8 * 32 + sum(content[156:512])
    content[148:156] = b"%06o\0 " % checksum
    return bytes(content)


def _many_members(place: Place) -> bytes:
    return b"".join(_member(f"{number}", b"") for number in range(1000)) * 100


def _other_archive(make: Callable[[Place], bytes]) -> Callable[[Place, Path], None]:
    return lambda place, folder: _written(folder / BINARY.archive, make(place))


def _written(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _pickled_version(place: Place, folder: Path) -> None:
    below = folder / BINARY.pickled[0]
    below.mkdir()
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (below / name).write_bytes(pickled(place))


def _large_files(place: Place, folder: Path) -> None:
    below = folder / BINARY.folder
    below.mkdir()
    for name in (*BINARY.train, BINARY.test, BINARY.names):
        with open(below / name, "wb") as file:
            file.truncate(place.random.choice((10 << 30, 30_730_000)))


def _no_files(place: Place, folder: Path) -> None:
    below = folder / BINARY.folder
    below.mkdir()
    for name in (*BINARY.train, BINARY.test, BINARY.names):
        _no_file(place, below / name)


ARCHIVES = {
    "idx.gz that does not end": Archive("fashion_mnist", _packed(idx_file((96, 28, 28), b""), 1500)),
    "idx.gz that announces 2 GiB": Archive("fashion_mnist", _packed(idx_file((1 << 11, 1 << 10, 1 << 10), b"x"))),
    "idx.gz that announces more": Archive("fashion_mnist", _packed(idx_file((1 << 31, 1 << 31, 1 << 31), b"x"))),
    "labels that announce 4 GiB": Archive(
        "fashion_mnist", _raw(lambda _: idx_file(((1 << 32) - 1,), b""), idx.TRAIN[1])
    ),
    "idx of another form": Archive("fashion_mnist", _raw(lambda place: gzip.compress(_wrong_idx(place)))),
    "labels of other classes": Archive("fashion_mnist", _raw(_wrong_labels, idx.TRAIN[1])),
    "idx.gz with flipped bits": Archive("fashion_mnist", _raw(_damaged_gzip)),
    "idx is a pickle": Archive("fashion_mnist", _raw(lambda place: gzip.compress(pickled(place)))),
    "idx.gz is a pickle": Archive("fashion_mnist", _raw(pickled)),
    "idx is an npz": Archive("fashion_mnist", _raw(_npz)),
    "idx is no file": Archive("fashion_mnist", _no_idx_file),
    "archive leaves its place": Archive("cifar10", _archive(_leaves_its_place)),
    "archive of links": Archive("cifar10", _archive(_links)),
    "archive with a header of 8 GiB": Archive("cifar10", _archive(_long_header, 600)),
    "archive with wrong attributes": Archive("cifar10", _archive(_wrong_attributes)),
    "archive with a random header": Archive("cifar10", _archive(_random_header)),
    "archive of 100,000 members": Archive("cifar10", _archive(_many_members)),
    "archive that does not end": Archive("cifar10", _archive(lambda _: _member("a") + bytes(512), 1500)),
    "archive is a zip": Archive("cifar10", _other_archive(_npz)),
    "archive is a pickle": Archive("cifar10", _other_archive(pickled)),
    "archive is random": Archive(
        "cifar10", _other_archive(lambda place: b"\x1f\x8b\x08" + place.random.randbytes(999))
    ),
    "archive is no file": Archive("cifar10", lambda place, folder: _no_file(place, folder / BINARY.archive)),
    "the pickled version": Archive("cifar10", _pickled_version),
    "files of 10 GiB": Archive("cifar10", _large_files),
    "files are no files": Archive("cifar10", _no_files),
}


# ---- folders


def _empty_class(place: Place) -> None:
    folder = place.images / place.random.choice(("train", "val")) / "class3"
    for path in folder.iterdir():
        path.unlink()


def _nested(place: Place) -> None:
    """As deep as paths can be, and sometimes deeper."""
    image = (place.images / "train" / "class0" / "0000.png").read_bytes()
    descriptor = os.open(place.images / "train" / "class0", os.O_RDONLY)
    for _ in range(place.random.choice((100, 1200, 2200))):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    file = os.open("deep.png", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=descriptor)
    os.write(file, image)
    os.close(file)
    os.close(descriptor)


def _many_classes(place: Place) -> None:
    image = place.images / "train" / "class0" / "0000.png"
    for split in ("train", "val"):
        for number in range(10_000):
            folder = place.images / split / f"n{number:05d}"
            folder.mkdir()
            os.link(image, folder / "0.png")


def _unreadable(place: Place) -> None:
    path = place.images / place.random.choice(("train", "train/class0", "val", "train/class0/0000.png"))
    path.chmod(0)


def _file_for_a_folder(place: Place) -> None:
    path = place.images / place.random.choice(("train", "val", "train/class1", "val/class0", ""))
    shutil.rmtree(path)
    kind = place.random.choice(("file", "pipe", "loop", "/dev/zero", "/proc"))
    if kind == "file":
        path.write_bytes(b"no folder")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "loop" else kind)


def _same_but_for_case(place: Place) -> None:
    for split in ("train", "val"):
        shutil.copytree(place.images / split / "class0", place.images / split / "CLASS0")
        if place.random.random() < 0.5:
            shutil.rmtree(place.images / split / "class1")


CLASS_NAMES = (
    *(b"new\nline", b"\xff\xfe", b"x" * 255, b"\x1b[2J\x1b]0;x\x07", b"[red]bold[/red]", b"%s{0}${x}", b"-rf", b" "),
    *(b"=HYPERLINK(1)", b"$x^{$", b"\r", b"`touch x`", "‮ssalc".encode(), b"*", b"class0\t"),
)


def _class_name(place: Place) -> None:
    name = place.random.choice(CLASS_NAMES)
    for split in ("train", "val"):
        folder = os.fsencode(place.images / split) + b"/"
        os.rename(folder + b"class1", folder + name)


def _linked_class(place: Place) -> None:
    """A class that is a link: around in circles, out of the set, or to what has no end."""
    folder = place.images / "train" / "class1"
    shutil.rmtree(folder)
    folder.symlink_to(
        place.random.choice((".", "..", "class1", "/etc", "/proc/self", "/dev", "../val/class1", "class0"))
    )


def _circles(place: Place) -> None:
    """Links to folders above, inside a class."""
    for number, target in enumerate((".", "..", "../..", "/")):
        (place.images / "train" / "class0" / f"round{number}.png").symlink_to(target)
        (place.images / "train" / "class0" / f"round{number}").symlink_to(target)


def _missing_split(place: Place) -> None:
    shutil.rmtree(place.images / place.random.choice(("train", "val", "val/class2", "")))


def _many_files(place: Place) -> None:
    for number in range(20_000):
        (place.images / "train" / "class0" / f"none{number}.png").touch()


FOLDERS: dict[str, Callable[[Place], None]] = {
    "class without images": _empty_class,
    "folders nested without end": _nested,
    "10,000 classes": _many_classes,
    "folder without permission": _unreadable,
    "file where a folder should be": _file_for_a_folder,
    "classes that differ in case": _same_but_for_case,
    "class of a hostile name": _class_name,
    "class is a link": _linked_class,
    "links in circles": _circles,
    "part of the set is missing": _missing_split,
    "20,000 empty files": _many_files,
}
