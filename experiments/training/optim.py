"""Parameter groups, optimizers, and the learning rate of every step as a pure function: nothing to save or restore."""

import inspect
import math
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import nn
from torch.optim import Optimizer

from experiments.config.registry import OPTIMIZERS, SCHEDULES
from experiments.config.settings import Recipe
from experiments.errors import ConfigError
from roadmap.network import RoadmapNet

Kind = TypeVar("Kind", bound=Optimizer)
LAMB_SINCE = (1, 0, 31)  # counts its steps in a tensor, which checkpoints hold
GUARDED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")  # against being compiled


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """The trainable parameters as one group that weight decay reaches and one that it does not, or so many per layer.

    Biases, norm weights and layer scale are the parameters with one dimension; they go without decay unless
    `recipe.decay_all` (paper, Appendix A.1, against torchvision's recipe). With `recipe.layer_decay` each layer has
    groups of its own, whose rate is `lr_scale` times the schedule's (paper, Appendix A.2).
    """
    scales = _rate_scales(cast(RoadmapNet, model), recipe.layer_decay) if recipe.layer_decay < 1 else {}
    groups: dict[tuple[float, bool], dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decayed, scale = recipe.decay_all or parameter.ndim > 1, scales.get(name, 1.0)
        own = {"params": [], "weight_decay": recipe.weight_decay if decayed else 0.0}
        if scales:
            own["lr_scale"] = scale
        groups.setdefault((scale, not decayed), own)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def _rate_scales(model: RoadmapNet, decay: float) -> dict[str, float]:
    """Parameter -> its rate over the head's: a layer is the stem, a block, or the head."""
    names = [name for name, _ in model.named_parameters()]
    layers = model.layers()
    of = {name: next(i for i, starts in enumerate(layers) if name.startswith(starts)) for name in names}
    return {name: decay ** (len(layers) - 1 - layer) for name, layer in of.items()}


def adamw(groups: list[dict], recipe: Recipe, peak: float) -> Optimizer:
    """AdamW (arXiv 1711.05101), in its fused form."""
    first, second = recipe.betas
    return _spared(torch.optim.AdamW)(groups, lr=peak, betas=(first, second), fused=True, **recipe.opt)


def lamb(groups: list[dict], recipe: Recipe, peak: float) -> Optimizer:
    """LAMB (arXiv 1904.00962) as timm has it, but for the clipping of gradients, which is `recipe.clip_grad`'s.

    It has no fused form: with fp16 the loss scaler asks the host whether a step overflowed.
    """
    import timm  # takes seconds
    from timm.optim import Lamb

    if tuple(map(int, timm.__version__.split(".")[:3])) < LAMB_SINCE:
        needed = ".".join(map(str, LAMB_SINCE))
        raise ConfigError(f"recipe.optimizer=lamb needs timm {needed} or newer, here is {timm.__version__}")
    first, second = recipe.betas
    return _spared(Lamb)(groups, lr=peak, betas=(first, second), max_grad_norm=None, **recipe.opt)


def sgd(groups: list[dict], recipe: Recipe, peak: float) -> Optimizer:
    """SGD with momentum, in its fused form."""
    optimizer = _spared(torch.optim.SGD)(groups, lr=peak, momentum=recipe.momentum, fused=True, **recipe.opt)
    if recipe.momentum:
        # torch would create them uninitialised in the first step and, where the loss scaler skips it, go on with that.
        for parameter in (parameter for group in groups for parameter in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def build_optimizer(model: nn.Module, recipe: Recipe, peak: float) -> Optimizer:
    """The recipe's optimizer, where there is a fused form in that: it skips an overflowed fp16 step by itself.

    Raises:
        ConfigError: it refuses a value of `recipe.opt`, or the installed version of its package lacks it.
    """
    make = OPTIMIZERS[recipe.optimizer].load()
    if recipe.opt:
        _try_out(make, recipe, peak)
    built: Optimizer = make(parameter_groups(model, recipe), recipe, peak)
    return built


def _try_out(make: Callable[..., Optimizer], recipe: Recipe, peak: float) -> None:
    """Make a step on a small matrix: some optimizers look at their arguments only then."""
    matrix = nn.Parameter(torch.ones(32, 32))
    matrix.grad = torch.ones_like(matrix)
    try:
        make([{"params": [matrix], "weight_decay": recipe.weight_decay}], recipe, peak).step()
    except ConfigError:
        raise
    except Exception as error:  # whatever another package raises for a value that it cannot use
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"recipe.opt={dict(recipe.opt)}: {recipe.optimizer} refuses this: {reason}") from None


def _spared(kind: type[Kind]) -> type[Kind]:
    """The same optimizer, which does not import torch's compiler: a second and more of every start.

    torch's optimizers import it only to tell it to leave them alone, in `step` and in the methods of GUARDED, unless
    these find the answer on the function. We compile networks, never an optimizer. Where torch does it in another way,
    this changes nothing.
    """
    for name in GUARDED:
        method = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if method is not None and not hasattr(method, "__dynamo_disable"):
            setattr(method, "__dynamo_disable", method)
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return cast(type[Kind], type(kind.__name__, (kind,), {"step": step}))


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every parameter group the rate of the coming step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def learning_rate(recipe: Recipe, peak: float, step: int, steps_per_epoch: int) -> float:
    """Learning rate of optimizer step `step` (counted from 0 over the whole run).

    Warm-up is linear from 0 and reaches `peak` after `warmup_epochs`; then `cosine` falls to `min_lr` at the end of the
    run, `steps` multiplies by `decay_factor` every `decay_every` epochs (counted from the start of the run) and
    `constant` stays (paper, Table 5; torchvision's 90-epoch recipe).
    """
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return peak * step / warmup
    after: float = SCHEDULES[recipe.schedule].load()(recipe, peak, step, warmup, steps_per_epoch)
    return after


def cosine(recipe: Recipe, peak: float, step: int, warmup: int, steps_per_epoch: int) -> float:
    """From `peak` to `min_lr` along half a cosine, which ends with the run."""
    share = (step - warmup) / max(1, recipe.epochs * steps_per_epoch - warmup)
    return recipe.min_lr + 0.5 * (peak - recipe.min_lr) * (1 + math.cos(math.pi * min(1.0, share)))


def steps(recipe: Recipe, peak: float, step: int, warmup: int, steps_per_epoch: int) -> float:
    """A drop by `decay_factor` every `decay_every` epochs, counted from the start of the run."""
    return peak * recipe.decay_factor ** (step // steps_per_epoch // recipe.decay_every)


def constant(recipe: Recipe, peak: float, step: int, warmup: int, steps_per_epoch: int) -> float:
    """`peak` to the end."""
    return peak
