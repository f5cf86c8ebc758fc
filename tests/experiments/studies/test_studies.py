"""Studies: expansion, the frozen plan, what is launched, what a launcher leaves behind; trained for real in micro."""

import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
import torch
import yaml
from hydra import initialize_config_dir
from omegaconf import OmegaConf

import run as program
from experiments.__main__ import main as experiments_main
from experiments.commands import estimate
from experiments.commands.estimate import LAUNCH, Speed, recorded
from experiments.commands.status import rows
from experiments.config import schema
from experiments.config.identity import Identity, run_id
from experiments.config.settings import Settings
from experiments.errors import ConfigError, DataError, StorageError
from experiments.store.run_dir import RunDir
from experiments.studies import frozen, launch
from experiments.training import job
from experiments.training import run as engine
from roadmap.files import CONF
from roadmap.steps import END, STEPS
from tests.analysis import factory
from tests.conftest import ROOT

RECORDS = ROOT / "results" / "fashion_mnist"
STUDIES = sorted(path.stem for path in (CONF / "study").glob("*.yaml"))
# The smallest runs that are runs: a second each.
SMALL = (
    *(
        "regime=micro",
        "device=cpu",
        "threads=1",
        "recipe.epochs=1",
        "batch.size=32",
        "batch.micro=32",
        "recipe.lr=1e-3",
    ),
    *("data.train_images=64", "data.eval_images=32"),
)
Outcome = tuple[int, str]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Outcome]:
    """`python run.py ARGUMENTS` in this process and in an empty folder: (exit code, stderr)."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        code = 0
        try:
            program.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, capfd.readouterr().err

    return run


def settings_for(*overrides: str) -> Settings:
    return launch.settings_of([*SMALL, *overrides])


def plan_of(runs_dir: Path) -> frozen.FrozenStudy:
    (path,) = (runs_dir / "studies").glob("*.json")
    plan = frozen.read_study(path)
    return frozen.FrozenStudy(plan.name, path, tuple(run.replace(runs_dir=str(runs_dir)) for run in plan.runs))


# --- expansion


def expand(*arguments: str, sweep: dict[str, Any] | None = None, **study: Any) -> list[list[str]]:
    schema.register()
    return launch.expand(arguments, {"list": None, "params": {}, "sweep": sweep or {}, **study})


def test_expansion_order_and_typed_values() -> None:
    sweep = {"seed": "0,1", "+step": "gelu,width"}
    assert expand("regime=micro", sweep=sweep) == [
        [f"seed={seed}", f"+step={step}", "regime=micro"] for seed in (0, 1) for step in ("gelu", "width")
    ]
    assert expand("seed=7", sweep=sweep) == [["seed=7", f"+step={step}"] for step in ("gelu", "width")]
    assert expand("drop=[a],[b,c]") == [["drop=[a]"], ["drop=[b,c]"]]


def test_generated_lists_lie_inside_the_sweep() -> None:
    jobs = expand("seed=0,1", list="leave_one_out")
    assert len(jobs) == 2 * (1 + len(END.changes))
    assert [job[0] for job in jobs] == ["seed=0"] * (len(jobs) // 2) + ["seed=1"] * (len(jobs) // 2)
    assert jobs[1] == ["seed=0", "+step=separate_downsampling", "drop=[stage_ratio]"]


def jobs_of(name: str, *typed: str) -> list[list[str]]:
    """The jobs of a study file under a command line."""
    schema.register()
    arguments = [f"+study={name}", *typed]
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        config = hydra.compose("config", overrides=arguments, return_hydra_config=True)
    study: Any = OmegaConf.to_container(config.study, resolve=True)
    return launch.expand(arguments, study)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_file_composes_and_expands(name: str) -> None:
    content = yaml.safe_load((CONF / "study" / f"{name}.yaml").read_text())
    assert content["study"]["name"] == name
    assert "hydra" not in content  # Hydra 1.4 refuses its mode and its sweeper's parameters in a group
    assert next(iter(content["study"]["sweep"])) == "seed"  # a part of a study is whole for its first seeds
    jobs = jobs_of(name, "regime=micro", "seed=0")
    runs = {run_id(launch.settings_from(schema.compose([*job, "device=cpu"]))) for job in jobs}
    assert len(runs) == len(jobs) >= 2


def test_the_ladder_study_is_the_ladder() -> None:
    asked = [(job[0], job[1]) for job in jobs_of("ladder")]
    assert asked == [(f"seed={seed}", f"+step={step.name}") for seed in range(3) for step in STEPS]


@pytest.mark.parametrize("path", sorted((RECORDS / "studies").glob("*.json")), ids=lambda path: path.stem)
def test_recorded_studies_are_found_by_the_commands_that_froze_them(path: Path) -> None:
    """Their file is named after what a command asks for: one that asks otherwise would start a study of its own."""
    name, typed = path.stem.rpartition("-")[0], json.loads(path.read_text())["jobs"][0]
    common = [item for item in typed if frozen.key_of(item) not in ("seed", "step", "study", "add", "drop")]
    assert frozen.study_path(name, jobs_of(name, *common), RECORDS) == path


OLD = """\
# @package _global_
study: {name: old}
hydra:
  mode: MULTIRUN
  sweeper:
    params: {seed: "0,1"}
