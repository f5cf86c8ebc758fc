"""The augmentation on a GPU: what the CPU computes, and without ever waiting for the device."""

import pytest
import torch

from experiments.config.settings import Batch, Data
from experiments.data import open_data
from tests.experiments.data.sources import batches, make_folders, settings_for

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["synthetic", "folder"])
def data(request: pytest.FixtureRequest, tmp_path) -> Data:
    if request.param == "folder":
        return make_folders(tmp_path, train=128, val=12)
    return Data(name="synthetic", reader="synthetic", train_images=256, eval_images=20)


@pytest.mark.parametrize("recipe", [{}, {"randaugment": None, "trivial_augment": True, "train_scale": 0.75}])
def test_a_gpu_computes_what_the_cpu_computes(data, recipe):
    settings = settings_for(data, recipe, batch=Batch(64, 32), workers=2)
    ours, theirs = (open_data(settings, device=device) for device in ("cuda", "cpu"))
    for a, b in zip(batches(ours, range(2)), batches(theirs, range(2)), strict=True):
        assert a.images.is_contiguous(memory_format=torch.channels_last) and torch.equal(a.labels.cpu(), b.labels)
        levels = (a.images.cpu() - b.images).abs() * 255 * 0.5
        assert (levels > 1.5).float().mean() < 2e-3  # a level of difference can be enlarged by solarize or equalize
    ours.close()
    theirs.close()


def test_nothing_waits_for_the_device(data):
    source = open_data(settings_for(data, batch=Batch(64, 32), workers=2), device="cuda")
    batches(source, range(1))  # allocations and kernels of the first batch
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches(source, range(2), epoch=1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        source.close()
