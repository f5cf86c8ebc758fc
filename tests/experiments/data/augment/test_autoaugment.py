"""AutoAugment's policies against timm's: the distribution of the draws, and what a batch becomes."""

import random
from collections import Counter

import numpy as np
import pytest
import timm.data.auto_augment as reference
import torch
from PIL import Image

from experiments.data.augment import autoaugment
from experiments.data.augment.normalise import Augmenter
from experiments.data.augment.operations import augment
from experiments.data.augment.randaugment import OPERATIONS, draw, parse_policy
from tests.experiments.data.augment.test_operations import WITHOUT_ARGUMENT, images_of
from tests.experiments.data.sources import settings_for

pytestmark = pytest.mark.numeric

NOTATIONS = ("original", "originalr-mstd0.5", "v0", "v0r-mstd1")
OURS = {  # timm's name -> ours
    "AutoContrast": "auto_contrast",
    "Equalize": "equalize",
    "Invert": "invert",
    "Rotate": "rotate",
    "Posterize": "posterize",
    "PosterizeIncreasing": "posterize",
    "PosterizeOriginal": "posterize",
    "Solarize": "solarize",
    "SolarizeAdd": "solarize_add",
    "Color": "color",
    "Contrast": "contrast",
    "Sharpness": "sharpness",
    "ShearX": "shear_x",
    "ShearY": "shear_y",
    "TranslateYRel": "translate_y",
}
Applied = tuple[tuple[str, float], ...]  # the operations of one image with their arguments


def by_timm(notation: str, count: int) -> list[Applied]:
    """What timm's transform does to `count` images, in our names."""
    random.seed(1)
    transform, applied = reference.auto_augment_transform(notation), []
    for pair in transform.policy:
        for op in pair:
            op.aug_fn = lambda image, *a, name=op.name, **_: (done.append((name, a[0] if a else 0.0)), image)[1]
    for _ in range(count):
        done: list[tuple[str, float]] = []
        transform(Image.new("RGB", (4, 4)))
        bits = {name: max(1, value) if OURS[name] == "posterize" else value for name, value in done}
        applied.append(tuple((OURS[name], float(bits[name] if OURS[name] == "posterize" else v)) for name, v in done))
    return applied


def by_us(notation: str, count: int) -> list[Applied]:
    draws = autoaugment.draw(autoaugment.parse_policy(notation), (0, 0), np.arange(count))
    return [
        tuple((OPERATIONS[o], float(a)) for o, a in zip(*row, strict=True) if o >= 0)
        for row in zip(draws.operation.tolist(), draws.argument.tolist(), strict=True)
    ]


@pytest.mark.parametrize("notation", NOTATIONS)
def test_draws_are_distributed_as_timms(notation: str) -> None:
    """The same pairs, as frequent to six standard deviations of counting, and with the same arguments."""
    count = 40_000
    ours, theirs = by_us(notation, count), by_timm(notation, count)
    pairs = [Counter(tuple(name for name, _ in row) for row in side) for side in (ours, theirs)]
    for names in pairs[0].keys() | pairs[1].keys():
        assert abs(pairs[0][names] - pairs[1][names]) < 6 * (pairs[0][names] + pairs[1][names]) ** 0.5 + 6, names
    for name in {*OURS.values()} - {*WITHOUT_ARGUMENT}:
        here, there = (np.array([v for row in side for n, v in row if n == name]) for side in (ours, theirs))
        if not len(here):
            continue
        if "mstd" not in notation:  # few values, all of them
            np.testing.assert_allclose(np.unique(here.round(6)), np.unique(there.round(6)))
        for one, other in ((here, there), (abs(here), abs(there))):
            deviation = (one.var() / len(one) + other.var() / len(other)) ** 0.5
            assert abs(one.mean() - other.mean()) < 5 * deviation + 1e-9, name


def test_draws_depend_on_seed_epoch_and_sample_alone() -> None:
    policy, samples = autoaugment.parse_policy("v0-mstd0.5"), np.array([5, 0, 123456789, 2])
    together = autoaugment.draw(policy, (3, 4), samples)
    for row, sample in enumerate(samples):
        alone = autoaugment.draw(policy, (3, 4), np.array([sample]))
        assert (alone.operation[0] == together.operation[row]).all()
        assert (alone.argument[0] == together.argument[row]).all()
    many = np.arange(500)
    for keys in ((4, 4), (3, 5)):
        other, one = autoaugment.draw(policy, keys, many), autoaugment.draw(policy, (3, 4), many)
        assert (other.argument != one.argument).any(1).mean() > 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_autoaugment_comes_before_randaugment_where_both_are_on(channels: int) -> None:
    samples, fill = np.arange(64), (128, 128, 128)
    recipe = {"auto_augment": "original", "randaugment": "rand-m9-n2", "interpolation": "bilinear"}
    settings = settings_for(recipe=recipe)
    pixels = torch.from_numpy(images_of(64, 32, channels)).permute(0, 3, 1, 2).contiguous()
    found = Augmenter(settings.data, settings.recipe, 7)(pixels.clone(), 3, samples)
    policy = autoaugment.parse_policy("original")
    by_hand = augment(pixels.clone(), autoaugment.draw(policy, (7, 3), samples), "bilinear", fill)
    first = by_hand.clone()
    by_hand = augment(by_hand, draw(parse_policy("rand-m9-n2"), (7, 3), samples), "bilinear", fill)
    assert torch.equal(found, by_hand) and not torch.equal(first, by_hand) and not torch.equal(first, pixels)