"""
(OWN,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "studies.md").read_text(), re.M | re.S)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with two studies, one of them as studies were written for Hydra's sweeper."""
    (tmp_path / "mine" / "study").mkdir(parents=True)
    for name, text in (("old", OLD), ("smoothing", OWN)):
        (tmp_path / "mine" / "study" / f"{name}.yaml").write_text(text)
    monkeypatch.setenv("ROADMAP_PATH", str(tmp_path / "mine"))
    return tmp_path / "mine"


def test_the_documented_study_of_ones_own_needs_no_multirun(call: Callable[..., Outcome], mine: Path) -> None:
    code, err = call("+study=smoothing", "seed=0", *SMALL)
    assert code == 0
    assert "3 of 3 runs finished" in err
    assert "start them with +study=NAME or -m" in call("--run", "+study=smoothing", *SMALL)[1]


def test_a_study_as_hydras_sweeper_had_it_is_refused(call: Callable[..., Outcome], mine: Path) -> None:
    """Hydra 1.4 refuses it by itself: a group cannot set hydra.mode."""
    code, err = call("+study=old", *SMALL)
    assert (code, err.count("\n")) == (2, 1)
    assert "study.sweep" in err or "hydra.mode" in err


# --- the frozen plan


def test_a_frozen_study_is_read_back_as_it_was(tmp_path: Path) -> None:
    jobs = [["+step=gelu"], ["+step=kernel_7"], ["+step=gelu", "seed=0"]]  # the last asks for the first again
    path = frozen.study_path("mine", jobs, tmp_path)
    study = frozen.freeze("mine", path, jobs, lambda job: settings_for(*job))
    assert [run.label for run in study.runs] == ["gelu", "kernel_7"]
    again = frozen.read_study(path)
    assert again.runs == study.runs
    assert again.runs[0].study == path.stem == again.full_name
    assert again.runs[0].data.checksum
    assert "/" not in json.dumps(json.loads(path.read_text())["runs"])  # no path of this machine


def test_machine_settings_are_not_frozen(tmp_path: Path) -> None:
    jobs = [["+step=gelu"]]
    path = frozen.study_path("mine", jobs, tmp_path)
    assert path == frozen.study_path("mine", [["+step=gelu", "device=cpu", "threads=3", "launcher=ray"]], tmp_path)
    assert path != frozen.study_path("mine", [["+step=gelu", "seed=1"]], tmp_path)
    study = frozen.freeze("mine", path, jobs, lambda job: settings_for(*job))
    here = settings_for("threads=2", "workers=0", "data.root=elsewhere", "logger=wandb")
    (moved,) = frozen.read_study(path, here).runs
    assert (moved.threads, moved.workers, moved.data.root, moved.logger.name) == (2, 0, "elsewhere", "wandb")
    assert run_id(moved) == run_id(study.runs[0])


