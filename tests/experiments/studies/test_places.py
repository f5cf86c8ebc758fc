"""Studies and runs in folders of any name, and places that cannot be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.config.quoting import override
from experiments.studies import frozen
from tests.conftest import ROOT
from tests.storms.fleet import make_images

NAME = "o'brien, a=b [c] {d} $x ${seed} %s é (1)"
SMALL = (
    *("regime=micro", "device=cpu", "threads=1", "recipe.epochs=1", "batch.size=16", "batch.micro=16", "workers=0"),
    *("recipe.lr=1e-3", "recipe.warmup_epochs=0"),
)
SYNTHETIC = ("data=synthetic", "data.train_images=32", "data.eval_images=16")


def run_py(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "run.py"), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_study_runs_whatever_its_folders_are_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, images = tmp_path / f"runs {NAME}", tmp_path / f"images {NAME}"
    make_images(images, train=32, val=8, classes=2)
    data = ("data=imagefolder", "data.classes=2", override("data.root", images))
    done = run_py("-m", "+step=gelu,width", *SMALL, *data, override("runs_dir", runs))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {runs.name, images.name}
    assert len(list(runs.glob("*/result.json"))) == 2
    (study,) = (runs / "studies").iterdir()
    assert len(frozen.read_study(study).runs) == 2
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["status", str(runs)]) == 0
    assert "2 finished" in capsys.readouterr().out


PLACES = {
    "empty": ("runs_dir=", 2),
    "no text": (override("runs_dir", "a\udcff"), 2),
    "too long": (f"runs_dir={'x' * 300}", 5),
    "a file": ("runs_dir=file/below", 5),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_place_that_cannot_be_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word, code = PLACES[name]
    (tmp_path / "file").touch()
    command = [sys.executable, str(ROOT / "run.py"), "+step=gelu", *SMALL, *SYNTHETIC, word]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("command", [["status", ""], ["status", "", "--watch", "1"]])
def test_an_empty_argument_is_no_folder(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2 and "empty path" in capsys.readouterr().err
