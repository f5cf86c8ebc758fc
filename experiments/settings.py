"""Everything a run is asked for, as frozen dataclasses that check their own values.

These classes are the schema of `conf/`: `experiments.schema` derives Hydra's structured config from their fields, so that
a key exists exactly when a field here does. A `Settings` is fully resolved: its design is final, `recipe.without` is
applied, `auto` values are decided. Imports neither torch nor hydra.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from experiments.errors import ConfigError
from roadmap import Design

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "steps", "constant")
CROPS = ("resized", "shift", "none")
INTERPOLATIONS = ("bicubic", "bilinear")
PRECISIONS = ("fp32", "bf16", "fp16")
READERS = ("digits", "idx", "cifar", "folder", "synthetic")
LOGGERS = ("local", "wandb", "tensorboard")
COMPILE_MODES = ("none", "blocks", "model")


def check_choice(key: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise ConfigError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ConfigError(f"{key}={value!r} is not one of: {', '.join(allowed)}")


def check_range(key: str, value: float | None, low: float, high: float = float("inf"), *, open_low: bool = False) -> None:
    """Raise ConfigError unless low <= value <= high (low < value with `open_low`); None passes."""
    if value is None:
        return
    if not (low < value if open_low else low <= value) or not value <= high:
        bound = f"above {low}" if open_low else f"at least {low}"
        upper = "" if high == float("inf") else f" and at most {high}"
        raise ConfigError(f"{key}={value} must be {bound}{upper}")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained (paper, Table 5; torchvision's 90-epoch recipe). Off values: 0, None or "none"."""

    name: str = "enhanced"
    # optimisation
    epochs: int = 300
    optimizer: str = "adamw"  # one of OPTIMIZERS
    lr: float = 4e-3  # at an effective batch of `lr_batch`; scaled linearly
    lr_batch: int = 4096
    betas: tuple[float, ...] = (0.9, 0.999)  # adamw
    momentum: float = 0.9  # sgd
    weight_decay: float = 0.05
    decay_all: bool = False  # True: also biases, norms and layer scale
    schedule: str = "cosine"  # one of SCHEDULES; applied per step
    warmup_epochs: float = 20.0  # linear from 0, per step
    min_lr: float = 1e-6  # cosine's end
    decay_every: int = 30  # epochs between two drops of `steps`
    decay_factor: float = 0.1
    clip_grad: float | None = None  # largest gradient norm
    ema: float | None = None  # decay of the averaged weights, e.g. 0.9999
    # regularisation
    label_smoothing: float = 0.1
    mixup: float = 0.8  # alpha of the beta distribution
    cutmix: float = 1.0
    mixup_switch: float = 0.5  # probability of cutmix where both are on
    randaugment: str | None = "rand-m9-mstd0.5-inc1"  # timm's notation
    erasing: float = 0.25  # probability, pixel noise
    drop_path: float = 0.1
    layer_scale: float | None = 1e-6
    init: str = "trunc_normal"
    # images
    crop: str = "resized"  # one of CROPS: random resized crop, shift by up to `crop_pad` pixels, centre only
    crop_scale: tuple[float, ...] = (0.08, 1.0)
    crop_pad: int = 4
    flip: float = 0.5  # probability of a horizontal flip
    interpolation: str = "bicubic"
    eval_crop: float = 0.875  # side of the centre crop over side of the resized image: 224 / 256
    without: tuple[str, ...] = ()  # names of TECHNIQUES to switch off


@dataclass(frozen=True)
class Budget:
    """How much of the recipe is paid for; the values are in `conf/overlay/<budget>_<recipe>.yaml`."""

    name: str = "demo"


@dataclass(frozen=True)
class Batch:
    """`size` images make an optimizer step; `micro` images are one forward pass, the unit of BatchNorm and mixup."""

    size: int = 4096
    micro: int = 128


@dataclass(frozen=True)
class Data:
    """A data set: how to read it and what it must look like. `root` is recorded, not hashed."""

    name: str = "digits"
    reader: str = "digits"  # one of READERS
    root: str | None = None
    download: bool = False
    classes: int | None = 10  # None: as many as there are class folders
    channels: int = 3
    image_size: int = 32  # default side of the square network input, pixels
    stem_stride: int = 4  # what the design's stem gets unless typed
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    train_images: int | None = None  # a fixed, stratified subset of the training images; None: all
    eval_images: int | None = None  # likewise of the evaluation images
    holdout: float = 0.0  # share of the training images used for evaluation instead of the test set (tuning)
    damaged_share: float = 0.001  # more unreadable images than this stop the run
    checksum: str | None = None  # filled in when the data is opened; part of the run's identity


@dataclass(frozen=True)
class Checkpoint:
    """When state is saved besides the end of every epoch."""

    every_steps: int | None = None
    background: bool = True  # copy, then write in a thread


@dataclass(frozen=True)
class Logger:
    """Mirrors of the local record, which is always written."""

    name: str = "local"
    project: str = "convnext-roadmap"
    entity: str | None = None
    mode: str = "offline"  # wandb: online | offline | disabled
    log_every: int = 50  # optimizer steps between two looks at the running loss


@dataclass(frozen=True)
class Settings:
    """One run, fully resolved. The first group is its identity; the second changes how it runs, not what it computes."""

    design: Design
    regime: str
    recipe: Recipe
    budget: Budget
    batch: Batch
    data: Data
    seed: int
    image_size: int
    precision: str
    step: str | None  # the ladder step this run is at; None off the ladder
    changes: tuple[str, ...]  # network changes, ladder order
    label: str  # the step, or a canonical name of the set
    study: str | None = None
    lr: float = 0.0  # peak learning rate after scaling to batch.size

    runs_dir: str = "runs"
    rerun: bool = False
    retry_failed: bool = False
    deterministic: bool = False
    compile: str = "none"  # one of COMPILE_MODES
    grad_checkpointing: bool = False
    device: str = "auto"
    threads: int | None = None
    workers: int = 2
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    logger: Logger = field(default_factory=Logger)

    def replace(self, **changes: Any) -> "Settings":
        """A copy with some fields replaced."""
        return dataclasses.replace(self, **changes)
