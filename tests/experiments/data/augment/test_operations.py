"""Batched RandAugment against timm's and Pillow's operations, one by one and as a whole policy."""

import random

import numpy as np
import pytest
import timm.data.auto_augment as reference
import torch
from PIL import Image

from experiments.data.augment.operations import KINDS, augment
from experiments.data.augment.randaugment import OPERATIONS, Draws, draw, parse_policy
from experiments.errors import ConfigError
from tests.experiments.data.sources import photograph

pytestmark = pytest.mark.numeric

PAPER = "rand-m9-mstd0.5-inc1"
FILL = (124, 116, 104)
LEVEL = 1  # largest difference from Pillow, in grey levels
SHARE = 0.004  # largest share of pixels that differ at all
TIMM = {  # ours -> timm's name without and with "increasing"
    "auto_contrast": ("AutoContrast",) * 2,
    "equalize": ("Equalize",) * 2,
    "invert": ("Invert",) * 2,
    "rotate": ("Rotate",) * 2,
    "posterize": ("Posterize", "PosterizeIncreasing"),
    "solarize": ("Solarize", "SolarizeIncreasing"),
    "solarize_add": ("SolarizeAdd",) * 2,
    "color": ("Color", "ColorIncreasing"),
    "contrast": ("Contrast", "ContrastIncreasing"),
    "brightness": ("Brightness", "BrightnessIncreasing"),
    "sharpness": ("Sharpness", "SharpnessIncreasing"),
    "shear_x": ("ShearX",) * 2,
    "shear_y": ("ShearY",) * 2,
    "translate_x": ("TranslateXRel",) * 2,
    "translate_y": ("TranslateYRel",) * 2,
}
WHOLE = ("posterize", "solarize", "solarize_add")
WITHOUT_ARGUMENT = ("auto_contrast", "equalize", "invert")


def images_of(count: int, size: int, channels: int = 3) -> np.ndarray:
    """Photographs, noise, a flat image and one of two values: the cases in which histograms and rounding differ."""
    generator = np.random.default_rng(size)
    out = [photograph(i, size, size) for i in range(count)]
    out[0] = generator.integers(0, 256, out[0].shape)
    out[1] = np.full_like(out[1], 37)
    out[2] = np.where(generator.random(out[2].shape) < 0.3, 12, 200)
    return np.stack(out).astype(np.uint8)[..., :channels]


def applied_by_timm(name: str, argument: float, pixels: np.ndarray, interpolation: str) -> np.ndarray:
    resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation]
    function = reference.NAME_TO_OP[TIMM[name][1]]
    arguments = () if name in WITHOUT_ARGUMENT else (int(argument) if name in WHOLE else float(argument),)
    image = Image.fromarray(pixels.squeeze())
    fill = FILL if image.mode == "RGB" else FILL[0]
    out = np.asarray(function(image, *arguments, fillcolor=fill, resample=resample))
    return out.reshape(pixels.shape)


def applied_by_us(pixels: np.ndarray, draws: Draws, interpolation: str) -> np.ndarray:
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return augment(batch, draws, interpolation, FILL).permute(0, 2, 3, 1).numpy()


