"""Tensor files: the bytes are those of safetensors, they are written whole and nothing else is read."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from experiments.errors import StorageError
from experiments.store import atomic
from experiments.store.tensor_file import DTYPES, load_weights, pieces_of, save_weights


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_the_bytes_are_those_of_safetensors(dtype: torch.dtype) -> None:
    tensors = {
        f"x.{dtype}": torch.ones(3, 2).to(dtype),
        "conv": torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
        "count": torch.tensor(3),
        "empty": torch.empty(0, 3),
        "flags": torch.tensor([True, False]),
        "half": torch.randn(7).bfloat16(),
    }
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    assert b"".join(pieces_of(tensors)) == safetensors.torch.save(plain)


def test_large_and_small_pieces_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [bytes([number]) * size for number, size in enumerate((3, 0, 5, 64, 200, 1, 63, 2, 129))]
    monkeypatch.setattr(atomic, "CHUNK", 64)
    written = atomic.create(tmp_path / "file", pieces)
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)
    assert written.size == sum(map(len, pieces))


def test_weights_are_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_weights(path, {"fc.weight": torch.arange(6.0).reshape(2, 3)})
    assert torch.equal(load_weights(path)["fc.weight"], torch.arange(6.0).reshape(2, 3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.safetensors"]


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0{}      x", b"PK\x03\x04" * 9])
def test_weights_that_are_no_safetensors_are_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.safetensors"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="is not a safetensors file") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)
