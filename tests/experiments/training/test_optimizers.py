"""Every optimizer of the table: what it takes, what it keeps, and that a run goes on with it bit for bit."""

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from experiments.config.registry import OPTIMIZERS
from experiments.config.settings import Recipe
from experiments.errors import ConfigError, InterruptedRun, StorageError
from experiments.store.run_dir import RunDir
from experiments.training import optimizer_state
from experiments.training import run as engine
from experiments.training.optim import build_optimizer
from tests.conftest import ROOT
from tests.experiments.training.runs import fingerprint, only_run, settings_of, stopping

BETAS = {name: "recipe.betas=[0.98,0.92,0.99]" for name, entry in OPTIMIZERS.items() if entry.betas == 3}
TIMMS = [name for name, entry in OPTIMIZERS.items() if entry.home == "experiments.training.timm_optim:build"]
# Set by us, or how it is computed rather than what; adafactor's other two belong to rates of its own.
NOT_OFFERED = {
    *("self", "params", "lr", "weight_decay", "foreach", "fused", "capturable", "differentiable", "maximize"),
    *("verbose", "adamw_lr", "momentum_dtype", "betas", "momentum", "warmup_init"),
}
SMALLEST = ("data.train_images=64", "data.eval_images=8", "recipe.epochs=1", "batch.micro=16", "image_size=16")


def recipe_of(name: str, **values: Any) -> Recipe:
    """A recipe with an optimizer and as many betas as it takes."""
    return Recipe(optimizer=name, **({"betas": (0.98, 0.92, 0.99)} if name in BETAS else {}), **values)


@pytest.mark.numeric
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_bit_for_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after two of four steps, continued: like the run that nothing stopped."""
    asked = (*SMALLEST, f"recipe.optimizer={name}", *([BETAS[name]] if name in BETAS else []))
    undisturbed, stopped = (settings_of(tmp_path / part, *asked, step="kernel_7") for part in ("a", "b"))
    engine.run(undisturbed)
    with stopping(monkeypatch, 1), pytest.raises(InterruptedRun):
        engine.run(stopped)
    assert RunDir(only_run(tmp_path / "b")).state() != "finished"
    engine.run(stopped)
    assert fingerprint(only_run(tmp_path / "b")) == fingerprint(only_run(tmp_path / "a"))


@pytest.mark.parametrize("name", TIMMS)
def test_the_table_lists_what_timms_optimizer_takes(name: str) -> None:
    from timm.optim import get_optimizer_class, get_optimizer_info

    entry, info = OPTIMIZERS[name], get_optimizer_info(name)
    own = inspect.signature(get_optimizer_class(name, bind_defaults=False).__init__).parameters
    assert set(entry.takes) == set(own) - NOT_OFFERED
    read = {"momentum": info.has_momentum, "betas": info.has_betas and own["betas"].default is not None}
    assert set(entry.reads) == {key for key, reads in read.items() if reads}
    if "betas" in entry.reads:
        assert entry.betas == info.num_betas


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_argument_arrives(name: str) -> None:
    recipe = recipe_of(name)
    plain = build_optimizer(nn.Linear(3, 3), recipe, 0.25)
    for argument in OPTIMIZERS[name].takes:
        before = plain.param_groups[0].get(argument)
        value = not before if isinstance(before, bool) else before / 2 if isinstance(before, float) else before
        if value == before:  # a word, a number of steps, zero
            continue
        changed = build_optimizer(nn.Linear(3, 3), recipe_of(name, opt={argument: value}), 0.25)
        assert changed.param_groups[0][argument] == value, argument


def test_keys_that_it_reads_arrive() -> None:
    for name in TIMMS:
        betas = (0.5, 0.6, 0.7)[: OPTIMIZERS[name].betas]
        group = build_optimizer(nn.Linear(3, 3), Recipe(optimizer=name, betas=betas, momentum=0.4), 0.25).param_groups[
            0
        ]
        assert (group["lr"], group["weight_decay"]) == (0.25, 0.05)
        for key, value in {"betas": betas, "momentum": 0.4}.items():
            assert key not in OPTIMIZERS[name].reads or group[key] == value, name


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        (
            "lion",
            {"opt": {"eps": 1e-8}},
            "recipe.opt.eps is no argument of recipe.optimizer=lion, which takes: caution",
        ),
        ("sgd", {"opt": {"caution": True}}, "recipe.opt.caution is no argument of recipe.optimizer=sgd, which takes:"),
        ("adan", {}, r"recipe.betas=\[0.9, 0.999\] must hold 3 numbers for recipe.optimizer=adan"),
        ("adamw", {"betas": (0.9,)}, "must hold 2 numbers for recipe.optimizer=adamw"),
        ("nadamw", {"opt": {"eps": math.inf}}, "recipe.opt.eps=inf must be a finite number"),
    ],
)
def test_what_an_optimizer_does_not_take_is_refused(name: str, values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Recipe(optimizer=name, **values)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sgd", {"momentum": 0.0, "opt": {"nesterov": True}}),
        ("muon", {"opt": {"algo": "newton"}}),
        ("muon", {"opt": {"ns_steps": 2.5}}),
    ],
)
def test_a_value_that_an_optimizer_refuses_is_one_line(name: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"recipe.opt=.*: {name} refuses this: ") as refusal:
        build_optimizer(nn.Linear(3, 3), Recipe(optimizer=name, **values), 0.1)
    assert "\n" not in str(refusal.value)


def test_an_older_timm_that_lacks_an_optimizer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.optim.list_optimizers", lambda: ["nadamw"])
    build_optimizer(nn.Linear(3, 3), Recipe(optimizer="nadamw"), 0.1)
    with pytest.raises(ConfigError, match=r"recipe\.optimizer=muon needs a newer timm"):
        build_optimizer(nn.Linear(3, 3), Recipe(optimizer="muon"), 0.1)


def test_the_document_lists_what_the_table_does() -> None:
    text = (ROOT / "docs" / "training.md").read_text()
    listed = [line for line in text.splitlines() if line.startswith("| ") and line.split()[1] in OPTIMIZERS]
    assert listed == [f"| {n} | {', '.join(e.reads)} | {', '.join(e.takes)} |" for n, e in OPTIMIZERS.items()]


class Keeping(torch.optim.SGD):
    """Keeps what it is told to keep of each parameter and of each group."""

    def keep(self, **values: Any) -> None:
        for group in self.param_groups:
            group["total"] = values.get("total", 0)
            for parameter in group["params"]:
                self.state[parameter] = dict(values)


def kept(optimizer: torch.optim.Optimizer, named: dict[str, nn.Parameter]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The saved state of an optimizer."""
    tensors = optimizer_state.moments(optimizer, named) | optimizer_state.counts(optimizer)
    return tensors, optimizer_state.plain(optimizer, named)


