"""The learning rate of every optimizer step, as a pure function: nothing to save, nothing to restore."""

import math

from experiments.settings import Recipe


def learning_rate(recipe: Recipe, peak: float, step: int, steps_per_epoch: int) -> float:
    """Learning rate of optimizer step `step` (counted from 0 over the whole run).

    Warm-up is linear from 0 and reaches `peak` after `warmup_epochs`; then `cosine` falls to `min_lr` at the end of the
    run, `steps` multiplies by `decay_factor` every `decay_every` epochs (counted from the start of the run) and
    `constant` stays (paper, Table 5; torchvision's 90-epoch recipe).
    """
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return peak * step / warmup
    return _AFTER_WARMUP[recipe.schedule](recipe, peak, step, warmup, steps_per_epoch)


def _cosine(recipe: Recipe, peak: float, step: int, warmup: int, steps_per_epoch: int) -> float:
    share = (step - warmup) / max(1, recipe.epochs * steps_per_epoch - warmup)
    return recipe.min_lr + 0.5 * (peak - recipe.min_lr) * (1 + math.cos(math.pi * min(1.0, share)))


def _steps(recipe: Recipe, peak: float, step: int, warmup: int, steps_per_epoch: int) -> float:
    return peak * recipe.decay_factor ** (step // steps_per_epoch // recipe.decay_every)


def _constant(recipe: Recipe, peak: float, step: int, warmup: int, steps_per_epoch: int) -> float:
    return peak


_AFTER_WARMUP = {"cosine": _cosine, "steps": _steps, "constant": _constant}
