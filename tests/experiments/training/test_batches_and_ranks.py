"""Where and how a run is placed and reported: batch arithmetic, ranks, devices, progress."""

import io
import math
import re

import pytest
import torch
from rich.console import Console

from experiments.config.settings import Batch, Budget, Data, Recipe, Settings
from experiments.errors import ConfigError
from experiments.runtime.device import pick_device
from experiments.runtime.distributed import Rendezvous, find_rendezvous, first_host
from experiments.training.batches import BatchLayout
from experiments.training.progress import Reporter
from experiments.training.summary import chance_warning
from roadmap import design_for


def _settings(**batch: int) -> Settings:
    return Settings(design_for("kernel_7", "micro"), "micro", Recipe(), Budget(), Batch(**batch), Data())


def test_batch_arithmetic() -> None:
    plan = BatchLayout.of(_settings(size=96, micro=8), train_size=1000, ranks=3)
    assert (plan.accumulation, plan.steps) == (4, 10)
    assert [list(plan.micro_batches(rank)) for rank in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert str(plan) == "batch 96 = 3 ranks x 8 images x 4 accumulated"


@pytest.mark.parametrize(
    ("batch", "ranks", "words"),
    [
        ({"size": 96, "micro": 32}, 2, ("batch.size=96", "64", "128")),
        ({"size": 32, "micro": 32}, 4, ("batch.size=32", "128")),
        ({"size": 33, "micro": 11}, 1, ("batch.micro=11", "even")),
        ({"size": 2048, "micro": 32}, 1, ("batch.size=2048", "1000 training images")),
    ],
)
def test_impossible_batches_are_refused(batch: dict[str, int], ranks: int, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        BatchLayout.of(_settings(**batch), train_size=1000, ranks=ranks)
    message = str(caught.value)
    assert all(word in message for word in words)
    assert "\n" not in message


SRUN = {"SLURM_STEP_NUM_TASKS": "6", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "40017"}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, Rendezvous()),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Rendezvous(3, 8, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, Rendezvous()),
        ({**SRUN, "SLURM_STEP_NODELIST": "gpu[007-009]"}, Rendezvous(5, 6, 1, "tcp://gpu007:20017")),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}, Rendezvous()),  # a batch script without srun
    ],
)
def test_place_from_environment(environment: dict[str, str], place: Rendezvous) -> None:
    assert find_rendezvous(environment) == place


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[003-007,9],cpu1", "gpu003"),
        ("a-b-[12,14]", "a-b-12"),
        ("r[1-2]-ib", "r1-ib"),
    ],
)
def test_first_host_of_node_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


def test_unavailable_devices_are_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    for name in ("mps", "cuda:63"):
        with pytest.raises(ConfigError, match=name):
            pick_device(name)


def test_chance_level_is_flagged() -> None:
    guess = math.log(10)
    assert chance_warning([], 10) is None
    assert "chance" in (chance_warning([{"loss": guess}, {"loss": guess * 1.1}], 10) or "")
    assert chance_warning([{"loss": guess}, {"loss": guess * 0.9}], 10) is None


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_on_a_terminal_and_a_line_per_epoch_elsewhere(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=140, highlight=False)
    plan = BatchLayout.of(_settings(size=32, micro=8), train_size=96, ranks=1)
    line = {"epoch": 1, "lr": 1e-3, "train_loss": 1.25, "loss": 1.5, "top1": 61.25, "top1_ema": None}
    with Reporter(plan, 2, enabled=True, console=console) as reporter:
        reporter.start_epoch(0, 0)
        for _ in range(plan.steps):
            reporter.step()
        reporter.loss(1.125)
        reporter.end_epoch(line, seconds=4.0, speed=24.0)
    said = out.getvalue()
    assert said.count("top1 61.25") == 1
    assert "4 s left" in said
    assert ("loss 1.1250" in said) is terminal  # the bar's
    assert (re.search(r"loss 1\.1250.* [1-9]\d* images/s", said) is not None) is terminal
    assert ("\x1b" in said) is terminal
    if not terminal:
        assert said.count("\n") == 1


def test_progress_is_silent_on_other_ranks() -> None:
    out = io.StringIO()
    plan = BatchLayout.of(_settings(size=32, micro=8), train_size=96, ranks=2)
    with Reporter(plan, 2, enabled=False, console=Console(file=out, force_terminal=True)) as reporter:
        reporter.say("hello")
        reporter.step()
    assert out.getvalue() == ""
