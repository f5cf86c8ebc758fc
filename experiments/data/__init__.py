"""Data sets behind one interface, `open_data(settings, device=...) -> DataSource`, and two pipelines behind that.

Small sets (digits, IDX files, CIFAR, synthetic) are `InMemorySource`s: uint8 arrays that live on the training device.
Random crops, flips, RandAugment, TrivialAugment and erasing run there on whole batches, with parameters of their own
for every image.

Large sets (class folders of JPEG or PNG files) are `FileSource`s: worker processes decode each file once, cut its
crop out and hand over 8-bit images in small chunks; normalisation and erasing then run batched on the training
device, RandAugment and TrivialAugment there too on a GPU and in the workers on a CPU, all with the same code.

Whatever is random is a function of (seed, epoch, sample), each copy of an image (recipe.repeats) being a sample: the
order of an epoch, each image's crop, its operations and the noise in its erased box. So batches do not depend on the
number of workers, on prefetching, on the number of ranks, or on where in an epoch a run is resumed. `operations.py`
and `resample.py` agree with Pillow (and so with timm's transforms) to one grey level, antialiasing included; the tests
say so operation by operation.

Nothing is unpickled, and archives are read without unpacking them. Importing this package does not import torch.
"""

from experiments.data.build import checksum_of, evaluation_size, open_data, with_checksum
from experiments.data.source import DataSource, MicroBatch, steps_per_epoch

__all__ = [
    "DataSource",
    "MicroBatch",
    "checksum_of",
    "evaluation_size",
    "open_data",
    "steps_per_epoch",
    "with_checksum",
]
