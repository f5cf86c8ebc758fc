"""Crops, flips and erasing against torchvision, timm and Pillow."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import CenterCrop, InterpolationMode, RandomResizedCrop, Resize

from experiments.config.settings import Recipe, Settings
from experiments.data.augment.crops import centre_crops, draw_crops, erasing_boxes, evaluation_side, training_crops
from experiments.data.augment.normalise import Normaliser, _fill_at_once, _fill_one_by_one
from experiments.data.augment.resample import cut
from tests.experiments.data.sources import photograph, settings_for

pytestmark = pytest.mark.numeric

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
SIZES = [(32, 32), (28, 28), (64, 64), (50, 37), (30, 90)]


def windows_of(recipe: Recipe, count: int, height: int, width: int, size: int = 32):
    full = np.full(count, height), np.full(count, width)
    return training_crops(recipe, size, draw_crops(recipe, (7, 3), np.arange(count)), *full)


def cut_out(pixels: np.ndarray, crops, size: int, interpolation: str) -> np.ndarray:
    """Our crops of (B, H, W, C) as (B, size, size, C)."""
    batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))
    return cut(batch, crops, size, interpolation).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("height, width", SIZES)
def test_random_resized_crops_agree_with_pillow_to_one_grey_level(height, width, interpolation):
    """Shrinking included, so antialiasing is Pillow's."""
    count, size = 40, 32
    pixels = np.stack([photograph(i, height, width) for i in range(count)])
    crops = windows_of(Recipe(), count, height, width)
    theirs = []
    for i in range(count):
        top, left = int(crops.y.start[i]), int(crops.x.start[i])
        box = (left, top, left + int(crops.x.length[i]), top + int(crops.y.length[i]))
        image = Image.fromarray(pixels[i]).crop(box).resize((size, size), FILTERS[interpolation])
        theirs.append(np.asarray(image)[:, ::-1] if crops.flip[i] else np.asarray(image))
    difference = np.abs(cut_out(pixels, crops, size, interpolation).astype(int) - np.stack(theirs))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.02
    assert crops.flip.any() and not crops.flip.all()


@pytest.mark.parametrize("height, width", SIZES)
def test_evaluation_agrees_with_torchvisions_resize_and_centre_crop(height, width):
    pixels = np.stack([photograph(i, height, width) for i in range(4)])
    side = evaluation_side(32, 0.875)
    assert evaluation_side(224, 0.875) == 256 and side == 36
    crops = centre_crops(32, side, np.full(4, height), np.full(4, width))
    ours = cut_out(pixels, crops, 32, "bicubic")
    resize, crop = Resize(side, InterpolationMode.BICUBIC), CenterCrop(32)
    theirs = np.stack([np.asarray(crop(resize(Image.fromarray(image)))) for image in pixels])
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_crops_are_distributed_as_torchvisions():
    count, height, width = 20_000, 60, 90
    crops = windows_of(Recipe(), count, height, width)
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)])
    ours = np.stack([crops.y.start, crops.x.start, crops.y.length, crops.x.length], axis=1)
    assert (ours >= 0).all() and (ours[:, 0] + ours[:, 2] <= height).all() and (ours[:, 1] + ours[:, 3] <= width).all()
    np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), rtol=0.03, atol=0.2)
    np.testing.assert_allclose(
        np.quantile(ours, [0.05, 0.5, 0.95], axis=0), np.quantile(theirs, [0.05, 0.5, 0.95], axis=0), atol=1.5
    )
    assert abs(crops.flip.mean() - 0.5) < 0.015


@pytest.mark.parametrize("height, width", [(10, 100), (100, 10)])
def test_an_image_that_no_crop_fits_gets_the_central_one(height, width):
    recipe = Recipe(crop_scale=(0.9, 1.0))
    crops = windows_of(recipe, 50, height, width)
    longer, start = (crops.x.length, crops.x.start) if width > height else (crops.y.length, crops.y.start)
    assert (longer == 13).all() and (start == 43).all()  # 10 x 4/3, in the middle of 100


