"""The parts of the engine one by one, against timm's where it has the same part."""

import copy
import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from experiments.config.settings import Recipe
from experiments.randomness import derive
from experiments.runtime.device import compile_network, gradient_scaler
from experiments.runtime.distributed import Ranks
from experiments.training.ema import Ema
from experiments.training.losses import CROSS_ENTROPY
from experiments.training.mixing import Mixing
from experiments.training.optim import build_optimizer, learning_rate, parameter_groups
from experiments.training.state import TrainState
from roadmap import build
from tests.conftest import ROOT

pytestmark = pytest.mark.numeric

ENHANCED = Recipe()
ORIGINAL = Recipe(
    name="original", epochs=90, optimizer="sgd", base_lr=0.1, lr_batch=256, weight_decay=1e-4, decay_all=True,
    schedule="steps", warmup_epochs=0, label_smoothing=0, mixup=0, cutmix=0,
)  # fmt: skip
LAMB = dataclasses.replace(ENHANCED, optimizer="lamb")
PER_EPOCH = 312  # 1,281,167 images in batches of 4096

# epoch -> learning rate, worked out by hand from Table 5: 20 epochs from 0 to 4e-3, then half a cosine to 1e-6
COSINE = {
    0: 0.0, 5: 1e-3, 10: 2e-3, 19: 3.8e-3, 20: 4e-3, 90: 3.41436e-3, 160: 2.0005e-3, 230: 5.86640e-4,
    295: 4.14559e-6, 300: 1e-6,
}  # fmt: skip
STEPS = {0: 0.1, 1: 0.1, 15: 0.1, 29: 0.1, 30: 0.01, 45: 0.01, 59: 0.01, 60: 1e-3, 75: 1e-3, 89: 1e-3}


@pytest.mark.parametrize(("epoch", "rate"), COSINE.items())
def test_cosine_rate(epoch: int, rate: float) -> None:
    assert learning_rate(ENHANCED, 4e-3, epoch * PER_EPOCH, PER_EPOCH) == pytest.approx(rate, rel=1e-4)


@pytest.mark.parametrize(("epoch", "rate"), STEPS.items())
def test_steps_rate(epoch: int, rate: float) -> None:
    first, last = epoch * PER_EPOCH, (epoch + 1) * PER_EPOCH - 1
    assert learning_rate(ORIGINAL, 0.1, first, PER_EPOCH) == pytest.approx(rate)
    assert learning_rate(ORIGINAL, 0.1, last, PER_EPOCH) == pytest.approx(rate)


@pytest.mark.parametrize("epoch", range(0, 20, 2))
def test_constant_rate(epoch: int) -> None:
    recipe = Recipe(schedule="constant", epochs=20, warmup_epochs=4)
    assert learning_rate(recipe, 0.4, epoch * 7, 7) == pytest.approx(min(0.4, 0.1 * epoch))


def test_cosine_rate_equals_timm_at_every_step() -> None:
    from timm.scheduler import CosineLRScheduler

    recipe, steps = Recipe(epochs=9, warmup_epochs=2, min_lr=1e-4), 11
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    timm = CosineLRScheduler(
        optimizer, t_initial=7 * steps, lr_min=1e-4, warmup_t=2 * steps, warmup_lr_init=0, warmup_prefix=True,
        t_in_epochs=False,
    )  # fmt: skip
    for step in range(9 * steps):
        timm.step_update(step)
        assert learning_rate(recipe, 0.3, step, steps) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


@pytest.mark.parametrize(("epochs", "steps", "warmup"), [(0.3, 9, 3), (0.3, 11, 3), (1.5, 7, 10), (0.02, 20, 0)])
def test_warmup_reaches_the_peak_at_the_nearest_whole_step(epochs: float, steps: int, warmup: int) -> None:
    recipe = Recipe(schedule="constant", epochs=20, warmup_epochs=epochs)
    rates = [learning_rate(recipe, 0.5, step, steps) for step in range(warmup + 2)]
    assert rates == pytest.approx([0.5 * step / warmup for step in range(warmup)] + [0.5, 0.5])


@pytest.mark.parametrize("step", ["resnet50", "kernel_7", "separate_downsampling"])
def test_parameter_groups(step: str) -> None:
    """Weight decay reaches convolution and linear weights only; with `decay_all` everything."""
    model = build(step, regime="micro", num_classes=10, layer_scale=1e-6)
    decayed, free = parameter_groups(model, ENHANCED)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    weights = {names[id(p)] for p in decayed["params"]}
    others = {names[id(p)] for p in free["params"]}
    assert weights | others == set(names.values())
    assert weights == {n for n in names.values() if n.endswith(("conv.weight", "fc.weight"))}
    assert {n.rsplit(".", 1)[1] for n in others} <= {"bias", "weight", "gamma"}
    assert all(n.endswith(("bias", "norm.weight", "gamma")) for n in others)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    (everything,) = parameter_groups(model, ORIGINAL)
    assert len(everything["params"]) == len(names)
    assert everything["weight_decay"] == 1e-4


