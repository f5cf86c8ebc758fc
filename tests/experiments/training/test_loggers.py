"""Mirrors of the record, and `python -m experiments evaluate`."""

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.__main__ import main
from experiments.config.settings import Settings
from experiments.errors import InterruptedRun, MissingExtraError
from experiments.store.checkpoint import load_weights, save_weights
from experiments.store.run_dir import RunDir
from experiments.training import run as engine
from tests.experiments.training.runs import lines, only_run, settings_of, stopping
from tests.experiments.training.wandb_files import wandb_history


def test_wandb_offline_history_equals_the_metrics_after_interruptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    settings = settings_of(tmp_path, "logger=wandb", "recipe.epochs=3", "recipe.ema=0.9")
    for after in (5, 4):
        with stopping(monkeypatch, after), pytest.raises(InterruptedRun):
            engine.run(settings)
    engine.run(settings)
    run = only_run(tmp_path)
    assert len(lines(run)) == 3
    assert wandb_history(run) == lines(run)


def test_tensorboard_holds_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = settings_of(tmp_path, "logger=tensorboard")
    with stopping(monkeypatch, 5), pytest.raises(InterruptedRun):
        engine.run(settings)
    engine.run(settings)
    run = only_run(tmp_path)
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    for key in ("train_loss", "loss", "top1"):
        assert [(event.step, event.value) for event in events.Scalars(key)] == [
            (line["step"], pytest.approx(line[key], rel=1e-6)) for line in lines(run)
        ]


def test_a_missing_or_failing_mirror_is_one_line_or_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from experiments.training import loggers

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "wandb", None)
        with pytest.raises(MissingExtraError, match="pip install wandb"):
            engine.run(settings_of(tmp_path / "missing", "logger=wandb"))

    class Failing:
        def __init__(self, *arguments: Any) -> None:
            pass

        def log(self, line: dict[str, Any]) -> None:
            raise OSError("no route to host")

    monkeypatch.setattr(loggers, "WandbMirror", Failing)
    engine.run(settings_of(tmp_path / "failing", "logger=wandb"))
    assert "no route to host" in caplog.text
    assert RunDir(only_run(tmp_path / "failing")).state() == "finished"


# ---- `python -m experiments evaluate`


def _evaluate(*arguments: str) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["evaluate", *arguments])
    return code, out.getvalue() + err.getvalue()


def test_evaluate_repeats_a_runs_scores(tmp_path: Path) -> None:
    settings: Settings = settings_of(tmp_path)
    record = engine.run(settings)
    code, said = _evaluate(str(only_run(tmp_path)), "--device=cpu", "--workers=0")
    assert code == 0
    assert said.split() == ["top1", f"{record['top1']:.2f}", "loss", f"{record['loss']:.4f}", "24", "images"]


def test_evaluate_takes_weights_of_torchvision_and_refuses_others(tmp_path: Path) -> None:
    from torchvision.models.resnet import Bottleneck, ResNet

    torch.manual_seed(0)
    theirs = ResNet(Bottleneck, [3, 4, 6, 3], num_classes=10).eval()
    save_weights(tmp_path / "theirs.safetensors", theirs.state_dict())
    options = (str(tmp_path / "theirs.safetensors"), "--data=digits", "--device=cpu", "--workers=0")
    code, said = _evaluate(*options, "--step=resnet50")
    assert (code, said.split()[0], said.split()[-2:]) == (0, "top1", ["360", "images"])
    for wrong, words in {("--step=separate_downsampling",): "missing", (): "--step is needed"}.items():
        code, said = _evaluate(*options, *wrong)
        assert code == 2
        assert words in said
        assert said.count("\n") == 1
    assert load_weights(tmp_path / "theirs.safetensors").keys() == theirs.state_dict().keys()


def test_evaluate_refuses_an_unfinished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stopping(monkeypatch, 2), pytest.raises(InterruptedRun):
        engine.run(settings_of(tmp_path))
    code, said = _evaluate(str(only_run(tmp_path)), "--device=cpu")
    assert (code, said.count("\n")) == (2, 1)
    assert "not a finished run" in said