@pytest.mark.parametrize("side", [32, 28])
def test_shift_crops_move_by_at_most_the_padding_and_show_black(side):
    count, pad = 400, 4
    recipe = Recipe(crop="shift", crop_pad=pad, flip=0.0)
    pixels = np.stack([np.maximum(photograph(i % 10, side, side), 1) for i in range(count)])
    crops = windows_of(recipe, count, side, side)
    ours = cut_out(pixels, crops, 32, "bilinear")
    whole = np.stack([np.asarray(Image.fromarray(image).resize((32, 32), FILTERS["bilinear"])) for image in pixels])
    padded = np.pad(whole, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    seen = set()
    for i in range(count):
        y, x = int(crops.y.offset[i]), int(crops.x.offset[i])
        seen.add((y, x))
        expected = padded[i, y + pad : y + pad + 32, x + pad : x + pad + 32]
        assert np.abs(ours[i].astype(int) - expected).max() <= 1
    assert {y for y, _ in seen} == set(range(-pad, pad + 1)) == {x for _, x in seen}


def test_no_crop_and_no_flip_leaves_the_image_as_it_is():
    pixels = np.stack([photograph(i, 32, 32) for i in range(5)])
    crops = windows_of(Recipe(crop="none", flip=0.0), 5, 32, 32)
    np.testing.assert_array_equal(cut_out(pixels, crops, 32, "bicubic"), pixels)
    mirrored = windows_of(Recipe(crop="none", flip=1.0), 5, 32, 32)
    np.testing.assert_array_equal(cut_out(pixels, mirrored, 32, "bicubic"), pixels[:, :, ::-1])


def test_erased_boxes_are_distributed_as_timms():
    count, size = 20_000, 32
    chosen, boxes = erasing_boxes(0.25, size, (0, 0), np.arange(count))
    assert abs(len(chosen) / count - 0.25) < 0.012
    random.seed(0)
    eraser, theirs = RandomErasing(1.0, mode="pixel", device="cpu"), []
    for _ in range(4000):
        erased = (eraser(torch.full((1, size, size), 9.0)) != 9.0)[0].nonzero()
        low, high = erased.amin(0), erased.amax(0)
        theirs.append([*low.tolist(), *(high - low + 1).tolist()])
    np.testing.assert_allclose(boxes.mean(axis=0), np.mean(theirs, axis=0), rtol=0.05)
    np.testing.assert_allclose(
        np.quantile(boxes, [0.1, 0.5, 0.9], axis=0), np.quantile(theirs, [0.1, 0.5, 0.9], axis=0), atol=1.01
    )
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= size).all()


def normaliser_for(settings: Settings) -> Normaliser:
    return Normaliser(settings.data, settings.recipe.erasing, settings.seed, settings.image_size, torch.device("cpu"))


def test_erased_pixels_are_standard_normal_and_nothing_else_changes():
    count, size = 256, 32
    settings = settings_for(recipe={"randaugment": None, "erasing": 0.5})
    normaliser, samples = normaliser_for(settings), np.arange(count)
    grey = torch.full((count, 3, size, size), 128, dtype=torch.uint8)
    out = normaliser.train([grey], 4, samples)
    assert out.is_contiguous(memory_format=torch.channels_last)
    plain = normaliser.normalise([grey], len(grey))
    chosen, boxes = erasing_boxes(0.5, size, (0, 4), samples)
    erased = torch.zeros(count, size, size, dtype=torch.bool)
    for i, (top, left, height, width) in zip(chosen, boxes, strict=True):
        erased[i, top : top + height, left : left + width] = True
    assert torch.equal((out != plain).any(1), erased)
    noise = out.permute(0, 2, 3, 1)[erased]
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    again, other = normaliser.train([grey], 4, samples), normaliser.train([grey], 5, samples)
    assert torch.equal(out, again) and not torch.equal(out, other)


def test_boxes_are_filled_alike_one_by_one_and_at_once():
    generator = torch.Generator().manual_seed(0)
    noise, images = torch.randn(4000, generator=generator), torch.randn(9, 3, 24, 24, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    chosen, places = np.array([0, 3, 8]), np.array([5, 0, 4000 - 3 * 24 * 24])
    boxes = np.array([[0, 0, 23, 5], [7, 2, 1, 1], [10, 3, 14, 21]])
    one_by_one, at_once = images.clone(), images.clone()
    _fill_one_by_one(one_by_one, noise, chosen, boxes, places)
    _fill_at_once(at_once, noise, chosen, boxes, places)
    assert torch.equal(one_by_one, at_once) and not torch.equal(at_once, images)


def test_normalisation_is_by_channel():
    settings = settings_for()
    normaliser = normaliser_for(settings)
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    size = settings.image_size
    out = normaliser.normalise([black_and_white.expand(-1, 1, size, size)], 2)
    np.testing.assert_allclose(out, np.broadcast_to([[[[-1]]], [[[1]]]], out.shape), atol=1e-6)


@pytest.mark.parametrize("sizes", [(2, 1), (2, 3)])
def test_missing_and_surplus_images_are_no_batch(sizes: tuple[int, ...]):
    normaliser = normaliser_for(settings_for())
    parts = [torch.zeros(size, 3, normaliser.size, normaliser.size, dtype=torch.uint8) for size in sizes]
    with pytest.raises((ValueError, RuntimeError)):
        normaliser.normalise(parts, 4)
    assert len(normaliser.normalise(parts, sum(sizes))) == sum(sizes)
