"""Mirrors of the record."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.config.settings import Logger
from experiments.data import with_checksum
from experiments.errors import ConfigError, InterruptedRun, MissingExtraError
from experiments.store.run_dir import RunDir
from experiments.training import run as engine
from tests.experiments.training.runs import command, launch, lines, only_run, settings_of, stopping
from tests.experiments.training.wandb_files import wandb_artifacts, wandb_history


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


def test_several_mirrors_at_once_and_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """wandb cannot be opened in one run and breaks in another; TensorBoard has all lines in both."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from experiments.training import loggers

    class Failing:
        def __init__(self, *arguments: Any) -> None:
            self.lines = 0
            if closed:
                raise RuntimeError("the service is away")

        def log(self, line: dict[str, Any]) -> None:
            self.lines += 1
            if self.lines == 2:
                raise OSError("no route to host")

        def close(self) -> None:
            raise AssertionError("a mirror that stopped is left alone")

    monkeypatch.setattr(loggers, "WandbMirror", Failing)
    for closed, words in ((True, "wandb mirror could not be opened: the service is away"), (False, "no route to host")):
        engine.run(settings_of(tmp_path / str(closed), "logger=[wandb,tensorboard]"))
        run = only_run(tmp_path / str(closed))
        assert words in caplog.text
        events = EventAccumulator(str(run / "tensorboard")).Reload()
        assert [event.step for event in events.Scalars("top1")] == [line["step"] for line in lines(run)]


def scalars(run: Path, key: str) -> list[int]:
    """The steps at which TensorBoard has a value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return [event.step for event in EventAccumulator(str(run / "tensorboard")).Reload().Scalars(key)]


@pytest.mark.parametrize("when", ["before the run", "in mid-run", "in mid-run, and stays"])
def test_a_file_where_tensorboards_folder_should_be(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    """One warning, no traceback; once the file is gone, a later epoch catches up, or else the next start does."""
    pytest.importorskip("tensorboard")
    from experiments.training import loggers

    monkeypatch.setattr(loggers, "RETRY_SECONDS", 0.0)
    settings = settings_of(tmp_path, "logger=tensorboard", "recipe.epochs=5")
    place = RunDir.locate(settings.replace(data=with_checksum(settings.data))).path / "tensorboard"
    if when == "before the run":
        place.parent.mkdir(parents=True)
        place.write_text("")
    true_epoch, epochs = engine.run_epoch, itertools.count(1)

    def epoch(job: Any) -> Any:
        line, number = true_epoch(job), next(epochs)
        if number == 2 and when != "before the run":
            shutil.rmtree(place)
            place.write_text("")
        if number == 4 and not when.endswith("stays"):
            place.unlink()
        return line

    with monkeypatch.context() as patch:
        patch.setattr(engine, "run_epoch", epoch)
        if when.endswith("stays"):
            with stopping(monkeypatch, 15), pytest.raises(InterruptedRun):
                engine.run(settings)
            place.unlink()
        engine.run(settings)
    assert len([record for record in caplog.records if "mirror" in record.message]) == 1, caplog.text
    assert "a later epoch or start catches up" in caplog.text
    assert "Traceback" not in capfd.readouterr().err
    assert scalars(place.parent, "top1") == [line["step"] for line in lines(place.parent)]


def test_wandb_online_without_a_server_is_mirrored_offline(tmp_path: Path) -> None:
    """In a bounded time and a process of its own; the history is complete, and the warning names how to upload it."""
    pytest.importorskip("wandb")
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": 40 * "0"}
    online = ("logger=wandb", "logger.mode=online", "logger.init_timeout=2")
    began = time.monotonic()
    done = launch(command(tmp_path, *online, "recipe.ema=0.9"), **nowhere)
    assert done.returncode == 0, done.stderr[-2000:]
    assert time.monotonic() - began < 60  # of wandb's own 90
    assert "Traceback" not in done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "logger.mode=online: " in line]
    assert "mirrored offline: `wandb sync" in said
    run = only_run(tmp_path)
    assert wandb_history(run) == lines(run)


def test_a_file_where_trackios_folder_should_be(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    (tmp_path / "trackio").write_text("")
    done = launch(command(tmp_path, "logger=trackio"), TRACKIO_DIR="")
    assert done.returncode == 0, done.stderr[-2000:]
    said = [line for line in done.stderr.splitlines() if "trackio" in line]
    assert len(said) == 1 and "the trackio mirror could not be opened" in said[0]


def test_a_missing_package_closes_the_mirrors_that_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.training import loggers

    closed: list[str] = []

    class Open:
        def __init__(self, *arguments: Any) -> None:
            pass

        def close(self) -> None:
            closed.append("wandb")

    monkeypatch.setattr(loggers, "WandbMirror", Open)
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(MissingExtraError, match="pip install trackio"):
        engine.run(settings_of(tmp_path, "logger=[wandb,trackio]"))
    assert closed == ["wandb"]


@pytest.mark.parametrize(
    ("typed", "chosen"),
    [
        (("logger=local",), ()),
        (("logger=wandb",), ("wandb",)),
        (("logger=[wandb,tensorboard]",), ("wandb", "tensorboard")),
        (("logger=[tensorboard,wandb]",), ("wandb", "tensorboard")),
        (("logger=[wandb,local]",), ("wandb",)),
        (("logger=[wandb,tensorboard]", "logger.mirrors={wandb:false}"), ("tensorboard",)),
    ],
)
def test_which_mirrors_are_open(tmp_path: Path, typed: tuple[str, ...], chosen: tuple[str, ...]) -> None:
    assert settings_of(tmp_path, *typed).logger.chosen == chosen


def test_a_logger_that_is_known_by_its_name_alone() -> None:
    """Settings of studies that were frozen before there could be several, and files of one's own."""
    assert Logger(name="wandb").chosen == ("wandb",)
    assert Logger(name="local").chosen == ()


