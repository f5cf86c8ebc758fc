"""The data pipelines as a GPU runs them, on tensors without content: every operation, and no GPU.

An operand that was left on the CPU is an error here, and so is a result that the host would have to wait for.
"""

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from experiments.config.settings import Batch, Data
from experiments.data import open_data
from experiments.training.mixing import Mixing
from tests.experiments.data.sources import make_folders, settings_for

GPU = torch.device("cuda:0")
SMALL = {"name": "synthetic", "reader": "synthetic", "train_images": 256, "eval_images": 20}


@pytest.fixture
def without_content(monkeypatch: pytest.MonkeyPatch) -> FakeTensorMode:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # needs a driver
    return FakeTensorMode(allow_non_fake_inputs=True)


@pytest.fixture(params=["RGB", "grey", "folder"])
def data(request: pytest.FixtureRequest, tmp_path) -> Data:
    return {
        "RGB": lambda: Data(**SMALL),
        "grey": lambda: Data(**SMALL, channels=1, mean=(0.5,), std=(0.5,)),
        "folder": lambda: make_folders(tmp_path, train=128, val=12),
    }[request.param]()


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
@pytest.mark.parametrize(
    ("recipe", "side"),
    [
        ({"crop": "resized"}, 32),
        ({"crop": "shift"}, 32),
        ({"trivial_augment": True, "repeats": 2, "train_scale": 0.75}, 24),
    ],
)
def test_every_operation_of_an_epoch_runs_on_the_gpu(
    without_content: FakeTensorMode, data: Data, recipe: dict[str, Any], side: int
) -> None:
    settings = settings_for(data, batch=Batch(64, 32), recipe=recipe)
    with without_content:
        source = open_data(settings, device=GPU)
    mixing, shape = Mixing.of(settings.recipe, source.num_classes), (32, source.in_chans, side, side)
    batches = source.train(0, range(2), range(2))  # torch's loader draws a number here, which must have a value
    with without_content:
        for batch in batches:
            images, targets = mixing(batch.images, batch.labels, settings.seed, batch.step, batch.index)
            assert images.device == targets.device == GPU
            assert images.shape == shape and images.is_contiguous(memory_format=torch.channels_last)
            assert targets.shape == (32, source.num_classes)
    scored = source.evaluate()
    with without_content:
        assert all(images.device == labels.device == GPU for images, labels in scored)
    source.close()


@pytest.mark.parametrize(
    "wrong, complaint",
    [(lambda x: x + torch.ones(3), RuntimeError), (lambda x: x.sum().item(), DataDependentOutputException)],
)
def test_a_wrong_operand_and_a_wait_are_noticed(without_content: FakeTensorMode, wrong, complaint) -> None:
    with without_content, pytest.raises(complaint):
        wrong(torch.zeros(3, device=GPU))
