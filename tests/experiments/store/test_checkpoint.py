"""Checkpoints: what is saved comes back, what is damaged is found, what is old is removed, errors are not lost."""

import hashlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from experiments.errors import StorageError
from experiments.store import atomic
from experiments.store.checkpoint import MANIFEST, SET_ASIDE, STATE, WRITING, Checkpoints, size_limit
from experiments.store.tensor_file import pieces_of
from tests.storms.payloads import replace_manifest

RUN, OTHER_RUN = "a" * 64, "b" * 64


def tensors_of(step: int) -> dict[str, torch.Tensor]:
    """A small state that differs from step to step, with two tensors of one shape, a scalar and every odd layout."""
    generator = torch.Generator().manual_seed(step)
    return {
        "model.fc.weight": torch.randn(8, 8, generator=generator),
        "model.fc.other": torch.randn(8, 8, generator=generator),
        "model.conv": torch.randn(4, 3, 5, 5, generator=generator).to(memory_format=torch.channels_last),
        "model.counted": torch.tensor(step),
        "ema.fc.weight": torch.randn(8, 8, generator=generator).bfloat16(),
        "empty": torch.empty(0, 3),
        "flags": torch.tensor([True, False, step % 2 == 0]),
    }


def save(folder: Path, *steps: int, run_id: str = RUN, background: bool = False) -> Checkpoints:
    """A store at `folder` with one checkpoint for each of `steps`."""
    folder.mkdir(exist_ok=True)
    store = Checkpoints(folder, run_id, background=background)
    for step in steps:
        store.save(
            step, tensors_of(step), {"epoch": step // 10, "best": 1 / 3, "history": [{"epoch": 0, "loss": None}]}
        )
    store.wait()
    return store


def checkpoint_folders(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("background", [False, True])
def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path, background: bool) -> None:
    save(tmp_path, 7, background=background)
    loaded = Checkpoints(tmp_path, RUN).load()
    assert loaded is not None
    assert loaded.step == 7
    assert loaded.state == {"epoch": 0, "best": 1 / 3, "history": [{"epoch": 0, "loss": None}]}
    expected = tensors_of(7)
    assert set(loaded.tensors) == set(expected)
    for name, tensor in expected.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor)


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, RUN).load() is None


def test_a_tensor_that_no_checkpoint_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tensor odd is of torch\.complex64"):
        Checkpoints(tmp_path, RUN, background=False).save(1, {"odd": torch.zeros(2, dtype=torch.complex64)}, {})


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save(tmp_path / name, 5)
    (first,), (second,) = checkpoint_folders(tmp_path / "one"), checkpoint_folders(tmp_path / "two")
    assert first.name == second.name
    for file in (STATE, MANIFEST):
        assert (first / file).read_bytes() == (second / file).read_bytes()


def test_the_state_is_copied_before_save_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write = threading.Event()
    create = atomic.create
    monkeypatch.setattr(atomic, "create", lambda *arguments: (may_write.wait(10), create(*arguments))[1])
    tensors, state = tensors_of(1), {"best": [1.0]}
    store = Checkpoints(tmp_path, RUN)
    store.save(1, tensors, state)
    for tensor in tensors.values():
        tensor.zero_()
    state["best"].append(2.0)
    may_write.set()
    loaded = store.load()
    assert loaded is not None
    assert torch.equal(loaded.tensors["model.fc.weight"], tensors_of(1)["model.fc.weight"])
    assert loaded.state == {"best": [1.0]}


