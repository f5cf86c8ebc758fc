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


@dataclass(frozen=True)
class Optimizer(Entry):
    """One optimizer.

    Attributes:
        takes: arguments of its own that `recipe.opt` may give it.
        betas: how many numbers `recipe.betas` holds for it.
    """

    takes: tuple[str, ...] = ()
    betas: int = 2

    @classmethod
    def timm(cls, reads: str, takes: str, betas: int = 2) -> "Optimizer":
        """One of timm's, by its own name there; `reads` and `takes` are separated by blanks."""
        return cls("experiments.training.timm_optim:build", tuple(reads.split()), tuple(takes.split()), betas)


Registry = Mapping[str, Entry]

_CAUTIOUS = "caution corrected_weight_decay"
_ADAM = f"eps {_CAUTIOUS} clipping_threshold"
_ADOPT = f"eps clip_exp decoupled {_CAUTIOUS}"
_NOVOGRAD = "eps grad_averaging amsgrad decoupled_decay corrected_weight_decay"
_LAMB = "bias_correction eps grad_averaging trust_clip always_adapt caution decoupled_decay corrected_weight_decay"
_MUON = (
    "nesterov ns_steps ns_coefficients eps safety_factor adjust_lr_fn conv_mode normalize_spatial fallback_lr_scale"
    " algo scale_eps"
)
# What is not here keeps state that a checkpoint cannot hold (kron), needs second derivatives (adahessian), or a GPU.
OPTIMIZERS: Mapping[str, Optimizer] = {
    "sgd": Optimizer("experiments.training.optim:sgd", reads=("momentum",), takes=("nesterov",)),
    "adamw": Optimizer("experiments.training.optim:adamw", reads=("betas",), takes=("eps", "amsgrad")),
    "lamb": Optimizer("experiments.training.optim:lamb", reads=("betas",), takes=tuple(_LAMB.split())),
    "adabelief": Optimizer.timm("betas", "eps amsgrad decoupled_decay fixed_decay rectify degenerated_to_sgd"),
    "adafactor": Optimizer.timm(
        "", "eps eps_scale clip_threshold decay_rate scale_parameter min_dim_size_to_factor caution"
    ),
    "adafactorbv": Optimizer.timm(
        "momentum",
        "min_dim_size_to_factor decay_rate decay_offset beta2_cap eps clipping_threshold unscaled_wd " + _CAUTIOUS,
    ),
    "adamp": Optimizer.timm("betas", "eps delta wd_ratio nesterov caution"),
    "adan": Optimizer.timm("betas", "eps no_prox caution", betas=3),
    "adopt": Optimizer.timm("betas", _ADOPT),
    "adoptw": Optimizer.timm("betas", _ADOPT),
    "laprop": Optimizer.timm("betas", "eps " + _CAUTIOUS),
    "lars": Optimizer.timm("momentum", "dampening nesterov trust_coeff eps trust_clip always_adapt"),
    "lion": Optimizer.timm("betas", _CAUTIOUS),
    "mars": Optimizer.timm("betas", "eps gamma mars_type optimize_1d lr_1d_factor betas_1d caution"),
    "muon": Optimizer.timm("momentum betas", _MUON),
    "nadamw": Optimizer.timm("betas", _ADAM),
    "novograd": Optimizer.timm("betas", _NOVOGRAD),
    "radam": Optimizer.timm("betas", "eps decoupled_weight_decay"),
    "rmsproptf": Optimizer.timm("momentum", "alpha eps centered decoupled_decay lr_in_momentum " + _CAUTIOUS),
    "sgdp": Optimizer.timm("momentum", "dampening nesterov eps delta wd_ratio caution"),
    "sgdw": Optimizer.timm("momentum", "dampening nesterov " + _CAUTIOUS),
}
LOSSES: Registry = {
    "cross_entropy": Entry("experiments.training.losses:cross_entropy"),
    "bce": Entry("experiments.training.losses:binary_cross_entropy", reads=("bce_sum", "bce_target_thresh")),
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
    "trackio": Entry("experiments.training.trackio_mirror:TrackioMirror"),
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
