"""AutoAugment's policies (arXiv 1805.09501) by timm's names, drawn for a whole batch.

`original-mstd0.5` reads: each image gets one of the 25 pairs of operations of the policy `original`, each with its own
probability and at its own magnitude, which is spread by N(0, 0.5) and clipped to 0..10. The pairs are timm's, which is
the reference for the distribution too, with RandAugment's exception: posterize keeps at least one bit.
"""

import re
from typing import NamedTuple

import numpy as np

from experiments.data.augment.randaugment import OPERATIONS, Draws, argument_of
from experiments.randomness import derive, normals, uniforms

COLUMNS = 4  # whether it is applied, two for the magnitude, sign
# timm's name, where it is not ours in capitals -> ours
_NAMES = {"TranslateXRel": "translate_x", "TranslateYRel": "translate_y"}


class Policy(NamedTuple):
    """The pairs of a policy as tables (pairs, 2), and the spread of all magnitudes."""

    names: np.ndarray  # timm's
    probability: np.ndarray
    magnitude: np.ndarray
    spread: float


def parse_policy(text: str) -> Policy:
    """Read a notation that `recipe.auto_augment` allows; imports timm."""
    from timm.data.auto_augment import auto_augment_policy

    name, _, spread = text.partition("-mstd")
    pairs = auto_augment_policy(name)
    names, probability, magnitude = (
        np.array([[getattr(op, key) for op in pair] for pair in pairs]) for key in ("name", "prob", "magnitude")
    )
    return Policy(names, probability, magnitude, float(spread or 0))


def draw(policy: Policy, keys: tuple[int, int], samples: np.ndarray) -> Draws:
    """Operations and arguments, (B, 2), for the images `samples` (B,) in one epoch; `keys` = (run's seed, epoch)."""
    pairs, layers = policy.names.shape
    u = uniforms(derive("autoaugment", *keys), samples, 1 + COLUMNS * layers)
    chosen = np.floor(u[:, 0] * pairs).astype(np.int64)
    u = u[:, 1:].reshape(len(samples), layers, COLUMNS)
    level = np.clip(policy.magnitude[chosen] + policy.spread * normals(u[..., 1:3]), 0, 10) / 10
    sign = np.where(u[..., 3] < 0.5, -1.0, 1.0)
    names = policy.names[chosen]
    operation, argument = np.zeros_like(chosen, shape=names.shape), np.zeros_like(level)
    for name in np.unique(names):
        here = names == name
        ours = _ours(name)
        operation[here] = OPERATIONS.index(ours)
        if name == "PosterizeOriginal":
            argument[here] = np.floor(level[here] * 4) + 4
        else:
            argument[here] = argument_of(ours, name.endswith("Increasing"), level[here], sign[here])
    return Draws(np.where(u[..., 0] < policy.probability[chosen], operation, -1), argument)


def _ours(name: str) -> str:
    """ShearX -> shear_x, PosterizeOriginal -> posterize."""
    plain = re.sub("(Original|Increasing)$", "", name)
    return _NAMES.get(name) or re.sub("(?<=[a-z])([A-Z])", r"_\1", plain).lower()
