"""timm's optimizers, by the names that `timm.optim.create_optimizer_v2` knows them by."""

from torch.optim import Optimizer

from experiments.config.registry import OPTIMIZERS
from experiments.config.settings import Recipe
from experiments.errors import ConfigError


def build(groups: list[dict], recipe: Recipe, peak: float) -> Optimizer:
    """`recipe.optimizer` with the keys that it reads and the arguments of `recipe.opt`.

    It has no fused form: with fp16 the loss scaler asks the host whether a step overflowed.

    Raises:
        ConfigError: the installed timm lacks it.
    """
    import timm  # takes seconds
    from timm.optim import create_optimizer_v2, list_optimizers

    name = recipe.optimizer
    if name not in list_optimizers():
        raise ConfigError(f"recipe.optimizer={name} needs a newer timm; timm {timm.__version__} does not have it")
    arguments = {key: getattr(recipe, key) for key in OPTIMIZERS[name].reads} | dict(recipe.opt)
    built: Optimizer = create_optimizer_v2(groups, opt=name, lr=peak, **arguments)
    return built
