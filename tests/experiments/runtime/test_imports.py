"""The garbage collector during large imports."""

import gc

import pytest

from experiments.runtime.imports import imports_kept


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()


def test_nothing_is_looked_through_during_imports_nor_what_they_made_afterwards():
    before, collections = gc.get_freeze_count(), sum(generation["collections"] for generation in gc.get_stats())
    with imports_kept():
        made = [[number] for number in range(100_000)]
        assert sum(generation["collections"] for generation in gc.get_stats()) == collections
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(made)


def test_an_import_that_fails_leaves_the_collector_at_work():
    with pytest.raises(ImportError), imports_kept():
        raise ImportError
    assert gc.isenabled()