@pytest.mark.parametrize("damage", ["{", "[]", '{"name": "x"}', '{"name": "x", "results_version": 0, "runs": []}'])
def test_a_damaged_plan_is_one_line(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "mine-00000000.json"
    path.write_text(damage)
    with pytest.raises(StorageError, match=r"mine-00000000\.json") as caught:
        frozen.read_study(path)
    assert "\n" not in str(caught.value)


def test_an_edited_plan_is_noticed(tmp_path: Path) -> None:
    path = frozen.study_path("mine", [["+step=gelu"]], tmp_path)
    frozen.freeze("mine", path, [["+step=gelu"]], lambda job: settings_for(*job))
    content = json.loads(path.read_text())
    content["runs"][0]["settings"]["seed"] = 5
    path.write_text(json.dumps(content))
    with pytest.raises(StorageError, match="replan=true"):
        frozen.read_study(path)


def test_what_was_planned_is_what_runs(
    call: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Configs that compose otherwise after planning change nothing until replan=true."""
    command = ("-m", "+step=gelu,kernel_7", *SMALL)
    assert experiments_plan(tmp_path, monkeypatch, *command[1:]) == 0
    trained: list[Settings] = []
    monkeypatch.setattr(engine, "run", trained.append)
    true_settings = launch.settings_of
    monkeypatch.setattr(launch, "settings_of", lambda job: true_settings([*job, "recipe.label_smoothing=0.3"]))
    assert call(*command)[0] == 9  # nothing was really trained
    assert [run.recipe.label_smoothing for run in trained] == [0.1, 0.1]
    assert call(*command, "replan=true")[0] == 9
    assert [run.recipe.label_smoothing for run in trained[2:]] == [0.3, 0.3]


def experiments_plan(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    monkeypatch.chdir(folder)
    return experiments_main(["plan", "--speed", "none", *overrides])


def test_changed_data_is_noticed(call: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("-m", "+step=gelu", "seed=0,1", *SMALL)
    assert experiments_plan(tmp_path, monkeypatch, *command[1:]) == 0
    monkeypatch.setattr("experiments.data.checksum_of", lambda data: "0" * 64)
    code, err = call(*command)
    assert code == 9
    assert "data=digits has changed since" in err


def test_the_planned_precision_is_kept_and_said_once(
    call: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("-m", "+step=gelu", "seed=0,1", "precision=bf16", *SMALL)
    launch._say_precision.cache_clear()
    trained: list[Settings] = []
    monkeypatch.setattr(engine, "run", trained.append)
    _, err = call(*command)
    assert [run.precision for run in trained] == ["bf16", "bf16"]
    assert err.count("precision=bf16, as it was planned; precision=auto would be fp32 here\n") == 1


def test_planning_for_other_machines_without_a_gpu_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    slurm = ("launcher=slurm", "+step=gelu", *(item for item in SMALL if item != "device=cpu"))
    assert experiments_plan(tmp_path, monkeypatch, *slurm) == 0
    assert "for GPUs elsewhere use precision=bf16" in capsys.readouterr().err
    assert experiments_plan(tmp_path, monkeypatch, *slurm, "precision=bf16") == 0
    assert experiments_plan(tmp_path, monkeypatch, *slurm[1:], "seed=1") == 0
    assert "elsewhere" not in capsys.readouterr().err


def test_what_is_sealed_is_not_launched_again(tmp_path: Path) -> None:
    """A diverged run is a result as well: the same settings would diverge again."""
    jobs = [[f"+step={step}", f"runs_dir={tmp_path}"] for step in ("gelu", "width", "kernel_7")]
    plan = frozen.freeze("mine", tmp_path / "mine.json", jobs, lambda job: settings_for(*job))
    for run, status in zip(plan.runs, ("finished", "diverged"), strict=False):
        seal(run, status=status)
    assert frozen.to_launch(plan, rerun=False, retry_failed=True) == [plan.runs[2]]
    assert frozen.to_launch(plan, rerun=True, retry_failed=False) == list(plan.runs)


def seal(run: Settings, **fields: Any) -> None:
    """Leave the record of a run that was never trained."""
    place = RunDir.locate(run)
    place.path.mkdir()
    place.result.write_text(json.dumps(factory.record("gelu", run_id=run_id(run), **fields)))


# --- running


def test_a_study_end_to_end(call: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("+study=macro", "seed=0", *SMALL)
    with monkeypatch.context() as patch:  # the second of three runs fails
        patch.setattr(
            job,
            "build_state",
            lambda settings, *rest, true=job.build_state: _broken(settings) or true(settings, *rest),
        )
        code, err = call(*command)
        assert code == 9
        assert "2 of 3 runs finished, 1 failed (stage_ratio s0)" in err
        assert "retry_failed=true" in err
    plan = plan_of(tmp_path / "runs")
    assert frozen.states(plan) == ["finished", "failed", "finished"]
    records = [RunDir.locate(run).result for run in plan.runs]
    assert json.loads(records[0].read_text())["study"] == plan.full_name
    stamps = {path: path.stat().st_mtime_ns for path in records if path.exists()}
    # the same command trains nothing
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_work", None)
        assert call(*command)[0] == 9
    # with retry_failed=true only the failed one
    code, err = call(*command, "retry_failed=true")
    assert (code, frozen.states(plan)) == (0, ["finished"] * 3), err
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    assert not list((tmp_path / "runs").glob("*.yaml"))  # Hydra wrote nothing of its own


@pytest.mark.parametrize(
    "error, state, then", [(StorageError("no space"), "half", "finished"), (DataError("no images"), "failed", "failed")]
)
def test_a_study_launches_again_what_the_machine_has_failed(
    error: Exception, state: str, then: str,
    call: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    command = ("-m", "+step=gelu,width", *SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "open_data", _raising(error))
        code, err = call(*command)
        assert code == 9
        assert f"0 of 2 runs finished, 2 {state} (gelu s0, width s0); the same command continues" in err
    plan = plan_of(tmp_path / "runs")
    assert frozen.states(plan) == [state] * 2
    assert {row["note"].split(";")[0] for row in rows(tmp_path / "runs")} == {f"{type(error).__name__}: {error}"}
    call(*command)
    assert frozen.states(plan) == [then] * 2


def _raising(error: Exception) -> Callable[..., Any]:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    return fail


def _broken(settings: Settings) -> None:
    if settings.label == "stage_ratio":
        raise ConfigError("broken on purpose")


def test_a_run_is_shared_by_studies(
    call: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, err = call("-m", "+step=enhanced_recipe,patchify_stem", *SMALL)
    assert code == 0
    assert re.search(r"took [\d.]+ s; [\d.]+ s per run beside training and evaluating\n", err)
    monkeypatch.setattr(engine, "_work", None)
    code, err = call("-m", "+step=patchify_stem,enhanced_recipe", "seed=0", *SMALL)
    assert code == 0
    assert "2 runs, 0 to do" in err


def test_what_runs_take_beside_training(tmp_path: Path) -> None:
    """From one record to the next, less what was training and evaluating; older records do not count."""
    runs = [settings_for(f"seed={seed}", f"runs_dir={tmp_path}") for seed in range(5)]
    sealed = [50.0, 100.0, 110.0, None, 125.0]  # the first was there before, the fourth has failed
    for settings, when in zip(runs, sealed, strict=True):
        place = RunDir.locate(settings)
        place.path.mkdir()
        place.append_timing({"epoch": 1, "train_seconds": 5.0, "eval_seconds": 1.0})
        place.append_timing({"epoch": 2, "train_seconds": 2.0, "eval_seconds": 1.5})
        if when is not None:
            place.result.write_text("{}")
            os.utime(place.result, (when, when))
    assert frozen.seconds_beside(runs, since=90.0) == pytest.approx([0.5, 5.5])
    assert frozen.seconds_beside(runs[:2], since=90.0) == []


def test_one_run_of_a_plan_by_itself(
    call: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert experiments_plan(tmp_path, monkeypatch, "+step=gelu,width", *SMALL) == 0
    plan = plan_of(tmp_path / "runs")
    code, err = call(f"study.file={plan.path}", f"study.run={run_id(plan.runs[1])[:12]}", "device=cpu")
    assert (code, frozen.states(plan)) == (0, ["missing", "finished"]), err
    code, err = call(f"study.file={plan.path}", "study.run=ffff", "device=cpu")
    assert code == 2
    assert "names 0 of the 2 runs" in err
    assert call("study.run=ffff", "device=cpu")[0] == 2


def test_bad_settings_stop_a_study_before_its_first_run(
    call: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "run", None)
    code, err = call("-m", "+step=gelu,kernel_7", "drop=[depthwise],[layer_norm]", *SMALL)
    assert code == 2
    assert "drop=layer_norm" in err
    assert err.count("\n") == 1


def test_torchrun_with_a_multirun_is_refused(call: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    code, err = call("+study=ladder", *SMALL)
    assert code == 2
    assert "torchrun" in err
    assert "python run.py +study=ladder regime=micro" in err


@pytest.mark.parametrize("launcher, group", [("ray", "ray"), ("slurm", "submitit_slurm")])
def test_a_launcher_that_is_not_installed(
    launcher: str, group: str, call: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # installed launchers register on the first look
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], f"{group}.yaml", raising=False)
    code, err = call("-m", f"launcher={launcher}", "+step=gelu,width", *SMALL)
    assert code == 7
    assert f".[{launcher}]" in err


# --- plan and status


def test_a_checkpoint_that_takes_longer_than_an_epoch_sets_the_pace() -> None:
    speed = Speed(start=1, train=0.01, evaluate=0.1, save=0.5, written=2.0, train_images=100, eval_images=10)
    assert speed.seconds(4) == pytest.approx(LAUNCH + 1 + 4 * (1 + 1 + 0.5))
    assert dataclasses.replace(speed, written=7.0).seconds(4) == pytest.approx(LAUNCH + 1 + 4 * 7)
    assert dataclasses.replace(speed, saves=3).seconds(4) == pytest.approx(LAUNCH + 1 + 4 * 6)


def test_plan_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--format", "json", "--seconds", "0.05", "--price", "2", "--budget-hours", "0.000001"]
    assert experiments_main(["plan", *options, "+step=gelu,width", *SMALL]) == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)
    assert [(row["label"], row["state"], row["seed"]) for row in rows] == [
        ("gelu", "missing", 0),
        ("width", "missing", 0),
    ]
    for row in rows:
        assert row["hours"] > 0
        assert row["params"] > 100_000
        assert row["gpu_hours"] == 0
        assert row["cost"] == pytest.approx(2 * row["hours"], abs=0.01)
        assert row["disk_gb"] > 0
    assert "fit the first 0 of 2 runs" in captured.err


def test_plan_uses_recorded_speeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        engine.run(settings_for("+step=gelu", f"seed={seed}"))
    capsys.readouterr()
    assert experiments_main(["plan", "--format", "csv", "--speed", "recorded", "+step=gelu", "seed=0,1,2", *SMALL]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    states = [dict(zip(header.split(","), row.split(","), strict=True)) for row in rows]
    assert [row["state"] for row in states] == ["finished", "finished", "missing"]
    assert float(states[2]["hours"]) > 0


def test_the_newest_record_tells_the_speed(tmp_path: Path) -> None:
    runs = [settings_for("+step=gelu", f"seed={seed}", f"runs_dir={tmp_path}") for seed in range(4)]
    assert recorded(runs, runs[0]) is None
    engine.run(runs[0])
    first = RunDir.locate(runs[0])
    record = json.loads(first.result.read_text())
    del record["seals"], record["digest"]
    for settings, seconds, when in zip(runs, (5.0, 7.0, 6.0), (100, 300, 200), strict=False):
        place = RunDir.locate(settings)
        place.path.mkdir(exist_ok=True)
        own = {"seed": settings.seed, "run_id": run_id(settings)}
        place.result.write_text(json.dumps({**record, **own, "wall_seconds": seconds, "epochs": 2}))
        os.utime(place.result, (when, when))
    assert recorded(runs, runs[3].replace(recipe=dataclasses.replace(runs[3].recipe, epochs=4))) == 14.0
    assert recorded(runs, settings_for("+step=width", f"runs_dir={tmp_path}")) is None


def test_speed_is_the_devices_once_it_is_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host runs ahead of a device that takes long for its first batches."""
    host = device = 0.0

    def work() -> Iterator[int]:
        nonlocal host, device
        for seconds in itertools.chain([100.0] * estimate.WARM_UP, itertools.repeat(0.5)):
            host += 0.01
            device = max(device, host) + seconds
            yield 10

    def synchronize(_: torch.device) -> None:
        nonlocal host
        host = max(host, device)

    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: host))
    monkeypatch.setattr(estimate, "synchronize", synchronize)
    measured = estimate._seconds_per_image(work(), torch.device("cpu"), seconds=0.2)
    assert measured == pytest.approx(0.05, rel=2e-3)


