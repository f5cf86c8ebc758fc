"""Where and how a run is placed and reported: batch arithmetic, ranks, devices, progress."""

import io
import math
import re

import pytest
import torch
from rich.console import Console

from experiments.config.settings import Batch, Recipe
from experiments.errors import ConfigError
from experiments.runtime.device import pick_device
from experiments.runtime.distributed import Rendezvous, find_rendezvous, first_host
from experiments.training.batches import BatchLayout
from experiments.training.losses import CROSS_ENTROPY, Loss, binary_cross_entropy
from experiments.training.mixing import Mixing
from experiments.training.progress import Reporter
from experiments.training.summary import chance_warning
from roadmap import Design


def test_batch_arithmetic() -> None:
    layout = BatchLayout.of(Batch(size=96, micro=8), train_size=1000, ranks=3)
    assert (layout.accumulation, layout.steps) == (4, 10)
    assert [list(layout.micro_batches(rank)) for rank in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert str(layout) == "batch 96 = 3 ranks x 8 images x 4 accumulated"


@pytest.mark.parametrize(
    ("batch", "ranks", "words"),
    [
        ({"size": 96, "micro": 32}, 2, ("batch.size=96", "64", "128")),
        ({"size": 32, "micro": 32}, 4, ("batch.size=32", "128")),
        ({"size": 2048, "micro": 32}, 1, ("batch.size=2048", "1000 training images")),
    ],
)
def test_impossible_batches_are_refused(batch: dict[str, int], ranks: int, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        BatchLayout.of(Batch(**batch), train_size=1000, ranks=ranks)
    message = str(caught.value)
    assert all(word in message for word in words)
    assert "\n" not in message


SRUN = {"SLURM_STEP_NUM_TASKS": "6", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "40017"}


@pytest.mark.parametrize(
    ("environment", "rendezvous"),
    [
        ({}, Rendezvous()),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Rendezvous(3, 8, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, Rendezvous()),
        ({**SRUN, "SLURM_STEP_NODELIST": "gpu[007-009]"}, Rendezvous(5, 6, 1, "tcp://gpu007:20017")),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}, Rendezvous()),  # a batch script without srun
    ],
)
def test_rendezvous_from_environment(environment: dict[str, str], rendezvous: Rendezvous) -> None:
    assert find_rendezvous(environment) == rendezvous


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


@pytest.mark.parametrize(
    ("train", "loss", "steps", "norm", "flagged"),
    [
        ((1.0, 1.0), (1.0, 1.1), 200, "bn", True),
        ((1.0, 1.0), (1.0, 1.1), 2, "ln", True),
        ((1.0, 1.0), (1.0, 1.1), 98, "bn", False),  # BatchNorm's averages are not ready
        ((1.0, 1.0), (1.0, 0.9), 200, "bn", False),
        ((1.0, 0.9), (1.0, 1.1), 200, "bn", False),  # the averages lag
        ((0.9, 1.0), (1.0, 1.1), 200, "ln", False),
    ],
)
@pytest.mark.parametrize(
    ("kind", "guess"), [(CROSS_ENTROPY, math.log(10)), (binary_cross_entropy(Recipe(loss="bce")), 0.32508)]
)
def test_chance_level_is_flagged(
    train: tuple[float, ...], loss: tuple[float, ...], steps: int, norm: str, flagged: bool, kind: Loss, guess: float
) -> None:
    per_epoch = steps // 2
    history = [
        {"train_loss": a * guess, "loss": b * math.log(10), "step": epoch * per_epoch, "lr": 1e-9}
        for epoch, (a, b) in enumerate(zip(train, loss, strict=True), start=1)
    ]
    warning = chance_warning(history, 10, Design(norm=norm), kind)
    assert bool(warning) == flagged
    assert warning is None or ("chance level" in warning and "learning rate" in warning and "1e-09" in warning)
    assert chance_warning([], 10, Design(norm=norm), kind) is None


def test_guessing_costs_the_same_with_every_kind_of_target() -> None:
    mixing = Mixing.of(Recipe(mixup=0.8, cutmix=1.0, label_smoothing=0.1), 10)
    labels = torch.arange(8) % 10
    targets = mixing(torch.rand(8, 3, 8, 8), labels, 0, 0, 0)[1]
    for goal in (labels, targets):
        assert CROSS_ENTROPY.of(torch.zeros(8, 10), goal, 0.1).item() == pytest.approx(math.log(10), rel=1e-5)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_on_a_terminal_and_a_line_per_epoch_elsewhere(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=140, highlight=False)
    layout = BatchLayout.of(Batch(size=32, micro=8), train_size=96, ranks=1)
    line = {"epoch": 1, "lr": 1e-3, "train_loss": 1.25, "loss": 1.5, "top1": 61.25, "top1_ema": None}
    with Reporter(layout, 2, enabled=True, console=console) as reporter:
        reporter.start_epoch(0, 0)
        for _ in range(layout.steps):
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
    layout = BatchLayout.of(Batch(size=32, micro=8), train_size=96, ranks=2)
    with Reporter(layout, 2, enabled=False, console=Console(file=out, force_terminal=True)) as reporter:
        reporter.say("hello")
        reporter.step()
    assert out.getvalue() == ""
