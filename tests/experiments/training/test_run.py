"""Whole tiny runs in this process: the record, resuming, divergence, seeds, mirrors, evaluation."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from experiments.data import open_data
from experiments.data.damage import Damage
from experiments.errors import ClaimedError, DivergedError, InterruptedRun, StorageError
from experiments.runtime.distributed import Ranks
from experiments.store import lock
from experiments.store.checkpoint import MANIFEST, Checkpoints
from experiments.store.run_dir import RunDir
from experiments.training import job, loop
from experiments.training import run as engine
from experiments.training.ema import Ema
from experiments.training.job import build_state
from experiments.training.loop import Job
from experiments.training.summary import compose_result
from experiments.training.validate import Validation, validate
from roadmap import complexity_of, load
from tests.experiments.training.runs import (
    BN,
    LATER,
    LN,
    fingerprint,
    lines,
    only_run,
    result,
    settings_of,
    stopping,
)
from tests.storms.payloads import replace_manifest

pytestmark = pytest.mark.numeric

EVERYTHING = ("recipe.ema=0.9", "recipe.clip_grad=1.0", "recipe.drop_path=0.2")


def test_a_run_leaves_its_record_and_is_not_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(tmp_path, "recipe.ema=0.9")
    record = engine.run(settings)
    run = only_run(tmp_path)
    assert record == result(run)
    assert RunDir(run).state() == "finished"
    said = capsys.readouterr().out
    assert "batch 16 = 1 rank x 8 images x 2 accumulated" in said
    assert "peak learning rate 0.002" in said
    assert len([line for line in said.splitlines() if line.startswith("epoch ")]) == 2
    epochs = lines(run)
    assert [(line["epoch"], line["step"]) for line in epochs] == [(1, 4), (2, 8)]
    assert set(epochs[0]) == {"epoch", "step", "lr", "train_loss", "loss", "top1", "top5", "top1_ema"}
    assert record["top1"] == epochs[-1]["top1"]
    assert record["top5"] == epochs[-1]["top5"] >= record["top1"]
    assert len(record["class_names"]) == 10
    for weights, top1 in (("last", "top1"), ("ema", "top1_ema")):
        network = load(run, weights=weights)
        scored = validate(network, open_data(settings, device="cpu"), Ranks(), device=torch.device("cpu"))
        assert scored.top1 == record[top1]
    assert record["loss"] == epochs[-1]["loss"]
    assert record["top1_best"] == max(line["top1"] for line in epochs)
    assert record["top1_ema"] == epochs[-1]["top1_ema"]
    assert (record["step"], record["epochs"], record["status"]) == (LN, 2, "finished")
    assert record["params"] == sum(
        p.numel() for p in build_state(settings, _Ten(), torch.device("cpu")).model.parameters()
    )
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml",
        "timing.jsonl",
        "last.safetensors",
        "ema.safetensors",
        "config.json",
        "model.safetensors",
        "environment.json",
    }
    monkeypatch.setattr(engine, "_work", None)  # a second training would fail
    assert engine.run(settings) == record
    assert "is finished" in capsys.readouterr().out


class _Ten:
    num_classes, in_chans, train_size, eval_size, damage = 10, 3, 64, 24, Damage()
    class_names = tuple("0123456789")


def test_costs_are_the_runs_own_and_the_papers(tmp_path: Path) -> None:
    """The figure's axis counts 224 pixels, 1000 classes and stem stride 4, whatever a run is trained with."""
    settings = settings_of(tmp_path, "data.stem_stride=2", "design.layer_scale=null", step=BN)
    started = job.Job.of(settings, _Ten(), RunDir(tmp_path), device=torch.device("cpu"))
    record = compose_result(started)
    own, paper = complexity_of(settings.design, image_size=32, num_classes=10), complexity_of(BN, regime="micro")
    assert (record["gmacs"], record["params"]) == (own.gmacs, own.params)
    assert (record["gmacs_224"], record["params_1k"]) == (paper.gmacs, paper.params)


@pytest.mark.parametrize("asked", [True, False])
def test_gradient_checkpointing_reaches_every_stage(tmp_path: Path, asked: bool) -> None:
    settings = settings_of(tmp_path, f"grad_checkpointing={str(asked).lower()}")
    stages = build_state(settings, _Ten(), torch.device("cpu")).model.stages
    assert [stage.grad_checkpointing for stage in stages] == [asked] * 4


def test_top1_ema_is_that_of_the_averaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def score(network: nn.Module, *_: Any, **__: Any) -> Validation:
        trained = next(network.parameters()).requires_grad
        return Validation(loss=1.0, top1=25.0 if trained else 75.0, images=24, top5=90.0)

    monkeypatch.setattr(loop, "validate", score)
    record = engine.run(settings_of(tmp_path, "recipe.ema=0.9", "recipe.epochs=1"))
    assert (record["top1"], record["top1_ema"]) == (25, 75)