def test_closing_leaves_the_save_under_way_its_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that an error ends closes its store while the thread still writes."""
    store, write, closing = Checkpoints(tmp_path, RUN), Checkpoints._write, threading.Event()

    def late(*arguments: Any) -> None:
        closing.wait(10)
        time.sleep(0.1)
        write(*arguments)

    monkeypatch.setattr(Checkpoints, "_write", late)
    store.save(3, tensors_of(3), {})
    threading.Timer(0.05, closing.set).start()
    store.close()
    loaded = Checkpoints(tmp_path, RUN).load()
    assert loaded is not None
    assert loaded.tensors.keys() == tensors_of(3).keys()


def test_two_generations_are_kept_and_a_thousand_saves_leave_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic.os, "fsync", lambda descriptor: None)
    store = Checkpoints(tmp_path, RUN)
    for step in range(1, 1001):
        store.save(step, {"x": torch.tensor(step)}, {})
        if step > 1:  # the first one may not have begun: two kept, one being written, one about to go
            assert len(list((tmp_path / "checkpoints").iterdir())) <= 4
    store.close()
    assert [int(path.name.split("-")[1]) for path in checkpoint_folders(tmp_path)] == [999, 1000]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("keep", [1, 3])
def test_keep_says_how_many_generations_stay(tmp_path: Path, keep: int) -> None:
    store = Checkpoints(tmp_path, RUN, keep=keep, background=False)
    for step in range(10):
        store.save(step, {"x": torch.tensor(step)}, {})
    assert len(checkpoint_folders(tmp_path)) == keep


def damage(newest: Path, older: Path, kind: str, foreign: Path) -> None:
    """Damage the newest checkpoint in one way."""
    state, manifest = newest / STATE, newest / MANIFEST
    match kind:
        case "flip in header" | "flip in data" | "flip in manifest":
            file, position = {"flip in header": (state, 30), "flip in data": (state, -5)}.get(kind, (manifest, 40))
            data = bytearray(file.read_bytes())
            data[position] ^= 4
            file.write_bytes(data)
        case "cut state":
            state.write_bytes(state.read_bytes()[:-1])
        case "empty state":
            state.write_bytes(b"")
        case "longer state":
            state.write_bytes(state.read_bytes() + b"\0")
        case "zeroed":
            state.write_bytes(bytes(state.stat().st_size))
        case "no state":
            state.unlink()
        case "no manifest":
            manifest.unlink()
        case "cut manifest":
            manifest.write_bytes(manifest.read_bytes()[:50])
        case "older state":
            state.write_bytes((older / STATE).read_bytes())
        case "older manifest":
            manifest.write_bytes((older / MANIFEST).read_bytes())
        case "older checkpoint under the newest name":
            for name in (STATE, MANIFEST):
                (newest / name).write_bytes((older / name).read_bytes())
        case "other run":
            for name in (STATE, MANIFEST):
                (newest / name).write_bytes((foreign / name).read_bytes())
            newest.rename(newest.with_name(foreign.name))
        case "swapped tensors":
            tensors = safetensors.torch.load(state.read_bytes())
            first, second = tensors["model.fc.weight"], tensors["model.fc.other"]
            state.write_bytes(b"".join(pieces_of(tensors | {"model.fc.weight": second, "model.fc.other": first})))
        case "state is a link":
            state.rename(newest / "moved")
            state.symlink_to("moved")
        case "state is a folder":
            state.unlink()
            state.mkdir()


KINDS = [
    "flip in header", "flip in data", "flip in manifest", "cut state", "empty state", "longer state", "zeroed",
    "no state", "no manifest", "cut manifest", "older state", "older manifest", "swapped tensors", "state is a link",
    "state is a folder", "older checkpoint under the newest name", "other run",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_checkpoint_is_reported_and_the_older_one_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    save(tmp_path, 10, 20)
    save(tmp_path / "foreign", 20, run_id=OTHER_RUN)
    older, newest = checkpoint_folders(tmp_path)
    damage(newest, older, kind, checkpoint_folders(tmp_path / "foreign")[0])
    store = Checkpoints(tmp_path, RUN, background=False)
    loaded = store.load()
    assert loaded is not None
    assert loaded.step == 10
    assert torch.equal(loaded.tensors["model.fc.weight"], tensors_of(10)["model.fc.weight"])
    assert len(loaded.skipped) == 1
    assert "\n" not in loaded.skipped[0]
    assert "step-00000020" in caplog.text
    # The run goes on from step 10: the damaged one does not count as a generation, nor does it stand in the way.
    store.save(20, tensors_of(20), {})
    assert [path.name[:13] for path in checkpoint_folders(tmp_path)] == ["step-00000010", "step-00000020"]
    assert (tmp_path / "checkpoints" / SET_ASIDE).exists()
    again = Checkpoints(tmp_path, RUN).load()
    assert again is not None
    assert (again.step, again.skipped) == (20, ())


def test_a_consistent_forgery_of_one_tensor_is_found(tmp_path: Path) -> None:
    """Two tensors are swapped and the file's own hash is brought up to date: the tensors' hashes still tell."""
    save(tmp_path, 10)
    (folder,) = checkpoint_folders(tmp_path)
    tensors = safetensors.torch.load((folder / STATE).read_bytes())
    first, second = tensors["model.fc.weight"], tensors["model.fc.other"]
    data = b"".join(pieces_of(tensors | {"model.fc.weight": second, "model.fc.other": first}))
    manifest = json.loads((folder / MANIFEST).read_bytes()) | {"sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps(manifest).encode()
    (folder / STATE).write_bytes(data)
    (folder / MANIFEST).write_bytes(text)
    folder.rename(folder.with_name(f"step-00000010-{hashlib.sha256(text).hexdigest()[:16]}"))
    assert Checkpoints(tmp_path, RUN).load() is None


@pytest.mark.parametrize("number, read", [(1, True), (2, False)])
def test_checkpoints_of_format_1_are_read(tmp_path: Path, number: int, read: bool) -> None:
    """Runs that were stopped before an update go on after it."""
    save(tmp_path, 10)
    (folder,) = checkpoint_folders(tmp_path)
    manifest = json.loads((folder / MANIFEST).read_text())
    replace_manifest(folder, json.dumps(manifest | {"format": number}).encode())
    assert (Checkpoints(tmp_path, RUN).load() is not None) == read


def test_the_largest_state_of_a_run_is_allowed() -> None:
    """A network with the four tensors per weight that an optimizer keeps at most; not twice that."""
    network = torch.empty(2**28, device="meta")  # 1 GiB
    assert 5 * 2**30 <= size_limit([network]) < 7 * 2**30


def test_a_state_larger_than_allowed_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, 10)
    assert Checkpoints(tmp_path, RUN, max_bytes=100).load() is None
    assert "more than the 100 expected" in caplog.text


def test_when_nothing_verifies_the_run_starts_over_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 10, 20)
    for folder in checkpoint_folders(tmp_path):
        (folder / STATE).write_bytes(b"")
    assert Checkpoints(tmp_path, RUN).load() is None
    assert "the run starts over" in caplog.text


def test_an_error_of_the_writing_thread_is_raised_by_the_next_call_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    store = Checkpoints(tmp_path, RUN)
    store.save(1, tensors_of(1), {})
    store.wait()
    monkeypatch.setattr(atomic.os, "fsync", refuse)
    store.save(2, tensors_of(2), {})
    with pytest.raises(StorageError, match=r"No space left on device.*free some space") as caught:
        store.save(3, tensors_of(3), {})
    assert "\n" not in str(caught.value)
    store.wait()
    monkeypatch.undo()
    loaded = store.load()
    assert loaded is not None
    assert loaded.step == 1
    assert not (tmp_path / "checkpoints" / WRITING).exists()


KILLED_SAVE = """
import os, signal, sys, torch
from pathlib import Path
from experiments.store import atomic
from experiments.store.checkpoint import Checkpoints
store = Checkpoints(Path(sys.argv[1]), "a" * 64, background=False)
for step in (1, 2, 3):
    store.save(step, {"x": torch.full((100,), step)}, {"step": step})
calls, last = 0, int(sys.argv[2])
def counted(call):
    def wrapper(*arguments, **options):
        global calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return wrapper
for name in ("open", "write", "fsync", "rename", "unlink", "mkdir"):
    setattr(atomic.os, name, counted(getattr(atomic.os, name)))
store.save(4, {"x": torch.full((100,), 4)}, {"step": 4})
"""


@pytest.mark.parametrize("call", [1, 4, 7, 11, 14, 18, 20])
def test_a_kill_inside_a_save_leaves_a_whole_generation(tmp_path: Path, call: int, repo_root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_SAVE, str(tmp_path), str(call)], cwd=repo_root, capture_output=True, check=False
    )
    assert done.returncode == -9, done.stderr.decode()
    store = Checkpoints(tmp_path, RUN, background=False)
    loaded = store.load()
    assert loaded is not None
    assert loaded.skipped == ()
    assert loaded.step in (3, 4)
    assert loaded.tensors["x"].eq(loaded.step).all()
    store.save(5, {"x": torch.full((100,), 5)}, {})
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
