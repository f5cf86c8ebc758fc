"""Both pipelines: the same batches whatever the start, the worker count, the ranks or what happened before."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.config.settings import Batch, Data
from experiments.data import DataSource, open_data, steps_per_epoch
from experiments.data.source import Pipeline, images_of, sample_batches
from experiments.errors import ConfigError
from experiments.randomness import derive, permutation
from tests.experiments.data.sources import SYNTHETIC, batches, make_folders, same, settings_for, source_for

pytestmark = pytest.mark.numeric

STEPS = 4


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return make_folders(tmp_path_factory.mktemp("photos"), train=34, val=11)


@pytest.fixture(scope="module", params=["synthetic", "photos"])
def data(request: pytest.FixtureRequest, photos: Data) -> Data:
    return photos if request.param == "photos" else replace(SYNTHETIC, train_images=34, eval_images=11)


SMALL = Batch(8, 4)


def test_batches_have_the_promised_form(data):
    source = source_for(data, batch=SMALL)
    assert (source.train_size, source.eval_size, source.in_chans) == (34, 11, 3)
    assert source.num_classes == len(source.class_names) == data.classes
    assert source.damage.count == 0
    found = batches(source, range(STEPS))
    assert [(batch.step, batch.index) for batch in found] == [(s, m) for s in range(STEPS) for m in range(2)]
    for batch in found:
        assert batch.images.shape == (4, 3, 32, 32) and batch.images.dtype == torch.float32
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.shape == (4,) and batch.labels.dtype == torch.int64
        assert torch.isfinite(batch.images).all() and batch.images.std() > 0.05
    source.close()


LATER = {"trivial_augment": True, "repeats": 3, "train_scale": 0.75}


@pytest.mark.parametrize("recipe", [{}, LATER], ids=["published", "later"])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_start_step_and_worker_count_gives_the_same_batches(data, workers, recipe):
    expected = batches(source_for(data, recipe, batch=SMALL), range(STEPS), epoch=2)
    source = source_for(data, recipe, batch=SMALL, workers=workers)
    for start in range(STEPS):
        assert same(batches(source, range(start, STEPS), epoch=2), expected[2 * start :])
    assert not same(batches(source, range(STEPS), epoch=3), expected)
    source.close()


@pytest.mark.parametrize("recipe", [{}, LATER], ids=["published", "later"])
def test_ranks_share_the_micro_batches_of_one(data, recipe):
    whole = batches(source_for(data, recipe, batch=SMALL), range(STEPS))
    for micro in (range(1), range(1, 2)):
        source = open_data(settings_for(data, recipe, batch=SMALL), device="cpu")
        assert same(batches(source, range(STEPS), micro), [batch for batch in whole if batch.index in micro])
        source.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_abandoned_pass_changes_nothing(data, workers):
    source = source_for(data, batch=SMALL, workers=workers)
    expected = batches(source, range(STEPS), epoch=1)
    for consumed in range(3):
        passing = source.train(5, range(STEPS), range(2))
        for _ in range(consumed):
            next(passing)
        assert same(batches(source, range(STEPS), epoch=1), expected)
    source.close()


def test_an_older_pass_over_files_cannot_go_on(photos):
    source = source_for(photos, batch=SMALL)
    older = source.train(0, range(STEPS), range(2))
    next(older)
    next(source.train(1, range(STEPS), range(2)))
    with pytest.raises(RuntimeError, match="another pass"):
        next(older)


def test_seeds_differ_and_evaluation_does_not(data):
    one, two = source_for(data, batch=SMALL, seed=1), source_for(data, batch=SMALL, seed=2)
    assert not same(batches(one, range(STEPS)), batches(two, range(STEPS)))
    for (images, labels), (other_images, other_labels) in zip(one.evaluate(), two.evaluate(), strict=True):
        assert torch.equal(images, other_images) and torch.equal(labels, other_labels)


def test_evaluation_shows_the_recipes_share_of_an_image(data):
    """Half the side: the middle of the whole, enlarged; smaller again it differs by what the two filters do."""
    (whole, _), (half, _) = (next(iter(source_for(data, {"eval_crop": share}).evaluate())) for share in (1.0, 0.5))
    middle = whole[..., 8:24, 8:24]
    assert (torch.nn.functional.avg_pool2d(half, 2) - middle).abs().mean() < 0.3 * middle.std()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_image_exactly_once_over_all_ranks(data, world_size):
    source = source_for(data, batch=SMALL)
    whole = evaluated(source, 1)
    assert len(whole) == source.eval_size
    assert sorted(evaluated(source, world_size)) == sorted(whole)


def evaluated(source: DataSource, world_size: int) -> list[tuple[float, int]]:
    """A fingerprint and the label of every evaluated image."""
    found = []
    for rank in range(world_size):
        for images, labels in source.evaluate(rank, world_size):
            assert images.is_contiguous(memory_format=torch.channels_last)
            found += list(zip(images.double().sum((1, 2, 3)).tolist(), labels.tolist(), strict=True))
    return found


def test_an_epoch_sees_every_image_at_most_once_and_all_of_them_over_time(data):
    plain = {"randaugment": None, "erasing": 0.0, "crop": "none", "flip": 0.0}
    source = source_for(data, plain, batch=SMALL)
    seen: set[float] = set()
    for epoch in range(6):
        prints = [
            p
            for batch in batches(source, range(STEPS), epoch=epoch)
            for p in batch.images.double().sum((1, 2, 3)).tolist()
        ]
        assert len(prints) == 32
        if data.reader == "synthetic":  # photographs may coincide
            assert len(set(prints)) == 32
        seen |= set(prints)
    assert len(seen) >= 33


def sampler_of_torchvision(order: np.ndarray, repeats: int, rank: int, ranks: int) -> np.ndarray:
    """The images of a rank as torchvision's RASampler picks them: every `ranks`-th of an order with repeats."""
    return np.repeat(order, repeats)[rank::ranks][: len(order) // ranks]


@pytest.mark.parametrize("repeats, ranks", [(2, 4), (4, 2), (3, 4)])
def test_copies_of_an_image_are_dealt_out_to_micro_batches_as_torchvision_does_to_ranks(repeats, ranks):
    data, batch = replace(SYNTHETIC, train_images=64), Batch(4 * ranks, 4)
    asked = Pipeline.of(settings_for(data, {"repeats": repeats}, batch=batch))
    order = permutation(derive("order", asked.seed, 3), 64)
    for rank in range(ranks):
        found = [item.samples for item in sample_batches(asked, 3, 64, range(64 // batch.size), range(rank, rank + 1))]
        expected = sampler_of_torchvision(order, repeats, rank, ranks)
        assert images_of(np.concatenate(found)).tolist() == expected.tolist()
        if ranks >= repeats:
            assert all(len(set(images_of(samples))) == 4 for samples in found)


def test_an_epoch_with_repeats_shows_so_many_copies_of_fewer_images_and_each_copy_once():
    asked = Pipeline.of(settings_for(replace(SYNTHETIC, train_images=100), {"repeats": 4}, batch=Batch(16, 8)))
    samples = np.concatenate([item.samples for item in sample_batches(asked, 0, 100, range(6), range(2))])
    images, counts = np.unique(images_of(samples), return_counts=True)
    assert len(images) == 24 and set(counts) == {4} and len(set(samples)) == 96
    other = np.concatenate([item.samples for item in sample_batches(asked, 1, 100, range(6), range(2))])
    assert set(images_of(other)) != set(images)


def test_copies_of_an_image_differ_and_the_first_is_that_of_an_epoch_without_repeats(data):
    once = source_for(data, {"erasing": 0.0}, batch=Batch(34, 34))
    thrice = source_for(data, {"erasing": 0.0, "repeats": 3}, batch=Batch(34, 34))
    (one,), (three,) = batches(once, range(1), range(1)), batches(thrice, range(1), range(1))
    for place in range(34 // 3):
        copies = three.images[3 * place : 3 * place + 3]
        assert torch.equal(copies[0], one.images[place])
        assert not torch.equal(copies[1], copies[0]) and not torch.equal(copies[1], copies[2])
        assert set(three.labels[3 * place : 3 * place + 3].tolist()) == {one.labels[place].item()}


@pytest.mark.parametrize("scale, side", [(0.75, 24), (0.1, 8), (1.5, 48), (0.79, 25)])
def test_training_images_have_a_size_of_their_own(data, scale, side):
    source = source_for(data, {"train_scale": scale, "crop": "none"}, batch=SMALL)
    plain = source_for(data, batch=SMALL)
    assert batches(source, range(1))[0].images.shape == (4, 3, side, side)
    for (images, _), (expected, _) in zip(source.evaluate(), plain.evaluate(), strict=True):
        assert torch.equal(images, expected)


@pytest.mark.parametrize("crop", ["resized", "shift", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_crops_and_channels_of_both_pipelines(data, crop, channels):
    chosen = replace(data, channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels)
    source = source_for(chosen, {"crop": crop, "interpolation": "bilinear"}, batch=SMALL)
    for batch in batches(source, range(2)):
        assert batch.images.shape == (4, channels, 32, 32)
    for images, _ in source.evaluate():
        assert images.shape[1:] == (channels, 32, 32)


@pytest.mark.parametrize("image_size", [24, 45])
def test_other_sizes_than_the_stored_one(data, image_size):
    source = source_for(data, batch=SMALL, image_size=image_size)
    assert batches(source, range(1))[0].images.shape == (4, 3, image_size, image_size)
    assert next(iter(source.evaluate()))[0].shape[2:] == (image_size, image_size)


def test_blocks_of_many_micro_batches_change_nothing():
    """The resident pipeline augments 1024 images of this size at once: 74 micro batches of 16 cross two blocks."""
    data = Data(name="synthetic", reader="synthetic", train_images=1190, eval_images=20)
    whole = batches(source_for(data, batch=Batch(32, 16)), range(37))
    for start in (1, 30, 31, 32, 36):
        assert same(batches(source_for(data, batch=Batch(32, 16)), range(start, 37)), whole[2 * start :])


def test_augmented_images_and_labels_belong_together():
    """Class patterns survive a shift crop: each image is nearest to the mean of its own class."""
    source = source_for(SYNTHETIC, {"crop": "shift", "flip": 0.0, "randaugment": None, "erasing": 0.0})
    examples = [(images, labels) for images, labels in source.evaluate()]
    images, labels = (torch.cat(parts) for parts in zip(*examples, strict=True))
    means = torch.stack([images[labels == label].mean(0) for label in range(10)])
    found = batches(source, range(3))
    shown, labels = torch.cat([batch.images for batch in found]), torch.cat([batch.labels for batch in found])
    distance = (shown[:, None] - means[None]).flatten(2).std(dim=2)
    assert (distance.argmin(1) == labels).float().mean() > 0.8


def test_steps_per_epoch_and_none_of_them():
    assert steps_per_epoch(100, 32) == 3
    with pytest.raises(ConfigError, match=r"batch\.size=64 .* 48 training images"):
        source_for(batch=Batch(64, 32))


def test_only_grey_and_colour_images_exist():
    with pytest.raises(ConfigError, match=r"data\.channels=2 must be 1 or 3") as caught:
        source_for(replace(SYNTHETIC, channels=2, mean=(0.5,) * 2, std=(0.5,) * 2))
    assert "\n" not in str(caught.value)


def test_fill_colours_that_differ_make_a_grey_set_coloured():
    coloured = Data(name="digits", reader="digits", mean=(0.2, 0.5, 0.8), std=(0.5, 0.5, 0.5))
    settings = {"crop": "none", "flip": 0.0, "erasing": 0.0, "randaugment": "rand-m9-n6-inc1"}
    batch = batches(source_for(coloured, settings), range(1))[0]
    shown = batch.images * 0.5 + torch.tensor(coloured.mean).view(1, 3, 1, 1)
    assert ((shown[:, 0] - shown[:, 2]).abs() > 0.3).any()


def test_order_is_independent_of_the_batch_size():
    one = batches(source_for(batch=Batch(16, 8)), range(2))
    other = batches(source_for(batch=Batch(8, 8)), range(4), range(1))
    np.testing.assert_array_equal(torch.cat([b.labels for b in one]), torch.cat([b.labels for b in other]))
    assert torch.equal(torch.cat([b.images for b in one]), torch.cat([b.images for b in other]))