def test_the_average_is_updated_at_every_kth_step_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps make an epoch: counted from its start, the second epoch would update after its third step, too."""
    updates: list[int] = []
    step, update = loop.train_step, Ema.update
    done = [0]

    def counted(*arguments: Any) -> Tensor:
        done[0] += 1
        return step(*arguments)

    monkeypatch.setattr(loop, "train_step", counted)
    monkeypatch.setattr(Ema, "update", lambda ema: updates.append(done[0]) or update(ema))
    engine.run(settings_of(tmp_path, "recipe.ema=0.9", "recipe.ema_every=3", "recipe.epochs=3"))
    assert updates == [3, 6, 9, 12]


def test_fixres_trains_at_another_size_than_it_evaluates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record's cost is that of an evaluation image."""
    seen = set()
    forward = loop.forward
    monkeypatch.setattr(
        loop, "forward", lambda job, batch, step: seen.add(batch.images.shape[2:]) or forward(job, batch, step)
    )
    settings = settings_of(tmp_path, "recipe.train_scale=0.75", "recipe.epochs=1")
    record = engine.run(settings)
    assert seen == {(24, 24)}
    assert record["gmacs"] == complexity_of(settings.design, image_size=32, num_classes=10).gmacs


def test_clipping_does_not_see_the_loss_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16's scaled gradients are unscaled first: a scale that is a power of two changes nothing but rounding."""
    losses = []
    for scale in (1.0, 2.0**12):
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        monkeypatch.setattr(job, "gradient_scaler", lambda *_, scaler=scaler: scaler)
        engine.run(settings_of(tmp_path / str(scale), "recipe=original", "recipe.clip_grad=0.5", "recipe.lr=0.5"))
        losses += [[line["train_loss"] for line in lines(only_run(tmp_path / str(scale)))]]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("step, asked", [(BN, EVERYTHING), (LN, EVERYTHING), (BN, (*EVERYTHING, *LATER))])
@pytest.mark.parametrize("after", [0, 1, 3, 4, 6])
def test_interrupted_and_resumed_is_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, asked: tuple[str, ...], after: int
) -> None:
    engine.run(settings_of(tmp_path / "whole", *asked, step=step))
    parts = settings_of(tmp_path / "parts", *asked, step=step)
    with stopping(monkeypatch, after), pytest.raises(InterruptedRun, match="same command continues"):
        engine.run(parts)
    assert RunDir(only_run(tmp_path / "parts")).state() == "half"
    engine.run(parts)
    assert fingerprint(only_run(tmp_path / "parts")) == fingerprint(only_run(tmp_path / "whole"))


@pytest.mark.parametrize("history", [None, "lost", ["a line"], [1]])
def test_a_checkpoint_that_another_program_wrote_changes_no_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, history: Any
) -> None:
    settings = settings_of(tmp_path)
    with stopping(monkeypatch, 5), pytest.raises(InterruptedRun):
        engine.run(settings)
    run = only_run(tmp_path)
    before = RunDir(run).metrics.read_bytes()
    newest = max(RunDir(run).checkpoints.glob("step-*"))
    manifest = json.loads((newest / MANIFEST).read_text())
    del manifest["state"]["history"]
    manifest["state"] |= {"history": history} if history else {}
    replace_manifest(newest, json.dumps(manifest).encode())
    with pytest.raises(StorageError, match="is no state of this run"):
        engine.run(settings)
    assert RunDir(run).metrics.read_bytes() == before


def test_rerun_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.run(settings_of(tmp_path))
    before = fingerprint(only_run(tmp_path))
    seen: list[int] = []
    step = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda job, batches: seen.append(job.step) or step(job, batches))
    engine.run(settings_of(tmp_path, "rerun=true"))
    assert seen == list(range(8))
    assert fingerprint(only_run(tmp_path)) == before


def test_seeds_differ_and_machine_settings_do_not(tmp_path: Path) -> None:
    weights = {}
    for name, override in {
        "a": "seed=0",
        "b": "seed=1",
        "c": "logger.log_every=1",
        "d": "checkpoint.every_steps=1",
    }.items():
        engine.run(settings_of(tmp_path / name, override))
        weights[name] = fingerprint(only_run(tmp_path / name))["last.safetensors"]
    assert weights["a"] != weights["b"]
    assert weights["a"] == weights["c"] == weights["d"]


# ---- divergence


def test_a_diverging_run_is_sealed_with_its_step_and_last_good_checkpoint(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path, "recipe=original", "recipe.lr=1e3", "recipe.momentum=0", "recipe.epochs=50", "logger.log_every=3",
        "checkpoint.every_steps=1",
    )  # fmt: skip
    with pytest.raises(DivergedError, match="sealed as diverged"):
        engine.run(settings)
    run = only_run(tmp_path)
    record = result(run)
    assert record["status"] == "diverged"
    kept = Checkpoints(run, record["run_id"]).load()
    assert kept is not None
    assert record["diverged"]["checkpoint"] == kept.path.name
    assert kept.step < record["diverged"]["step"]
    assert all(tensor.isfinite().all() for tensor in kept.tensors.values() if tensor.is_floating_point())
    assert not (run / "last.safetensors").exists()
    assert not (run / "error.json").exists()
    with pytest.raises(DivergedError, match="rerun=true"):
        engine.run(settings)