def test_numbers_names_and_other_kinds_of_tensors_come_back() -> None:
    network = nn.Linear(3, 3)
    named = dict(network.named_parameters())
    first, second = Keeping(network.parameters(), lr=0.1), Keeping(network.parameters(), lr=0.1)
    first.keep(step=7, rate=0.1 + 0.2, matrix=True, name="x", none=None, half=torch.ones(2).bfloat16(), total=1 << 60)
    tensors, record = kept(first, named)
    assert record["values"]["optimizer.bias.step"] == 7 and record["values"]["groups.0.total"] == 1 << 60
    assert not any(name.endswith((".lr", ".momentum")) for name in record["values"])  # options are no state
    optimizer_state.restore(second, named, tensors, record)
    for parameter in named.values():
        ours, theirs = first.state[parameter], second.state[parameter]
        assert torch.equal(ours.pop("half"), theirs["half"]) and theirs.pop("half").dtype == torch.bfloat16
        assert ours == theirs and type(theirs["matrix"]) is bool
    assert second.param_groups[0]["total"] == 1 << 60


@pytest.mark.parametrize("fused", [False, True])
def test_what_lies_on_the_host_beside_a_device_goes_back_there(fused: bool) -> None:
    """Counts of steps where torch keeps them, other tensors where they were; `meta` stands in for a GPU."""
    network = nn.Linear(3, 3, device="meta")
    named = dict(network.named_parameters())
    first, second = Keeping(network.parameters(), lr=0.1), Keeping(network.parameters(), lr=0.1)
    first.keep(step=torch.ones(()), rate=torch.ones(()), norm=torch.ones((), device="meta"))
    for parameter in named.values():
        first.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
    tensors, record = kept(first, named)
    assert record["host"] == ["rate", "step"]
    if fused:  # such an optimizer had its counts on the device when it was saved
        record["host"].remove("step")
    for group in second.param_groups:
        group["fused"] = fused
    optimizer_state.restore(second, named, tensors, record)
    for parameter in named.values():
        places = {key: value.device.type for key, value in second.state[parameter].items()}
        step = "meta" if fused else "cpu"
        assert places == {"step": step, "rate": "cpu", "norm": "meta", "exp_avg": "meta"}


def test_what_no_checkpoint_can_hold_is_refused_when_it_is_saved() -> None:
    network = nn.Linear(3, 3)
    optimizer = Keeping(network.parameters(), lr=0.1)
    optimizer.keep(history=[torch.ones(1)])
    with pytest.raises(StorageError, match=r"Keeping keeps a list as optimizer.weight.history"):
        optimizer_state.plain(optimizer, dict(network.named_parameters()))


def test_state_of_other_parameters_is_refused() -> None:
    network = nn.Linear(3, 3)
    named = dict(network.named_parameters())
    optimizer = build_optimizer(network, Recipe(), 0.1)
    for tensors in ({"optimizer.weight.exp_avg": torch.ones(3, 3)}, {"groups.9.step": torch.ones(())}):
        with pytest.raises(StorageError, match="lacks or adds optimizer state"):
            optimizer_state.restore(optimizer, named, tensors, {})


def test_most_optimizers_keep_only_tensors() -> None:
    """So that their checkpoints are what they were before other kinds of state could be saved."""
    network = nn.Linear(3, 3)
    for name in ("sgd", "adamw", "lamb"):
        optimizer = build_optimizer(network, recipe_of(name), 0.1)
        network(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        assert kept(optimizer, dict(network.named_parameters()))[1] == {}


@pytest.mark.gpu
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_bit_for_bit_on_a_gpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of steps that lie on the host go back there, with a loss scaler."""
    asked = (*SMALLEST, f"recipe.optimizer={name}", *([BETAS[name]] if name in BETAS else []))
    asked += ("device=cuda", "precision=fp16", "deterministic=true", "recipe.epochs=2")
    undisturbed, stopped = (settings_of(tmp_path / part, *asked, step="kernel_7") for part in ("a", "b"))
    engine.run(undisturbed)
    with stopping(monkeypatch, 5), pytest.raises(InterruptedRun):
        engine.run(stopped)
    engine.run(stopped)
    assert fingerprint(only_run(tmp_path / "b")) == fingerprint(only_run(tmp_path / "a"))
