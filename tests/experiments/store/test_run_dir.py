"""Run directories: what start, append, cut_back, seal and fail leave behind, and what a reader accepts."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.config.identity import Identity, run_id
from experiments.config.settings import Batch, Budget, Data, Recipe, Settings
from experiments.errors import ConfigError, DataError, StorageError
from experiments.store.run_dir import RESULT_FIELDS, RunDir, public, read_lines, read_result
from roadmap import Design


def settings_for(runs_dir: Path, **changes: Any) -> Settings:
    """Settings of a run that is never trained here."""
    values: dict[str, Any] = {
        "design": Design(), "regime": "micro", "recipe": Recipe(), "budget": Budget(), "batch": Batch(16, 8),
        "data": Data(root="/somewhere/secret/digits", checksum="c" * 64), "seed": 3, "image_size": 32,
        "precision": "fp32", "step": "resnet50", "changes": (), "label": "resnet50", "runs_dir": str(runs_dir),
    }  # fmt: skip
    return Settings(**(values | changes))


def result_for(**changes: Any) -> dict[str, Any]:
    """A record that the schema accepts, with some fields replaced."""
    record: dict[str, Any] = {
        "run_id": run_id(settings_for(Path())), "config_id": "b" * 64, "step": "kernel_7",
        "changes": ["stage_ratio"], "study": None, "regime": "micro", "seed": 0, "design": {},
        "recipe": {"name": "enhanced"}, "budget": {"name": "demo"}, "data": {"name": "digits"}, "epochs": 5,
        "top1": 97.5, "top1_best": 97.5, "top1_ema": None, "loss": 0.1, "params": 1000, "gmacs": 0.1,
        "params_1k": 2000, "gmacs_224": 4.5, "images_per_second": 100.0, "wall_seconds": 12.5,
        "status": "finished", "versions": {}, "device": "cpu", "threads": 1, "git": {},
    }  # fmt: skip
    return record | changes


def start(run: RunDir, settings: Settings, **details: Any) -> None:
    """Start the run of these settings there."""
    run.start(settings, Identity.of(settings), **details)


def seal(run: RunDir, **changes: Any) -> None:
    """Seal a record with as many epochs of metrics as it says."""
    record = result_for(starts=[{"start": run.place.name}], **changes)
    run.cut_back([{"epoch": epoch} for epoch in range(1, record["epochs"] + 1)])
    run.seal(record)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A started run."""
    settings = settings_for(tmp_path / "runs")
    run = RunDir.locate(settings)
    start(run, settings, device="cpu")
    return run


