"""RandAugment's policy (arXiv 1909.13719) in timm's notation, drawn for a whole batch without torch.

`rand-m9-mstd0.5-inc1` reads: two layers, each of which applies one of 15 operations with probability 0.5 at a magnitude
drawn from N(9, 0.5), clipped to 0..10; `inc1` chooses the variants that grow with the magnitude. timm's
`rand_augment_transform` is the reference for the distribution, with one exception: posterize keeps at least one bit,
since zero bits make a black image (and are refused by newer versions of Pillow).
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from experiments.errors import ConfigError
from experiments.randomness import derive, normals, uniforms

OPERATIONS = (
    "auto_contrast",
    "equalize",
    "invert",
    "rotate",  # degrees, counter-clockwise
    "posterize",  # bits to keep
    "solarize",  # threshold
    "solarize_add",  # added below 128
    "color",  # enhancement factors: 1 leaves the image as it is
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",  # factor
    "translate_x",  # share of the image's side
    "shear_y",
    "translate_y",
)
_FORMAT = "rand-m9-mstd0.5-inc1 (m magnitude, n layers, p probability, mstd, mmax, inc)"


@dataclass(frozen=True)
class Policy:
    """A parsed RandAugment string; the defaults are timm's."""

    magnitude: float = 10.0
    layers: int = 2
    probability: float = 0.5
    magnitude_std: float = 0.0  # above 100: uniform in 0..magnitude
    magnitude_max: float = 10.0
    increasing: bool = False


class Draws(NamedTuple):
    """What happens to B images: the operation's number in OPERATIONS or -1, and its argument; both (B, layers)."""

    operation: np.ndarray
    argument: np.ndarray


def parse_policy(text: str) -> Policy:
    """Read timm's notation; ConfigError where a part is unknown."""
    fields = {"m": "magnitude", "n": "layers", "p": "probability", "mstd": "magnitude_std", "mmax": "magnitude_max"}
    head, *parts = text.split("-")
    values: dict[str, float | int | bool] = {}
    for part in parts:
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?|inf)", part)
        if match is None or (match[1] not in fields and match[1] != "inc"):
            raise ConfigError(f"recipe.randaugment={text!r}: unknown part {part!r}; expected e.g. {_FORMAT}")
        if match[1] == "inc":
            values["increasing"] = float(match[2]) > 0
        else:
            values[fields[match[1]]] = int(match[2]) if match[1] == "n" and match[2].isdigit() else float(match[2])
    policy = Policy(**values)  # type: ignore[arg-type]
    if head != "rand" or not isinstance(policy.layers, int) or not 0 <= policy.probability <= 1:
        raise ConfigError(f"recipe.randaugment={text!r} is not of the form {_FORMAT}")
    return policy


def draw(policy: Policy, keys: tuple[int, int], samples: np.ndarray) -> Draws:
    """Operations and arguments for the images `samples` (B,) in one epoch; `keys` = (run's seed, epoch)."""
    columns = 5  # operation, whether it is applied, two for the magnitude, sign
    u = uniforms(derive("randaugment", *keys), samples, columns * policy.layers).reshape(len(samples), -1, columns)
    operation = np.floor(u[..., 0] * len(OPERATIONS)).astype(np.int64)
    if policy.magnitude_std > 100:
        magnitude = policy.magnitude * u[..., 2]
    else:
        magnitude = policy.magnitude + policy.magnitude_std * normals(u[..., 2:4])
    level = np.clip(magnitude, 0, policy.magnitude_max) / 10
    sign = np.where(u[..., 4] < 0.5, -1.0, 1.0)
    argument = np.zeros_like(level)
    for number, name in enumerate(OPERATIONS):
        here = operation == number
        argument[here] = argument_of(name, policy.increasing, level[here], sign[here])
    return Draws(np.where(u[..., 1] < policy.probability, operation, -1), argument)


def argument_of(name: str, increasing: bool, level: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """The operation's argument for a level in 0..1 (above 1 where mmax allows it), as timm maps it."""
    if name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y"):
        largest = {"rotate": 30.0, "shear_x": 0.3, "shear_y": 0.3}.get(name, 0.45)
        return level * largest * sign
    if name in ("color", "contrast", "brightness", "sharpness"):
        return np.maximum(0.1, 1 + 0.9 * level * sign) if increasing else 1.8 * level + 0.1
    if name == "posterize":
        bits = np.floor(level * 4)
        return np.maximum(4 - bits if increasing else bits, 1)
    if name == "solarize":
        threshold = np.minimum(256, np.floor(level * 256))
        return 256 - threshold if increasing else threshold
    if name == "solarize_add":
        return np.minimum(128, np.floor(level * 110))
    return np.zeros_like(level)
