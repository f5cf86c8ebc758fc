"""TrivialAugment Wide against torchvision's: each operation at many strengths, and the distribution of the draws."""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import TrivialAugmentWide

from experiments.data.augment import trivialaugment
from experiments.data.augment.normalise import Augmenter
from experiments.data.augment.operations import augment
from experiments.data.augment.randaugment import OPERATIONS, Draws, draw, parse_policy
from experiments.data.augment.trivialaugment import ARGUMENTS, BINS
from tests.experiments.data.augment.test_operations import LEVEL, SHARE, images_of
from tests.experiments.data.sources import settings_for

pytestmark = pytest.mark.numeric

BLACK = (0, 0, 0)
WITHOUT_ARGUMENT = ("identity", "auto_contrast", "equalize")


def _moved(x: float = 0, y: float = 0, shear_x: float = 0, shear_y: float = 0) -> Callable[..., Image.Image]:
    shear = [math.degrees(math.atan(shear_x)), math.degrees(math.atan(shear_y))]
    return lambda image, **how: reference.affine(image, 0.0, [round(x), round(y)], 1.0, shear, center=[0, 0], **how)


# ours -> torchvision's functional operation, for our argument and the image's side
TORCHVISION: dict[str, Callable[[float, int], Callable[..., Image.Image]]] = {
    "shear_x": lambda a, _: _moved(shear_x=a),
    "shear_y": lambda a, _: _moved(shear_y=a),
    "translate_x": lambda a, size: _moved(x=-a * size),
    "translate_y": lambda a, size: _moved(y=-a * size),
    "rotate": lambda a, _: lambda image, **how: reference.rotate(image, a, **how),
    "brightness": lambda a, _: lambda image, **how: reference.adjust_brightness(image, a),
    "color": lambda a, _: lambda image, **how: reference.adjust_saturation(image, a),
    "contrast": lambda a, _: lambda image, **how: reference.adjust_contrast(image, a),
    "sharpness": lambda a, _: lambda image, **how: reference.adjust_sharpness(image, a),
    "posterize": lambda a, _: lambda image, **how: reference.posterize(image, int(a)),
    "solarize": lambda a, _: lambda image, **how: reference.solarize(image, a),
    "auto_contrast": lambda *_: lambda image, **how: reference.autocontrast(image),
    "equalize": lambda *_: lambda image, **how: reference.equalize(image),
}


def arguments_of(name: str, size: int) -> np.ndarray:
    """Every argument of an operation, of either sign."""
    return np.ravel(ARGUMENTS[name](size))


@pytest.mark.parametrize("size", [32, 57])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("name", TORCHVISION)
def test_operation_agrees_with_torchvision_to_one_grey_level(name: str, interpolation: str, size: int) -> None:
    arguments = arguments_of(name, size)
    pixels = images_of(len(arguments), size)
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    draws = Draws(np.full((len(arguments), 1), OPERATIONS.index(name)), arguments[:, None])
    ours = augment(batch, draws, interpolation, BLACK).permute(0, 2, 3, 1).numpy()
    how: dict[str, Any] = {"interpolation": InterpolationMode(interpolation), "fill": [0, 0, 0]}
    theirs = [
        np.asarray(TORCHVISION[name](a, size)(Image.fromarray(p), **how))
        for a, p in zip(arguments, pixels, strict=True)
    ]
    difference = np.abs(ours.astype(int) - np.stack(theirs))
    assert difference.max() <= LEVEL and (difference > 0).mean() <= SHARE
    assert (ours != pixels).mean() > 0.1  # it did something


class Recorded(TrivialAugmentWide):
    """torchvision's transform, which notes what it would do instead of doing it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[float]] = defaultdict(list)

    def _apply_image_or_video_transform(self, image: Any, transform_id: str, magnitude: float, **_: Any) -> Any:
        self.seen[transform_id].append(magnitude)
        return image


def in_our_terms(name: str, magnitude: float, size: int) -> float:
    """Our argument for a strength as torchvision's transform hands it to its operation."""
    if name.startswith("translate"):
        return int(magnitude) / size
    if name in ("brightness", "color", "contrast", "sharpness"):
        return 1 + magnitude
    if name == "solarize":
        return 255 * magnitude
    return int(magnitude) if name == "posterize" else magnitude


def test_draws_are_distributed_as_torchvisions() -> None:
    """Operations and strengths are the same and as frequent, to five standard deviations of counting."""
    count, size = 40_000, 45
    torch.manual_seed(1)
    transform, image = Recorded(), Image.new("RGB", (size, size))
    for _ in range(count):
        transform(image)
    theirs = {name.lower(): values for name, values in transform.seen.items()}
    assert set(theirs) == {name.replace("_", "") for name in ARGUMENTS}
    draws = trivialaugment.draw((0, 0), np.arange(count), size)
    expected = count / len(ARGUMENTS)
    for name in ARGUMENTS:
        number = OPERATIONS.index(name) if name in OPERATIONS else -1
        ours = draws.argument[draws.operation == number]
        there = np.array([in_our_terms(name, value, size) for value in theirs[name.replace("_", "")]])
        assert max(abs(len(ours) - expected), abs(len(there) - expected)) < 5 * expected**0.5, name
        if name in WITHOUT_ARGUMENT:
            continue
        frequencies = [np.unique(values.round(4) + 0.0, return_counts=True) for values in (ours, there)]
        exact = 1.01 / size if name.startswith("translate") else 2e-4  # torch's 16 may be 15.9999, and cut to 15
        np.testing.assert_allclose(frequencies[0][0], frequencies[1][0], atol=exact, err_msg=name)
        for _, counts in frequencies:
            assert counts.sum() == pytest.approx(expected, rel=0.1) and counts.min() >= expected / (2 * BINS) / 2
        difference = np.abs(frequencies[0][1] - frequencies[1][1])
        assert (difference < 5 * (frequencies[0][1] + frequencies[1][1]) ** 0.5).all(), name


def test_draws_depend_on_seed_epoch_and_sample_alone() -> None:
    samples = np.array([5, 0, 123456789, 2])
    together = trivialaugment.draw((3, 4), samples, 32)
    for row, sample in enumerate(samples):
        alone = trivialaugment.draw((3, 4), np.array([sample]), 32)
        assert alone.operation[0] == together.operation[row] and alone.argument[0] == together.argument[row]
    many = np.arange(500)
    for keys in ((4, 4), (3, 5)):
        other, one = trivialaugment.draw(keys, many, 32), trivialaugment.draw((3, 4), many, 32)
        assert (other.operation != one.operation).mean() > 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_comes_first_where_both_are_on(channels: int) -> None:
    policy, samples = "rand-m9-n2", np.arange(64)
    recipe = {"randaugment": policy, "trivial_augment": True, "interpolation": "bilinear"}
    settings = settings_for(recipe=recipe)
    pixels = torch.from_numpy(images_of(64, 32, channels)).permute(0, 3, 1, 2).contiguous()
    found = Augmenter(settings.data, settings.recipe, 7)(pixels.clone(), 3, samples)
    by_hand = augment(pixels.clone(), draw(parse_policy(policy), (7, 3), samples), "bilinear", (128, 128, 128))
    first = by_hand.clone()
    by_hand = augment(by_hand, trivialaugment.draw((7, 3), samples, 32), "bilinear", BLACK)
    assert torch.equal(found, by_hand) and not torch.equal(first, by_hand)
