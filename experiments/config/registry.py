"""What can be chosen by name: one table per kind, from the name to where its code is and which keys it reads.

The schema takes its choices from here, identity and the refusal of values without effect the keys, the engine the code,
which is imported only when it is chosen. Another optimizer, schedule, reader or logger is a line here and its code.
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One choice.

    Attributes:
        home: "package.module:name" of its code, or a module alone; None where there is nothing to call.
        reads: keys of its section that nothing but the entries which list them reads.
    """

    home: str | None = None
    reads: tuple[str, ...] = ()

    def load(self) -> Any:
        """Import its code."""
        if self.home is None:
            return None
        module, _, name = self.home.partition(":")
        found = importlib.import_module(module)
        return getattr(found, name) if name else found


Registry = Mapping[str, Entry]

OPTIMIZERS: Registry = {
    "sgd": Entry("experiments.training.optim:sgd", reads=("momentum",)),
    "adamw": Entry("experiments.training.optim:adamw", reads=("betas",)),
    "lamb": Entry("experiments.training.optim:lamb", reads=("betas",)),
}
LOSSES: Registry = {
    "cross_entropy": Entry("experiments.training.losses:CROSS_ENTROPY"),
    "bce": Entry("experiments.training.losses:BINARY_CROSS_ENTROPY"),
}
SCHEDULES: Registry = {
    "cosine": Entry("experiments.training.optim:cosine", reads=("min_lr",)),
    "steps": Entry("experiments.training.optim:steps", reads=("decay_every", "decay_factor")),
    "constant": Entry("experiments.training.optim:constant"),
}
CROPS: Registry = {
    "resized": Entry("experiments.data.augment.crops:RESIZED", reads=("crop_scale",)),
    "shift": Entry("experiments.data.augment.crops:SHIFTED", reads=("crop_pad",)),
    "none": Entry("experiments.data.augment.crops:CENTRED"),
}
READERS: Registry = {
    "digits": Entry("experiments.data.readers.digits"),
    "idx": Entry("experiments.data.readers.idx"),
    "cifar": Entry("experiments.data.readers.cifar"),
    "folder": Entry("experiments.data.readers.folder"),
    "synthetic": Entry("experiments.data.readers.synthetic"),
}
LOGGERS: Registry = {
    "local": Entry(),  # the run's own record, which is always written
    "wandb": Entry("experiments.training.loggers:WandbMirror"),
    "tensorboard": Entry("experiments.training.loggers:TensorBoardMirror"),
}
# Hydra's name of a launcher -> the preset in conf/launcher and the extra of this package that brings it.
LAUNCHERS: Mapping[str, str] = {"ray": "ray", "submitit_slurm": "slurm"}

# The recipe's choices: key -> its table.
RECIPE: Mapping[str, Registry] = {"optimizer": OPTIMIZERS, "loss": LOSSES, "schedule": SCHEDULES, "crop": CROPS}


def unread(chosen: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(key of the recipe, the choice that does not read it) for every key that another choice would read."""
    for key, registry in RECIPE.items():
        name = chosen[key]
        for other in registry.values():
            yield from ((read, f"recipe.{key}={name}") for read in other.reads if read not in registry[name].reads)