@pytest.mark.parametrize(
    ("mirrors", "words"),
    [({"mail": True}, "logger.mirrors=mail is not one of: local, wandb"), ({"wandb": 1}, "true or")],
)
def test_mirrors_that_do_not_exist_are_refused(mirrors: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Logger(mirrors=mirrors)


def test_wandb_gets_tags_and_the_final_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline: the record names the weights where they lie, so that a sync can upload them."""
    wandb = pytest.importorskip("wandb")
    init, asked = wandb.init, {}
    monkeypatch.setattr(wandb, "init", lambda **options: (asked.update(options), init(**options))[1])
    engine.run(settings_of(tmp_path, "logger=wandb", "logger.artifacts=true", step="kernel_7"))
    run = only_run(tmp_path)
    assert "kernel_7" in asked["tags"] and "gelu" not in asked["tags"]
    (artifact,) = wandb_artifacts(run)
    assert artifact == {"last.safetensors": run / "last.safetensors", "result.json": run / "result.json"}


def test_trackio_holds_the_metrics_of_the_last_session(tmp_path: Path) -> None:
    """In a process of its own, since trackio takes the place of its data base when it is imported."""
    pytest.importorskip("trackio")
    arguments = ("logger=[trackio,tensorboard]", "logger.artifacts=true", "recipe.epochs=3")
    elsewhere = {"TRACKIO_SPACE_ID": "somebody/else", "TRACKIO_DIR": ""}
    for _ in range(2):  # the second session starts it over
        done = launch(command(tmp_path, *arguments, "rerun=true"), **elsewhere)
        assert done.returncode == 0, done.stderr[-2000:]
        assert not [line for line in done.stdout.splitlines() if line.startswith("*")]  # trackio's hints
    (run,) = (path.parent for path in tmp_path.glob("*/result.json"))
    code = """
import json, trackio
from trackio.sqlite_storage import SQLiteStorage
(found,) = trackio.Api().runs("convnext-roadmap")
history = SQLiteStorage.get_logs("convnext-roadmap", found.name)
print(json.dumps([found.name, found.config["run_id"], found.config["changes"], history]))
"""
    environ = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    name, run_id, changes, history = json.loads(done.stdout.splitlines()[-1])
    assert (name, run_id) == (run.name, json.loads((run / "result.json").read_text())["run_id"])
    assert "kernel_7" in changes
    for row, line in zip(history, lines(run), strict=True):
        assert row["step"] == line["step"]
        assert {key: row[key] for key in ("train_loss", "top1", "loss")} == {
            key: line[key] for key in ("train_loss", "top1", "loss")
        }
    stored = [path for path in (tmp_path / "trackio").rglob("*") if path.is_file()]
    weights = (run / "last.safetensors").read_bytes()
    assert any(path.stat().st_size == len(weights) and path.read_bytes() == weights for path in stored)