def test_recorded_time_is_per_epoch_and_of_the_same_network_only(tmp_path: Path) -> None:
    runs = [settings_for("+step=gelu", f"recipe.epochs={epochs}", f"runs_dir={tmp_path}") for epochs in (4, 6)]
    assert recorded(runs, runs[1]) is None
    seal(runs[0], epochs=4, wall_seconds=10.0)
    assert recorded(runs, runs[1]) == pytest.approx(15)
    assert recorded(runs, settings_for("+step=kernel_7")) is None


def test_status_of_every_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert experiments_plan(tmp_path, monkeypatch, "+step=gelu,width,kernel_5", *SMALL) == 0
    plan = plan_of(tmp_path / "runs")
    engine.run(plan.runs[0])
    half, failed = (RunDir.locate(run) for run in plan.runs[1:])
    half.start(plan.runs[1], Identity.of(plan.runs[1]))
    failed.start(plan.runs[2], Identity.of(plan.runs[2]))
    failed.fail(ConfigError("no good"))
    found = {row["run"].split("-")[0]: row for row in rows(tmp_path / "runs")}
    assert [found[name]["state"] for name in ("gelu", "width", "kernel_5")] == ["finished", "half", "failed"]
    assert found["gelu"]["epoch"] == "1/1"
    assert float(found["gelu"]["top-1"]) >= 0
    assert "ConfigError: no good" in found["kernel_5"]["note"]
    assert f"study.run={run_id(plan.runs[2])[:12]}" in found["kernel_5"]["note"]
    assert experiments_main(["status", "runs"]) == 0
    assert "1 finished, 1 half, 1 failed" in capsys.readouterr().out
    assert experiments_main(["status", "nowhere"]) == 5
    assert experiments_main(["status", "runs", "--study", "nothing"]) == 5


def test_planning_imports_what_it_needs_from_any_folder(tmp_path: Path) -> None:
    """`python -m experiments plan` in a process of its own: no file but the plan appears."""
    command = [sys.executable, "-m", "experiments", "plan", "--speed", "none", "+study=macro", "seed=0", *SMALL]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