def test_parameter_groups_equal_timm() -> None:
    from timm.optim import param_groups_weight_decay

    model = build("separate_downsampling", regime="micro", num_classes=10, layer_scale=1e-6)
    free, decayed = param_groups_weight_decay(model, 0.05)
    ours = parameter_groups(model, ENHANCED)
    assert [id(p) for p in ours[0]["params"]] == [id(p) for p in decayed["params"]]
    assert [id(p) for p in ours[1]["params"]] == [id(p) for p in free["params"]]


@pytest.mark.parametrize(("recipe", "name"), [(ENHANCED, "AdamW"), (ORIGINAL, "SGD")])
def test_optimizer_is_fused_with_the_recipes_values(recipe: Recipe, name: str) -> None:
    optimizer = build_optimizer(nn.Linear(3, 3), recipe, 0.25)
    assert type(optimizer).__name__ == name
    group = optimizer.param_groups[0]
    assert group["fused"]
    assert group["lr"] == 0.25
    assert group["betas"] == (0.9, 0.999) if name == "AdamW" else group["momentum"] == 0.9


@pytest.mark.parametrize("recipe", [ENHANCED, ORIGINAL, LAMB])
def test_optimizer_steps_as_torchs_or_timms_own(recipe: Recipe) -> None:
    from timm.optim import Lamb

    torch.manual_seed(0)
    ours = nn.Linear(3, 3)
    theirs = copy.deepcopy(ours)
    optimizers = [build_optimizer(ours, recipe, 0.25)]
    groups = parameter_groups(theirs, recipe)
    if recipe is ENHANCED:
        optimizers.append(torch.optim.AdamW(groups, lr=0.25, betas=recipe.betas, fused=True))
    elif recipe is LAMB:
        optimizers.append(Lamb(groups, lr=0.25, betas=recipe.betas, max_grad_norm=None))
    else:
        optimizers.append(torch.optim.SGD(groups, lr=0.25, momentum=recipe.momentum, fused=True))
    for network, optimizer in zip((ours, theirs), optimizers, strict=True):
        for step in range(3):
            network(torch.full((2, 3), step + 1.0)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
    assert str(optimizers[0].state_dict()) == str(optimizers[1].state_dict())


@pytest.mark.parametrize("recipe", [ENHANCED, ORIGINAL, LAMB, Recipe(optimizer="sgd", momentum=0.0)])
def test_a_skipped_first_step_leaves_no_trace(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16 begins with steps that overflow: the loss scaler skips them, and what follows is as if they had not been."""
    uninitialised = torch.empty_like  # may hold anything: here NaN
    monkeypatch.setattr(torch, "empty_like", lambda *args, **rest: uninitialised(*args, **rest).fill_(math.nan))
    torch.manual_seed(0)
    skipping = nn.Linear(3, 3)
    states = []
    for network, factors in ((skipping, (math.inf, 1.0, 0.5)), (copy.deepcopy(skipping), (1.0, 0.5))):
        optimizer, scaler = build_optimizer(network, recipe, 0.25), torch.amp.GradScaler("cpu", init_scale=1.0)
        for factor in factors:
            (scaler.scale(network(torch.ones(2, 3)).sum()) * factor).backward()
            scaler.step(optimizer)
            scaler.update(1.0)
            optimizer.zero_grad()
        moments = [value.tolist() for state in optimizer.state.values() for value in state.values()]
        counts = [float(group.get("step", 0)) for group in optimizer.param_groups]  # LAMB's
        states.append(([parameter.tolist() for parameter in network.parameters()], moments, counts))
    assert states[0] == states[1]  # NaN equals nothing, itself included
    assert bool(states[0][1]) == (recipe.optimizer != "sgd" or recipe.momentum > 0)
    assert any(states[0][2]) == (recipe is LAMB)


def test_clipping_is_the_recipes_and_not_lambs() -> None:
    """LAMB scales a layer's step to the layer's size, so a bias shows what its gradient was, in the first moment."""
    network = nn.Linear(3, 3)
    optimizer = build_optimizer(network, LAMB, 0.25)
    network.bias.grad = torch.full((3,), 100.0)
    optimizer.step()
    assert optimizer.state[network.bias]["exp_avg"].tolist() == pytest.approx([10.0] * 3)


def test_optimizer_leaves_the_compiler_unimported() -> None:
    code = """
import sys, torch
from experiments.training.optim import build_optimizer
from experiments.config.settings import Recipe
for recipe in (Recipe(), Recipe(optimizer="sgd")):
    network = torch.nn.Linear(3, 3)
    optimizer = build_optimizer(network, recipe, 0.1)
    network(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 1.0), (0.8, 0.0), (0.0, 1.0), (0.2, 0.4)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixing_equals_timm(mixup: float, cutmix: float, smoothing: float) -> None:
    from timm.data.mixup import Mixup

    timm = Mixup(mixup, cutmix, switch_prob=0.5, label_smoothing=smoothing, num_classes=7)
    ours = Mixing(mixup, cutmix, 0.5, smoothing, 7)
    generator = torch.Generator().manual_seed(0)
    for index in range(40):
        images, labels = torch.randn(6, 3, 9, 11, generator=generator), torch.randint(7, (6,), generator=generator)
        np.random.seed(derive("mixup", 3, 5, index) % 2**32)
        expected = timm(images.clone(), labels)
        got = ours(images.clone(), labels, 3, 5, index)
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


def test_mixing_depends_on_seed_step_and_index_only() -> None:
    mixing, labels = Mixing(0.8, 1.0, 0.5, 0.1, 10), torch.arange(8)
    images = torch.randn(8, 3, 16, 16)
    first = mixing(images.clone(), labels, 0, 1, 2)
    np.random.seed(123)
    assert torch.equal(mixing(images.clone(), labels, 0, 1, 2)[0], first[0])
    for key in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        assert not torch.equal(mixing(images.clone(), labels, *key)[0], first[0])


def test_ema_equals_timm_with_batch_norm() -> None:
    from timm.utils import ModelEmaV3

    torch.manual_seed(0)
    model = build("kernel_7", regime="micro", num_classes=4)
    ours, timm = Ema(model, 0.9), ModelEmaV3(model, decay=0.9)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.randn(4, 3, 32, 32)).square().mean().backward()
        optimizer.step()
        ours.update()
        timm.update(model)
    theirs = timm.module.state_dict()
    moved = 0
    for name, tensor in ours.module.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
        moved += not torch.equal(tensor, model.state_dict()[name])
    assert moved > 100
    assert ours.module.state_dict()["stem.conv.bias"].requires_grad is False
    assert not ours.module.training


@pytest.mark.parametrize("step", ["fewer_norms", "separate_downsampling"])
def test_compiled_blocks_and_network_equal_plain(step: str) -> None:
    """aot_eager traces forward and backward as inductor does, at a tenth of its cost; tolerance 1e-5 relative."""
    torch.manual_seed(0)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    plain = build(step, regime="micro", num_classes=4, layer_scale=0.1)
    reference = _loss_and_gradients(plain, images, labels)
    for mode in ("blocks", "model"):
        compiled = copy.deepcopy(plain)
        compiled.zero_grad()
        compile_network(compiled, mode, backend="aot_eager")
        assert list(compiled.state_dict()) == list(plain.state_dict())
        for got, expected in zip(_loss_and_gradients(compiled, images, labels), reference, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_any_number_of_blocks_is_compiled() -> None:
    """Stochastic depth gives every block a constant of its own, and the compiler's own limit is eight."""
    model = build("gelu", regime="micro", depths=(3, 3, 3, 3), num_classes=4, layer_scale=0.1, drop_path=0.2).train()
    compile_network(model, "blocks", backend="aot_eager")
    loss, *gradients = _loss_and_gradients(model, torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))
    assert torch.isfinite(loss) and len(gradients) == len(list(model.parameters()))


def _loss_and_gradients(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    loss = CROSS_ENTROPY.of(model(images), labels, 0.1)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    return [loss.detach(), *(gradient for gradient in gradients if gradient is not None)]


def _state_after_one_step() -> TrainState:
    model = build("kernel_7", regime="micro", num_classes=4)
    optimizer = build_optimizer(model, ENHANCED, 0.1)
    model(torch.randn(4, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    return TrainState(model, optimizer, gradient_scaler("fp32", torch.device("cpu")), Ema(model, 0.9))


def test_another_number_of_ranks_goes_on_from_the_mean_of_the_running_averages() -> None:
    """Saved by three ranks, whose averages are 0, 1 and 2 above those of rank 0."""
    state = _state_after_one_step()
    before = {name: tensor.clone() for name, tensor in state.running_averages().items()}
    saved = {name: tensor.clone() for name, tensor in state.tensors(Ranks()).items()}
    saved |= {f"rank{rank}.{name}": tensor + rank for rank in range(3) for name, tensor in before.items()}
    state.restore(saved, state.record(Ranks()) | {"ranks": 3}, Ranks())
    for name, tensor in state.running_averages().items():
        torch.testing.assert_close(tensor, before[name] + 1)


@pytest.mark.parametrize(("value", "finite"), [(0.0, True), (3e38, True), (-math.inf, False), (math.nan, False)])
def test_any_number_of_the_state_that_is_not_finite_is_found(value: float, finite: bool) -> None:
    """Large finite numbers pass, although their squares overflow."""
    state = _state_after_one_step()
    parameter = next(iter(state.model.parameters()))
    for tensor in (
        parameter,
        state.optimizer.state[parameter]["exp_avg"],
        next(iter(state.running_averages().values())),
    ):
        kept = tensor.detach().clone()
        with torch.no_grad():
            tensor.fill_(value)
        assert state.finite() is finite
        with torch.no_grad():
            tensor.copy_(kept)
    assert state.finite()
