"""Stateless randomness: what it depends on, what it does not, and that its numbers never change."""

import subprocess
import sys

import numpy as np
import pytest

from experiments.randomness import derive, normals, permutation, uniforms

pytestmark = pytest.mark.numeric


def test_keys_depend_on_every_part_its_type_and_the_order():
    parts = [("mixup", 0, 1), ("mixup", 1, 0), ("cutmix", 0, 1), ("mixup", 0), ("mixup", "0", 1), ("mixup", -1, 1), ()]
    keys = [derive(*p) for p in parts]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**63 for key in keys)


def test_numbers_never_change():
    """A change here changes every result: raise results_version when it is meant."""
    assert derive("order", 0, 1) == 4409024787993060040
    np.testing.assert_allclose(
        uniforms(derive("crop", 0, 0), np.array([0, 7]), 2)[1], [0.7861304, 0.16248849], atol=1e-8
    )
    assert permutation(derive("order", 0, 0), 6).tolist() == [2, 1, 4, 0, 5, 3]


def test_uniforms_are_a_function_of_key_sample_and_column_alone():
    samples = np.array([5, 0, 123456789, 2])
    together = uniforms(42, samples, 8)
    for row, sample in enumerate(samples):
        np.testing.assert_array_equal(uniforms(42, np.array([sample]), 3)[0], together[row, :3])
    assert not np.isin(uniforms(43, samples, 8), together).any()


def test_uniforms_are_uniform_and_uncorrelated():
    values = uniforms(derive("test"), np.arange(50_000), 12)
    assert values.min() >= 0 and values.max() < 1
    counts = np.stack([np.histogram(column, bins=50, range=(0, 1))[0] for column in values.T])
    chi_squared = ((counts - 1000) ** 2 / 1000).sum(axis=1)  # 49 degrees of freedom
    assert chi_squared.max() < 100
    correlation = np.corrcoef(values.T) - np.eye(12)
    assert np.abs(correlation).max() < 0.025
    neighbours = np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1]
    assert abs(neighbours) < 0.025


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_permutation_is_one_and_depends_on_the_key(count):
    order = permutation(1, count)
    assert sorted(order) == list(range(count))
    if count > 10:
        assert (permutation(2, count) == order).mean() < 0.02


def test_every_element_comes_to_every_place():
    places = np.array([permutation(derive("place", key), 5) for key in range(2000)])
    counts = np.stack([np.bincount(column, minlength=5) for column in places.T])
    assert np.abs(counts - 400).max() < 100


def test_normals_are_normal():
    values = normals(uniforms(9, np.arange(100_000), 2))
    assert abs(values.mean()) < 0.015 and abs(values.std() - 1) < 0.01
    assert abs((values**3).mean()) < 0.05 and abs((values**4).mean() - 3) < 0.15
    assert np.isfinite(normals(np.array([[0.0, 0.0], [1 - 2**-53, 0.5]]))).all()


def test_import_needs_no_torch():
    code = "import sys, experiments.randomness, experiments.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
