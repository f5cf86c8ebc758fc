"""BatchNorm with one image per micro batch: refused exactly where it would see one value per channel."""

from pathlib import Path

import pytest

from experiments.errors import ConfigError
from experiments.training import run as engine
from tests.experiments.training.runs import settings_of

ONE = ("batch.size=4", "batch.micro=1", "data.train_images=40", "data.eval_images=20", "recipe.epochs=1")


def test_one_value_per_channel_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^batch\.micro=1 leaves BatchNorm a single value"):
        engine.run(settings_of(tmp_path, *ONE, step="resnet50"))


@pytest.mark.parametrize(
    ("step", "typed"),
    [("resnet50", ("image_size=64",)), ("separate_downsampling", ("recipe.mixup=0", "recipe.cutmix=0"))],
)
def test_one_image_is_trained_where_a_norm_sees_more(step: str, typed: tuple[str, ...], tmp_path: Path) -> None:
    assert engine.run(settings_of(tmp_path, *ONE, *typed, step=step))["status"] == "finished"