def arguments_of(name: str, count: int) -> np.ndarray:
    """Arguments over the whole range: many of the paper's policy and some at every magnitude."""
    draws = [draw(parse_policy(policy), (0, 0), np.arange(6000)) for policy in (PAPER, "rand-m10-mstd101-inc1")]
    here = [part.argument[part.operation == OPERATIONS.index(name)] for part in draws]
    return np.concatenate([values[: count // 2] for values in here])


@pytest.mark.parametrize("size", [32, 57])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_agrees_with_timm_to_one_grey_level(name, interpolation, size):
    count = 48
    pixels, arguments = images_of(count, size), arguments_of(name, count)
    draws = Draws(np.full((count, 1), OPERATIONS.index(name)), arguments[:, None])
    ours = applied_by_us(pixels, draws, interpolation)
    theirs = np.stack([applied_by_timm(name, a, p, interpolation) for a, p in zip(arguments, pixels, strict=True)])
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= LEVEL and (difference > 0).mean() <= SHARE
    if name not in WITHOUT_ARGUMENT:
        assert (ours != pixels).mean() > 0.2  # it did something


@pytest.mark.parametrize("channels", [1, 3])
def test_a_whole_policy_agrees_with_timms_operations_on_the_same_draws(channels):
    count = 200
    pixels = images_of(count, 40, channels)
    draws = draw(parse_policy(PAPER), (3, 5), np.arange(count))
    if channels == 1:  # timm calls colour on grey images too; Pillow leaves them as they are
        assert (draws.operation == OPERATIONS.index("color")).any()
    theirs = pixels.copy()
    for layer in range(2):
        for i, number in enumerate(draws.operation[:, layer]):
            if number >= 0:
                theirs[i] = applied_by_timm(OPERATIONS[number], draws.argument[i, layer], theirs[i], "bicubic")
    difference = np.abs(applied_by_us(pixels, draws, "bicubic").astype(int) - theirs)
    # a second operation can enlarge a difference of one level: solarize and equalize have steps
    assert (difference > 1).mean() < 2e-3 and (difference > 0).mean() < 0.02
    assert not np.array_equal(theirs, pixels)


def test_grey_images_give_what_three_equal_channels_give():
    count = 128
    grey = images_of(count, 32, 1)
    draws = draw(parse_policy(PAPER), (0, 0), np.arange(count))
    one = augment(torch.from_numpy(grey).permute(0, 3, 1, 2).contiguous(), draws, "bicubic", (90, 90, 90))
    coloured = torch.from_numpy(np.repeat(grey, 3, axis=3)).permute(0, 3, 1, 2).contiguous()
    three = augment(coloured, draws, "bicubic", (90, 90, 90))
    assert (one.expand_as(three).int() - three.int()).abs().max() <= 1


def test_an_image_does_not_depend_on_the_others_in_its_batch():
    count = 96
    pixels = images_of(count, 32)
    draws = draw(parse_policy(PAPER), (1, 1), np.arange(count))
    together = applied_by_us(pixels.copy(), draws, "bicubic")
    for part in (slice(0, 7), slice(50, 51), slice(60, 96)):
        alone = applied_by_us(pixels[part].copy(), Draws(draws.operation[part], draws.argument[part]), "bicubic")
        np.testing.assert_array_equal(alone, together[part])


def test_every_operation_has_exactly_one_kind():
    assert sorted(name for _, names in KINDS for name in names) == sorted(OPERATIONS)


def drawn_by_timm(policy: str, count: int) -> dict[str, list[float | None]]:
    """What timm's RandAugment does to `count` images: operation -> its arguments."""
    random.seed(1)
    np.random.seed(1)
    seen: dict[str, list[float | None]] = {}
    transform = reference.rand_augment_transform(policy, {"img_mean": FILL})
    for op in transform.ops:
        op.aug_fn = lambda image, *a, name=op.name, **_: (seen.setdefault(name, []).append(a[0] if a else None), image)[
            1
        ]
    image = Image.new("RGB", (4, 4))
    for _ in range(count):
        transform(image)
    return seen


@pytest.mark.parametrize("policy", [PAPER, "rand-m5-n3-p0.8", "rand-m6-mstd101-inc1"])
def test_draws_are_distributed_as_timms(policy):
    count = 20_000
    parsed = parse_policy(policy)
    ours = draw(parsed, (0, 0), np.arange(count))
    theirs = drawn_by_timm(policy, count)
    expected = count * parsed.layers * parsed.probability / len(OPERATIONS)
    for number, name in enumerate(OPERATIONS):
        here = ours.argument[ours.operation == number]
        there = theirs[TIMM[name][parsed.increasing]]
        assert abs(len(here) - expected) < 5 * expected**0.5 and abs(len(there) - expected) < 5 * expected**0.5
        if name in WITHOUT_ARGUMENT:
            continue
        values = np.array(there, dtype=float)
        if name == "posterize":
            values = np.maximum(values, 1)  # the documented exception
        spread = max(values.std(), 1e-9)
        assert abs(here.mean() - values.mean()) < 0.12 * spread + 1e-9, name
        np.testing.assert_allclose(
            np.quantile(here, [0.1, 0.3, 0.7, 0.9]),
            np.quantile(values, [0.1, 0.3, 0.7, 0.9]),
            atol=0.25 * spread + 1e-9,
        )


def test_twenty_thousand_images_without_an_error_and_no_posterize_without_bits():
    policy = parse_policy(PAPER)
    pixels = torch.from_numpy(np.stack([photograph(i, 12, 12) for i in range(500)])).permute(0, 3, 1, 2).contiguous()
    for block in range(40):
        draws = draw(policy, (0, block), np.arange(500))
        bits = draws.argument[draws.operation == OPERATIONS.index("posterize")]
        assert ((bits >= 1) & (bits <= 4)).all()
        augment(pixels.clone(), draws, "bicubic", FILL)


def test_the_black_image_that_zero_bits_would_make_exists():
    """The exception is needed: at magnitude 10 timm asks for zero bits."""
    assert min(value for value in drawn_by_timm(PAPER, 5000)["PosterizeIncreasing"] if value is not None) == 0


@pytest.mark.parametrize("text", ["rand-m9-q3", "auto-m9", "rand-mstd", "rand-m9-n1.5", "rand-p2", "rand-t3aw", ""])
def test_unknown_notation_is_refused_in_one_line(text):
    with pytest.raises(ConfigError, match=r"recipe\.randaugment=") as caught:
        parse_policy(text)
    assert "\n" not in str(caught.value)
