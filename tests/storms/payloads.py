"""Files made to execute code, to leave the run directory or to exhaust memory; `plant` puts one where a run reads it.

A payload that is executed creates the canary file; nothing here does any other harm.
"""

import hashlib
import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from experiments.store.checkpoint import MANIFEST, STATE
from experiments.store.run_dir import RunDir
from experiments.store.tensor_file import pieces_of


class Place(NamedTuple):
    """Where a payload goes: a half-done run, its data, and the file that must never appear."""

    run: Path
    images: Path
    canary: Path
    random: random.Random

    @property
    def newest(self) -> Path:
        """The newest checkpoint."""
        return sorted(RunDir(self.run).checkpoints.glob("step-*"))[-1]

    @property
    def start(self) -> Path:
        """Where the run wrote that was killed."""
        return RunDir(self.run).checkpoints.parent


class Executes:
    """Unpickling this runs a shell command."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def pickled(place: Place) -> bytes:
    """A pickle that creates the canary when it is loaded."""
    return pickle.dumps(Executes(place.canary), protocol=place.random.choice((0, 2, 4)))


def _torch_file(place: Place) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": Executes(place.canary)}, buffer)
    return buffer.getvalue()


def _zip_bomb(place: Place) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickled(place))
        archive.writestr("archive/data/0", bytes(50 << 20))
    return buffer.getvalue()


def _huge_header(place: Place) -> bytes:
    return place.random.choice((1 << 40, 2**63, 2**64 - 1)).to_bytes(8, "little") + b"{" + b" " * 100


def _tensor_table(place: Place) -> bytes:
    """A safetensors header that promises terabytes, overlaps, or leaves the file."""
    entry = place.random.choice(
        (
            {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]},
            {"dtype": "F32", "shape": [1 << 32, 1 << 32], "data_offsets": [0, 0]},
            {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
            {"dtype": "F32", "shape": [1], "data_offsets": [-8, -4]},
            {"dtype": "O", "shape": [1], "data_offsets": [0, 8]},
        )
    )
    text = json.dumps({"../../../escape": entry, "again": entry}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(64)


def _deep_header(place: Place) -> bytes:
    text = b'{"a":' * 200_000
    return len(text).to_bytes(8, "little") + text


STATES: dict[str, Callable[[Place], bytes]] = {
    "pickle": pickled,
    "torch.save": _torch_file,
    "zip bomb": _zip_bomb,
    "huge header": _huge_header,
    "tensor table": _tensor_table,
    "deep header": _deep_header,
}


def forge(place: Place, content: bytes, **changes: Any) -> None:
    """Replace the newest checkpoint by one whose hashes are all consistent with `content` and the changed manifest."""
    folder = place.newest
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} | changes
    (folder / STATE).write_bytes(content)
    replace_manifest(folder, json.dumps(manifest).encode())


def replace_manifest(folder: Path, text: bytes) -> None:
    """Put a manifest into a checkpoint and rename the folder so that its name fits."""
    (folder / MANIFEST).write_bytes(text)
    folder.rename(folder.with_name(f"{folder.name[:13]}-{hashlib.sha256(text).hexdigest()[:16]}"))


def _state_under_the_old_manifest(name: str) -> Callable[[Place], None]:
    return lambda place: _put(place.newest / STATE, STATES[name](place))


def _forged_state(name: str) -> Callable[[Place], None]:
    return lambda place: forge(place, STATES[name](place))


def _forged_names(place: Place) -> None:
    """Tensors of other names and shapes, with a paths among them, all hashes consistent."""
    tensors = {"../../../../escape": torch.ones(3), "__class__": torch.ones(1), "model.x" * 1000: torch.ones(1)}
    state = b"".join(pieces_of(tensors))
    forge(place, state, tensors={name: ["F32", list(t.shape), ""] for name, t in tensors.items()})


def _forged_values(place: Place) -> None:
    """A consistent checkpoint whose JSON state is not what the engine wrote."""
    state = (place.newest / STATE).read_bytes()
    values = place.random.choice(
        (
            {},
            {"counters": "__import__('os').system('x')"},
            {"history": [{"epoch": "x" * 1_000_000}]},
            {"counters": {"epoch": -1, "step": 10**30}, "history": [], "scaler": {}, "ranks": 1},
        )
    )
    forge(place, state, state=values)


def _forged_size(place: Place) -> None:
    """A state file of 10 GB of holes that its manifest vouches for."""
    forge(place, (place.newest / STATE).read_bytes(), size=10 << 30)
    with open(place.newest / STATE, "r+b") as file:
        file.truncate(10 << 30)


def _manifest_text(text: bytes) -> Callable[[Place], None]:
    return lambda place: replace_manifest(place.newest, text)


def _put(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _link(path: Callable[[Place], Path], target: str) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        path(place).unlink(missing_ok=True)
        path(place).symlink_to(target)

    return plant


def _pipe(path: Callable[[Place], Path]) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        path(place).unlink(missing_ok=True)
        os.mkfifo(path(place))

    return plant


def _sparse(path: Callable[[Place], Path], size: int) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        with open(path(place), "r+b" if path(place).exists() else "wb") as file:
            file.truncate(size)

    return plant


def _writing_is_a_link(place: Place) -> None:
    """The temporary folder of the next save points out of the run directory."""
    outside = place.canary.parent / "precious"
    outside.mkdir(exist_ok=True)
    (outside / "file").write_text("precious")
    writing = place.start / "checkpoints" / ".writing"
    shutil.rmtree(writing, ignore_errors=True)  # what the killed run left
    writing.symlink_to(outside)


def _starts_are_a_link(place: Place) -> None:
    outside = place.canary.parent / "precious"
    outside.mkdir(exist_ok=True)
    (outside / "file").write_text("precious")
    shutil.rmtree(place.run / "starts")
    (place.run / "starts").symlink_to(outside)


def _checkpoint_is_a_link(place: Place) -> None:
    outside = place.canary.parent / place.newest.name
    place.newest.rename(outside)
    (place.start / "checkpoints" / outside.name).symlink_to(outside)


CHECKPOINTS: dict[str, Callable[[Place], None]] = {
    **{f"state is a {name}": _state_under_the_old_manifest(name) for name in STATES},
    **{f"forged, state is a {name}": _forged_state(name) for name in STATES},
    "forged tensor names": _forged_names,
    "forged values": _forged_values,
    "forged size of 10 GB": _forged_size,
    "deep manifest": _manifest_text(b"[" * 1_000_000),
    "manifest of huge numbers": _manifest_text(b'{"format": ' + b"9" * 100_000 + b"}"),
    "manifest is a pickle": lambda place: replace_manifest(place.newest, pickled(place)),
    "manifest of 10 GB": _sparse(lambda place: place.newest / MANIFEST, 10 << 30),
    "state of 10 GB": _sparse(lambda place: place.newest / STATE, 10 << 30),
    "state is /dev/zero": _link(lambda place: place.newest / STATE, "/dev/zero"),
    "manifest is /dev/zero": _link(lambda place: place.newest / MANIFEST, "/dev/zero"),
    "manifest is a pipe": _pipe(lambda place: place.newest / MANIFEST),
    "state is a pipe": _pipe(lambda place: place.newest / STATE),
    "temporary folder is a link": _writing_is_a_link,
    "checkpoint is a link": _checkpoint_is_a_link,
}

YAML_CODE = "!!python/object/apply:os.system ['touch {}']\n"
YAML_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)


def _text(path: Callable[[Place], Path], text: str) -> Callable[[Place], None]:
    return lambda place: _put(path(place), text.replace("{}", str(place.canary)).encode())


def _config(place: Place) -> Path:
    return place.run / "config.yaml"


def _result(place: Place) -> Path:
    return place.run / "result.json"


RECORDS: dict[str, Callable[[Place], None]] = {
    "config.yaml calls os.system": _text(_config, YAML_CODE),
    "config.yaml makes an object": _text(_config, "run_id: !!python/object/new:subprocess.Popen [['touch', '{}']]\n"),
    "config.yaml has a _target_": _text(_config, "run_id: {_target_: os.system, command: 'touch {}'}\n"),
    "config.yaml is a bomb": _text(_config, YAML_BOMB),
    "config.yaml is deep": _text(_config, "[" * 20_000),
    "config.yaml of 10 GB": _sparse(_config, 10 << 30),
    "config.yaml is /dev/zero": _link(_config, "/dev/zero"),
    "result.json is deep": _text(_result, '{"a":' * 100_000),
    "result.json of 10 GB": _sparse(_result, 10 << 30),
    "result.json is /dev/zero": _link(_result, "/dev/zero"),
    "result.json is a pipe": _pipe(_result),
    "result.json is a pickle": lambda place: _put(_result(place), pickled(place)),
    "metrics.jsonl of 10 GB": _sparse(lambda place: place.start / "metrics.jsonl", 10 << 30),
    "metrics.jsonl is a link": _link(lambda place: place.start / "metrics.jsonl", "../../precious"),
    "environment.json is deep": _text(lambda place: place.run / "environment.json", "[" * 100_000),
    "environment.json of 10 GB": _sparse(lambda place: place.run / "environment.json", 10 << 30),
    "timing.jsonl is a pickle": lambda place: _put(place.start / "timing.jsonl", pickled(place)),
    "starts are a link": _starts_are_a_link,
    "claim is a link": _link(lambda place: place.run / ".claim", "../../precious"),
    "claim is a pickle": lambda place: _put(place.run / ".claim", pickled(place)),
}


def _png(width: int, height: int, body: bytes) -> bytes:
    """A PNG whose header says width x height, whatever its body."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def _image(content: Callable[[Place], bytes], name: str = "0000.png") -> Callable[[Place], None]:
    return lambda place: _put(place.images / "train" / "class0" / name, content(place))


