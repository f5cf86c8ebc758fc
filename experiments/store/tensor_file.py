"""Tensors to and from safetensors, streamed through `experiments.store.atomic` and hashed on the way.

Writing needs no second copy of the state in memory, and the bytes equal those of `safetensors.torch.save`
(https://github.com/huggingface/safetensors#format): 8 bytes of header length, a JSON header, the data.
No metadata is written: with more than one key its order, and so the file's hash, would differ from save to save.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from experiments.errors import StorageError
from experiments.store import atomic
from experiments.strict_json import read_bytes
from roadmap.errors import first_line

# safetensors' names, widest alignment first: the order in which the format lays tensors out.
DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
RANKS = {dtype: rank for rank, dtype in enumerate(DTYPES)}
LIMIT = 16 << 30  # bytes; larger files are refused before any of them is read


class TensorEntry(NamedTuple):
    """What identifies one stored tensor; JSON-able."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str


def _raw(tensor: Tensor) -> memoryview:
    """A tensor's elements in row-major order, as bytes; no copy for a contiguous tensor in CPU memory."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _layout(tensors: Mapping[str, Tensor]) -> list[str]:
    for name, tensor in tensors.items():
        if tensor.dtype not in RANKS:
            raise ValueError(f"tensor {name} is of {tensor.dtype}, which no checkpoint can hold")
    return sorted(tensors, key=lambda name: (RANKS[tensors[name].dtype], name))


def _header(tensors: Mapping[str, Tensor], names: list[str]) -> bytes:
    table, start = {}, 0
    for name in names:
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        table[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def entry_of(tensor: Tensor) -> TensorEntry:
    """A tensor's dtype, shape and SHA-256 of its elements in row-major order."""
    return TensorEntry(DTYPES[tensor.dtype], tuple(tensor.shape), hashlib.sha256(_raw(tensor)).hexdigest())


def pieces_of(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The pieces of a safetensors file, header first, in file order."""
    names = _layout(tensors)
    yield _header(tensors, names)
    for name in names:
        yield _raw(tensors[name])


def parse_tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file's content. Raises StorageError for anything else."""
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        reason = first_line(error)[:200]
        raise StorageError(f"{path}: is not a safetensors file ({reason})") from None


def save_weights(path: Path, model_state: Mapping[str, Tensor]) -> None:
    """Write a model's state as a safetensors file, whole or not at all. Raises StorageError."""
    atomic.replace(path, pieces_of(model_state))


def load_weights(path: Path, limit: int = LIMIT) -> dict[str, Tensor]:
    """The tensors of a safetensors file of at most `limit` bytes, on the CPU. Raises StorageError."""
    try:
        data = read_bytes(path, limit)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise StorageError(str(error)) from None
    return parse_tensors(data, path)
