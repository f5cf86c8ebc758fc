"""scikit-learn's handwritten digits: 1797 images of 8 x 8 pixels, in the wheel, so that nothing is downloaded."""

import gzip
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.config.settings import Data
from experiments.data.readers.find import cached_checksum
from experiments.data.splits import ImageArrays, Splits, divide
from experiments.errors import MissingExtraError

EVALUATION_SHARE = 0.2  # the file comes in the order of its writers, so the split is shuffled (and stratified)


def read(data: Data, image_size: int) -> Splits:
    """Read the images, enlarged to image_size with Pillow's bicubic filter, whatever the recipe's interpolation is."""
    with gzip.open(_file(), "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int64)
    labels = table[:, -1]
    grey = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    size = (image_size, image_size)
    large = np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in grey])
    everything = ImageArrays(large[..., None], labels)
    train, evaluation = divide(everything, math.ceil(EVALUATION_SHARE * len(labels)), "digits")
    return Splits(train, evaluation, tuple(str(digit) for digit in range(10)))


def checksum(data: Data) -> str:
    """Hash of the file in the wheel."""
    return cached_checksum([_file()], lambda: [_file().read_bytes()])


def _file() -> Path:
    spec = find_spec("sklearn")  # does not import it, which would take longer than reading the images
    if spec is None or spec.origin is None:
        raise MissingExtraError("data=digits needs scikit-learn: pip install scikit-learn")
    return Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
