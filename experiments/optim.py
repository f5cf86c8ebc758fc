"""Parameter groups and optimizers."""

import torch
from torch import nn

from experiments.settings import Recipe


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """The trainable parameters as one group that weight decay reaches and one that it does not.

    Biases, norm weights and layer scale are the parameters with one dimension; they go without decay unless
    `recipe.decay_all` (paper, Appendix A.1, against torchvision's recipe).
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in parameters if recipe.decay_all or parameter.ndim > 1]
    free = [parameter for parameter in parameters if not (recipe.decay_all or parameter.ndim > 1)]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _adamw(groups: list[dict], recipe: Recipe, peak: float) -> torch.optim.Optimizer:
    first, second = recipe.betas
    return torch.optim.AdamW(groups, lr=peak, betas=(first, second), fused=True)


def _sgd(groups: list[dict], recipe: Recipe, peak: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=peak, momentum=recipe.momentum, fused=True)


_OPTIMIZERS = {"adamw": _adamw, "sgd": _sgd}


def build_optimizer(model: nn.Module, recipe: Recipe, peak: float) -> torch.optim.Optimizer:
    """The recipe's optimizer in its fused form, which skips an overflowed fp16 step without asking the host."""
    return _OPTIMIZERS[recipe.optimizer](parameter_groups(model, recipe), recipe, peak)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the rate of the coming step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