def test_the_directory_is_named_by_what_it_holds(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    assert RunDir.locate(settings).path.name == f"resnet50-micro-s3-{run_id(settings)[:12]}"


def test_the_states_of_a_run(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    run = RunDir.locate(settings)
    assert run.state() == "missing"
    start(run, settings)
    assert run.state() == "half"
    run.fail(DataError("no images"))
    assert run.state() == "failed"
    run.fail(StorageError("no space"))  # the machine's failure
    assert run.state() == "half"
    run.error.write_text("{")
    assert run.state() == "failed"
    start(run, settings)
    assert run.state() == "half"
    seal(run, status="diverged", top1=None, top1_best=None, loss=None)
    assert run.state() == "diverged"
    run.clear()
    start(run, settings)
    seal(run)
    assert run.state() == "finished"
    run.result.write_bytes(run.result.read_bytes()[:-20])
    assert run.state() == "damaged"
    start(run, settings)
    assert run.state() == "half"
    seal(run)
    run.clear()
    assert run.state() == "half"


def test_nothing_that_an_earlier_training_produced_survives_a_rerun(run: RunDir) -> None:
    """A rerun that is killed must not leave the weights of the run before it."""
    kept = {path.name for path in run.path.iterdir()} - {"starts"}
    run.append_timing({"epoch": 0})
    run.weights.write_bytes(b"")
    (run.checkpoints / "step-00000001-0123456789abcdef").mkdir(parents=True)
    seal(run)
    run.fail(DataError("no images"))
    assert len(list(run.path.iterdir())) == len(kept) + 6
    run.clear()
    assert {path.name for path in run.path.iterdir()} == kept


def test_only_environment_json_knows_this_machine(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "canary-4711")
    run.append_timing({"epoch": 0, "seconds": 1.0})
    seal(run)
    try:
        (tmp_path / "folder" / "missing.png").read_bytes()
    except OSError as error:
        run.fail(RuntimeError(f"{error}; refused canary-4711"))
    for path in run.path.iterdir():
        text = path.read_text()
        assert "canary-4711" not in text
        if path != run.environment:
            assert str(tmp_path) not in text
            assert "/somewhere" not in text
            assert str(Path.cwd()) not in text
    (session,) = json.loads(run.environment.read_text())["sessions"]
    assert (session["data_root"], session["device"]) == ("/somewhere/secret/digits", "cpu")
    assert "missing.png" in json.loads(run.error.read_text())["message"]


def test_config_yaml_is_the_resolved_configuration(run: RunDir, tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "runs")
    config = yaml.safe_load(run.config.read_text())
    assert config.pop("run_id") == run_id(settings)
    assert len(config.pop("config_id")) == 64
    assert config == public(settings)
    assert config["design"]["depths"] == [3, 4, 6, 3]
    assert "root" not in config["data"]


def test_the_same_run_may_go_on_with_other_unhashed_settings(run: RunDir, tmp_path: Path) -> None:
    start(run, settings_for(tmp_path / "runs", workers=0, device="cpu"))
    assert len(json.loads(run.environment.read_text())["sessions"]) == 2


def test_a_directory_that_holds_another_run_is_refused(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds run .* move it away"):
        start(run, settings_for(tmp_path / "runs", seed=4))


@pytest.mark.parametrize("content", [b"", b"[1, 2", b"\xff\xfe", b"- a", b"!!python/object/apply:os.system ['true']"])
def test_an_unreadable_config_is_one_line(run: RunDir, tmp_path: Path, content: bytes) -> None:
    run.config.write_bytes(content)
    with pytest.raises(ConfigError, match="is unreadable") as caught:
        start(run, settings_for(tmp_path / "runs"))
    assert "\n" not in str(caught.value)


def test_metrics_are_cut_back_to_what_the_checkpoint_knows(run: RunDir) -> None:
    for epoch in range(3):
        run.append_metrics({"epoch": epoch, "loss": 1 / (epoch + 3), "top1_ema": None})
    kept = run.history()[:2]
    expected = b"".join(run.metrics.read_bytes().splitlines(keepends=True)[:2])
    for damaged in (run.metrics.read_bytes(), b'{"epoch": 0', b"", b"\xff\n"):
        run.metrics.write_bytes(damaged)
        run.cut_back(kept)
        assert run.metrics.read_bytes() == expected
    run.metrics.unlink()
    run.cut_back(kept)
    assert run.metrics.read_bytes() == expected
    run.cut_back([])
    assert run.history() == []


def test_a_cut_last_line_is_left_out_and_removed_on_resume(run: RunDir) -> None:
    run.append_timing({"epoch": 0, "seconds": 1.0})
    with open(run.timing, "ab") as file:
        file.write(b'{"epoch": 1, "sec')
    assert run.timings() == [{"epoch": 0, "seconds": 1.0}]
    run.cut_back([])
    run.append_timing({"epoch": 1, "seconds": 2.0})
    assert [record["epoch"] for record in run.timings()] == [0, 1]


@pytest.mark.parametrize("line", [b"nonsense", b"[1]", b'{"loss": NaN}', b'{"a": 1, "a": 2}', b"\xff", b"[" * 100_000])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 0}\n' + line + b"\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl: line 2 ") as caught:
        read_lines(path)
    assert "\n" not in str(caught.value)


def test_numbers_that_are_not_finite_are_refused_when_written(run: RunDir) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.append_metrics({"loss": math.nan})
    assert run.history() == []


def test_a_result_comes_back_as_it_was_sealed(run: RunDir) -> None:
    record = result_for(starts=[{"start": run.place.name}])
    seal(run)
    written = read_result(run.result)
    assert {key: value for key, value in written.items() if key not in ("seals", "digest")} == record
    left = ["config.yaml", "environment.json", "metrics.jsonl", "result.json"]
    assert sorted(path.name for path in run.path.iterdir()) == left


@pytest.mark.parametrize("name", list(RESULT_FIELDS))
def test_every_field_of_a_result_is_needed_and_typed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "result.json"
    record = result_for()
    del record[name]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f"lacks {name}"):
        read_result(path)
    path.write_text(json.dumps(result_for(**{name: True})))
    with pytest.raises(ValueError, match=f"{name} is a bool"):
        read_result(path)


BAD_RESULTS: dict[str, Any] = {
    "empty": b"",
    "not JSON": b"run_id: 3",
    "no object": b"[]",
    "not text": b"\xff\xfe{}",
    "deep": b'{"a":' * 50_000,
    "large": b" " * (1 << 21),
    "huge number": json.dumps(result_for(loss=1)).replace('"loss": 1', '"loss": 1e999').encode(),
    "NaN": json.dumps(result_for(loss=math.nan)).encode(),
    "many digits": json.dumps(result_for()).replace('"seed": 0', '"seed": ' + "9" * 5000).encode(),
    "twice": json.dumps(result_for()).replace('"seed": 0', '"seed": 0, "seed": 1').encode(),
    "top1 out of range": result_for(top1=101.0),
    "negative speed": result_for(images_per_second=-1),
    "no accuracy": result_for(top1=None),
    "unknown status": result_for(status="done"),
    "short id": result_for(run_id="abc"),
    "nameless recipe": result_for(recipe={}),
    "odd changes": result_for(changes=[1]),
}


@pytest.mark.parametrize("kind", list(BAD_RESULTS))
def test_a_foreign_or_damaged_result_is_one_line_that_names_the_file(tmp_path: Path, kind: str) -> None:
    path, content = tmp_path / "result.json", BAD_RESULTS[kind]
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(ValueError, match=r"result\.json: ") as caught:
        read_result(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe, folder, loop = tmp_path / "pipe", tmp_path / "folder", tmp_path / "loop"
    os.mkfifo(pipe)
    folder.mkdir()
    loop.symlink_to(loop)
    for path in (pipe, folder, loop, Path("/dev/zero"), tmp_path / "missing"):
        with pytest.raises(ValueError, match=str(path)):
            read_result(path)


def test_fields_of_a_later_version_are_read_but_not_written(run: RunDir) -> None:
    run.result.write_text(json.dumps(result_for(invented=1)))
    assert read_result(run.result)["invented"] == 1
    with pytest.raises(ValueError, match="invented is not in its schema"):
        run.seal(result_for(invented=1))
    with pytest.raises(ValueError, match=r"data\.root"):
        run.seal(result_for(data={"name": "digits", "root": "/data"}))


def test_a_failure_of_ours_is_short_and_a_bug_keeps_its_frames(run: RunDir) -> None:
    run.fail(StorageError("no space"))
    assert json.loads(run.error.read_text())["exit_code"] == 5
    assert json.loads(run.error.read_text())["traceback"] == []
    try:
        math.sqrt("x")  # type: ignore[arg-type]
    except TypeError as error:
        run.fail(error)
    record = json.loads(run.error.read_text())
    assert (record["type"], record["exit_code"]) == ("TypeError", 1)
    assert record["traceback"][0].startswith("test_run_dir.py:")


def test_temporary_files_of_a_killed_process_are_removed_by_the_next_start(run: RunDir, tmp_path: Path) -> None:
    (run.path / ".result.json.4711.tmp").write_text("half")
    start(run, settings_for(tmp_path / "runs"))
    assert not list(run.path.glob(".*.tmp"))


def test_records_import_neither_torch_nor_hydra(repo_root: Path) -> None:
    code = "import sys, experiments.store.run_dir; print({'torch', 'hydra', 'timm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