def _postscript(place: Place) -> bytes:
    program = f"%pipe%touch {place.canary}"
    return f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n({program}) (w) file closefile\nshowpage\n".encode()


def _svg(place: Place) -> bytes:
    return b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><svg>&e;</svg>'


IMAGES: dict[str, Callable[[Place], None]] = {
    "image of 60000 x 60000": _image(lambda place: _png(60_000, 60_000, bytes(1 << 20))),
    "image of 2 billion pixels a side": _image(lambda place: _png(2**31 - 1, 2**31 - 1, b"")),
    "image that unpacks to 500 MB": _image(lambda place: _png(40, 40, bytes(500 << 20))),
    "image is a pickle": _image(pickled),
    "image is a torch.save": _image(_torch_file),
    "image is PostScript": _image(_postscript),
    "image named .eps": _image(_postscript, "0000.eps"),
    "image is SVG with an entity": _image(_svg),
    "image is a zip bomb": _image(_zip_bomb),
    "image is empty": _image(lambda place: b""),
    "image is random": _image(lambda place: place.random.randbytes(4000)),
    "image is /dev/zero": _link(lambda place: place.images / "train" / "class0" / "0000.png", "/dev/zero"),
    "image is a pipe": _pipe(lambda place: place.images / "train" / "class0" / "0000.png"),
    "image of 10 GB": _sparse(lambda place: place.images / "train" / "class0" / "0000.png", 10 << 30),
}

GROUPS = {"checkpoint": CHECKPOINTS, "record": RECORDS, "image": IMAGES}
