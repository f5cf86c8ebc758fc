"""Unreadable images in whole runs: counted once over all starts and ranks; what passes ends a run half done."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.data import decode, patience
from experiments.data.damage import EVALUATION, TRAIN, Damage
from experiments.errors import InterruptedRun, StorageError
from experiments.runtime.distributed import Ranks
from experiments.store.run_dir import RunDir
from experiments.training import run as engine
from tests.experiments.data.sources import make_folders
from tests.experiments.training.runs import command, fingerprint, launch, only_run, result, settings_of, stopping

pytestmark = pytest.mark.numeric

EVERY = 4  # n-th training file is damaged: 12 of 48, of which one epoch of two batches of 16 meets some


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, ...]:
    """The overrides of a short run on folders with damaged images."""
    root = tmp_path / "photos"
    make_folders(root, train=48, val=9)
    for path in sorted((root / "train").rglob("*.jpg"))[::EVERY]:
        path.write_bytes(path.read_bytes()[:100])
    sorted((root / "val").rglob("*.jpg"))[4].write_bytes(b"")
    sizes = ("data.train_images=null", "data.eval_images=null", "data.classes=3", "image_size=32")
    return ("data=imagefolder", f"data.root={root}", *sizes, "data.damaged_share=0.5", "recipe.epochs=1")


@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_run_counts_what_an_undisturbed_one_counts(
    tmp_path: Path, folders: tuple[str, ...], stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.run(settings_of(tmp_path / "whole", *folders))
    whole = result(only_run(tmp_path / "whole"))
    assert whole["damaged_images"] > 3
    with stopping(monkeypatch, stop), pytest.raises(InterruptedRun):
        engine.run(settings_of(tmp_path / "cut", *folders))
    assert engine.run(settings_of(tmp_path / "cut", *folders))["damaged_images"] == whole["damaged_images"]
    assert fingerprint(only_run(tmp_path / "cut")) == fingerprint(only_run(tmp_path / "whole"))


def test_damage_of_all_ranks_is_counted_once(tmp_path: Path, folders: tuple[str, ...]) -> None:
    alone = engine.run(settings_of(tmp_path / "one", *folders))
    done = launch(command(tmp_path / "two", *folders, ranks=2))
    assert done.returncode == 0, done.stderr[-2000:]
    assert result(only_run(tmp_path / "two"))["damaged_images"] == alone["damaged_images"] > 3


def test_what_passes_ends_the_run_half_done_and_the_same_command_finishes_it(
    tmp_path: Path, folders: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.run(settings_of(tmp_path / "whole", *folders))
    real, opened = decode._open, 0

    def failing(path: Path) -> Any:
        nonlocal opened
        opened += 1
        if opened > 20:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(path)

    settings = settings_of(tmp_path / "cut", *folders)
    with monkeypatch.context() as patch:
        patch.setattr(patience, "WAITS", (0.0,))
        patch.setattr(decode, "_open", failing)
        with pytest.raises(StorageError, match="Stale file handle") as caught:
            engine.run(settings)
    run = only_run(tmp_path / "cut")
    assert "\n" not in str(caught.value) and json.loads((run / "error.json").read_text())["machine"] is True
    assert RunDir(run).state() == "half"
    engine.run(settings)
    assert fingerprint(run) == fingerprint(only_run(tmp_path / "whole"))


def test_a_record_of_other_images_is_refused() -> None:
    for record in ({TRAIN: [5]}, {TRAIN: [-1]}, {EVALUATION: [True]}, {TRAIN: ["0"]}):
        with pytest.raises(ValueError, match="unreadable images"):
            Damage(5, 2).restore(record)


def test_damage_is_restored_and_shared() -> None:
    class Two(Ranks):
        """The second of two ranks; the first has met training image 1."""

        def any(self, flag: bool) -> bool:
            return True

        def sum(self, tensors: list[torch.Tensor]) -> None:
            tensors[0][1] += 1

    damage = Damage(5, 2)
    assert damage.record() == {} and damage.add(TRAIN, 1) and not damage.add(TRAIN, 1) and damage.add(EVALUATION, 0)
    other = Damage(5, 2)
    other.add(TRAIN, 3)
    other.restore(damage.record())
    assert other.record() == {TRAIN: [1], EVALUATION: [0]} and other.count == 2
    other.add(TRAIN, 4)
    other.share(Two())
    assert other.record() == {TRAIN: [1, 4], EVALUATION: [0]}