@pytest.mark.parametrize("interval", [1, 3, 50])
def test_a_broken_loss_stops_the_run_at_most_one_interval_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval: int
) -> None:
    """The named step is exact; the run stops when the interval is over, and saves nothing in between."""
    done: list[int] = []
    _break_loss(monkeypatch, at=5, done=done)
    settings = settings_of(tmp_path, "recipe.epochs=9", f"logger.log_every={interval}")
    with pytest.raises(DivergedError, match="loss became nan at step 6"):
        engine.run(settings)
    assert done[-1] <= 5 + min(interval, 4)  # the end of an epoch is a look at the loss as well
    record = result(only_run(tmp_path))
    assert record["diverged"] == {"step": 6, "checkpoint": record["diverged"]["checkpoint"]}
    assert record["diverged"]["checkpoint"].startswith("step-00000004-")
    assert record["epochs"] == 1


def _break_loss(patch: pytest.MonkeyPatch, at: int, done: list[int]) -> None:
    original = loop.train_step

    def broken(job: Job, batches: Any) -> Tensor:
        done.append(job.step)
        loss = original(job, batches)
        return loss * math.nan if job.step == at else loss

    patch.setattr(loop, "train_step", broken)


def test_a_broken_weight_under_a_finite_loss_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loop.train_step

    def broken(job: Job, batches: Any) -> Tensor:
        loss = original(job, batches)
        if job.step == 2:
            next(iter(job.state.optimizer.state.values()))["exp_avg"].fill_(math.inf)
        return loss

    monkeypatch.setattr(loop, "train_step", broken)
    with pytest.raises(DivergedError, match="at step 3"):
        engine.run(settings_of(tmp_path, "checkpoint.every_steps=3"))
    assert result(only_run(tmp_path))["diverged"] == {"step": 3, "checkpoint": None}


def test_a_run_that_learns_nothing_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = engine.run(settings_of(tmp_path, "recipe.lr=1e-12", "recipe.min_lr=0", "recipe.epochs=1"))
    assert any("chance level" in warning for warning in record["warnings"])
    assert "chance level" in caplog.text


# ---- a failure that is nobody's fault


def test_a_bug_leaves_error_json_and_the_same_command_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "autocast", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.run(settings_of(tmp_path))
    run = only_run(tmp_path)
    assert json.loads((run / "error.json").read_text())["type"] == "ZeroDivisionError"
    engine.run(settings_of(tmp_path))
    assert not (run / "error.json").exists()
    assert RunDir(run).state() == "finished"


# ---- several starts, several owners


@pytest.mark.parametrize("sealed", [False, True])
def test_an_owner_that_was_replaced_ends_and_leaves_the_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    """Another host takes the run over in the middle, and may even have sealed it before this one writes again."""
    engine.run(settings_of(tmp_path / "alone"))
    settings = settings_of(tmp_path / "two")
    step, steps = loop.train_step, iter(range(100))

    def taken_over(*arguments: Any) -> Tensor:
        if next(steps) == 5:
            with monkeypatch.context() as patch:
                patch.setattr(loop, "train_step", step)
                patch.setattr(lock, "_held", set())  # another process, on a host that shares no locks
                patch.setattr(lock, "_take", lambda *_: None)
                if sealed:
                    engine.run(settings)
                else:
                    with stopping(patch, 0), pytest.raises(InterruptedRun):
                        engine.run(settings)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", taken_over)
        with pytest.raises(ClaimedError, match="was taken over by another start"):
            engine.run(settings)
    run = only_run(tmp_path / "two")
    assert not (run / "error.json").exists()
    assert RunDir(run).state() == ("finished" if sealed else "half")
    engine.run(settings)
    assert fingerprint(run) == fingerprint(only_run(tmp_path / "alone"))
    assert not (run / "starts").exists()


def test_the_record_lists_every_start_and_marks_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for after, values in ((2, ()), (1, ()), (2, ("deterministic=true",))):
        with stopping(monkeypatch, after), pytest.raises(InterruptedRun):
            engine.run(settings_of(tmp_path, *values))
    assert caplog.text.count("the run goes on with other values") == 1
    assert "from step 4 on: kernels default -> deterministic" in caplog.text
    record = engine.run(settings_of(tmp_path, "deterministic=true"))
    listed = [(one["from_step"], one["to_step"], one["kernels"]) for one in record["starts"]]
    kernels = ["default", "default", "deterministic", "deterministic"]
    assert listed == [(0, 3, kernels[0]), (3, 4, kernels[1]), (4, 7, kernels[2]), (7, 8, kernels[3])]
    assert record["warnings"] == ["mixed: from step 4 on: kernels default -> deterministic"]
    assert {"commit", "dirty", "versions", "device", "instruction_set", "threads", "world_size", "compile"} <= set(
        record["starts"][0]
    )
    assert len({one["start"] for one in record["starts"]}) == 4
    assert caplog.text.count("the run goes on with other values") == 1
