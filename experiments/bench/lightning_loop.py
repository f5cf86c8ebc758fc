"""Lightning's training loop as a peer, where it is installed; it is no dependency of this project."""

import importlib
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from experiments.training.loop import Job

NAME = "Lightning"
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def installed() -> bool:
    """Whether `lightning` can be imported."""
    return find_spec("lightning") is not None


def epoch_of(job: Job, batches: Sequence[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    """A fit over ready batches with a job's network and optimizer: no logger, no checkpoint, no progress bar."""
    lightning: Any = importlib.import_module("lightning")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = job.state.model

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            images, labels = batch
            return job.loss.of(self.network(images), labels, job.mixing.smoothing)

        def configure_optimizers(self) -> Any:
            return job.state.optimizer

    module = Module()

    def epoch() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about workers, a loader of which there is none
            lightning.Trainer(
                max_epochs=1, accelerator=job.device.type, devices=1, precision=PRECISIONS[job.settings.precision],
                logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            ).fit(module, batches)  # fmt: skip

    return epoch
