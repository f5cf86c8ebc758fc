"""The training losses. Evaluation always scores by cross-entropy without smoothing."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.config.settings import Recipe


class Loss(NamedTuple):
    """A value of recipe.loss.

    `of` maps logits (B, classes), targets and label smoothing to their mean loss, 0-d in fp32. Targets are class
    indices (B,), or probabilities (B, classes) from `Mixing`, which are smoothed already. `guessing` is the least that
    the same answer to every image costs where all classes are as frequent, whatever is smoothed or mixed.
    """

    of: Callable[[Tensor, Tensor, float], Tensor]
    guessing: Callable[[int], float]


def smoothed(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """(B, classes) probabilities of class indices (B,): `smoothing` is spread evenly over all classes."""
    off = smoothing / classes
    hot = torch.full((len(labels), classes), off, device=labels.device)
    return hot.scatter_(1, labels.view(-1, 1), 1.0 - smoothing + off)


def _cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return F.cross_entropy(logits.float(), targets, label_smoothing=0.0 if targets.ndim == 2 else smoothing)


def _binary_cross_entropy(
    logits: Tensor, targets: Tensor, smoothing: float, *, threshold: float | None = None, classes_summed: bool = False
) -> Tensor:
    if targets.ndim == 1:
        targets = smoothed(targets, logits.shape[1], smoothing)
    if threshold is not None:
        targets = (targets > threshold).float()
    loss = F.binary_cross_entropy_with_logits(logits.float(), targets)
    return loss * logits.shape[1] if classes_summed else loss


def _entropy_of_one_class(classes: int) -> float:
    """Of a coin that shows one of `classes` classes, in nats."""
    share = 1 / classes
    return -share * math.log(share) - (1 - share) * math.log(1 - share)


CROSS_ENTROPY = Loss(_cross_entropy, math.log)


def cross_entropy(recipe: Recipe) -> Loss:
    """The mean over images."""
    return CROSS_ENTROPY


def binary_cross_entropy(recipe: Recipe) -> Loss:
    """Each class a question of its own ("ResNet strikes back", arXiv 2110.00476).

    The mean over images and classes, or with `recipe.bce_sum` the sum over classes; with `recipe.bce_target_thresh` a
    class is there (1) where its smoothed and mixed target is above, else not (0).
    """
    of = partial(_binary_cross_entropy, threshold=recipe.bce_target_thresh, classes_summed=recipe.bce_sum)
    return Loss(of, lambda classes: _entropy_of_one_class(classes) * (classes if recipe.bce_sum else 1))
