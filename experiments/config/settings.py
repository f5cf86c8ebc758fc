"""Everything a run is asked for, as frozen dataclasses that check their own values.

These classes are the schema of `conf/`: `experiments.config.schema` derives Hydra's structured config from their
fields, so that a key exists exactly when a field here does. A `Settings` is fully resolved: its design is final,
`recipe.without` is applied, `auto` values are decided. Imports neither torch nor hydra.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from experiments.config.fields import (
    RESOLVED,
    Choice,
    Each,
    Options,
    Pattern,
    Range,
    before_of,
    check_fields,
    later,
    resolved,
    ruled,
)
from experiments.config.registry import CROPS, LOGGERS, LOSSES, OPTIMIZERS, READERS, SCHEDULES
from experiments.errors import ConfigError
from roadmap.design import INITS, STEM_STRIDES, Design

INTERPOLATIONS = ("bicubic", "bilinear")
PRECISIONS = ("fp32", "bf16", "fp16")
COMPILE_MODES = ("none", "blocks", "model")

SHARE = Range(0, 1)
SMALLEST_SIDE = 8  # of an image, pixels
BELOW_ONE = Range(0, 1, open_high=True)
COUNT = Range(1, 10**9)
SIDE = Range(SMALLEST_SIDE, 4096)
NAME = Pattern(r"[A-Za-z0-9_.-]+", "a name of letters, digits, '_', '.' and '-'", ("mine", "other-1"))
RANDAUGMENT = Pattern(
    r"rand-m([0-9]|10)(\.\d+)?(-n[1-9]\d?)?(-mstd\d+(\.\d+)?)?(-inc[01])?",
    "timm's notation: rand-m<0-10>[-n<layers>][-mstd<spread>][-inc<0 or 1>], or null",
    ("rand-m9-mstd0.5-inc1", "rand-m5-n2", "rand-m7-inc1"),
)
AUTOAUGMENT = Pattern(
    r"(original|v0)r?(-mstd\d+(\.\d+)?)?",
    "timm's notation: original, originalr, v0 or v0r[-mstd<spread>], or null",
    ("original", "v0r-mstd0.5", "originalr-mstd1"),
)
SPACE = Pattern(r"([A-Za-z0-9_.-]+/)?[A-Za-z0-9_.-]+", "a space's name: user/space or space", ("me/runs", "runs"))
# What becomes a part of a folder's name, and a folder: of any letters, since a name may be in any language.
LONGEST_NAME = 120  # characters; file systems allow about twice as many bytes
PART_OF_NAME = Pattern(
    rf"(?!\.)[^/\\\x00-\x1f\x7f-\x9f]{{0,{LONGEST_NAME}}}",
    f"a name of at most {LONGEST_NAME} characters without a slash",
)
PLACE = Pattern(r"[^\x00\ud800-\udfff]+", "the path of a file or folder, in UTF-8", ("runs", "out/runs"))
DEVICE = Pattern(r"auto|cpu|cuda(:\d+)?", "one of: auto, cpu, cuda, cuda:<index>", ("auto", "cpu"))


@dataclass(frozen=True)
class Recipe:
    """How a network is trained (paper, Table 5; torchvision's 90-epoch recipe). Off values: 0, None or "none"."""

    name: str = ruled("enhanced", NAME)  # of the file in conf/recipe
    # optimisation
    epochs: int = ruled(300, Range(1, 100_000))  # passes over the training images
    optimizer: str = ruled("adamw", Choice(tuple(OPTIMIZERS)))  # torch's, or timm's of that name
    lr: float | None = ruled(None, Range(0, 1000, open_low=True))  # peak rate; null: base_lr * batch.size / lr_batch
    base_lr: float = ruled(4e-3, Range(0, 1000, open_low=True))  # peak rate at an effective batch of `lr_batch`
    lr_batch: int = ruled(4096, COUNT)  # images
    betas: tuple[float, ...] = ruled((0.9, 0.999), Each(BELOW_ONE))  # of Adam's kin: two, for adan three
    momentum: float = ruled(0.9, BELOW_ONE)  # of SGD's kin, and of muon
    opt: Mapping[str, Any] = later({}, Options(), before={})  # the optimizer's own arguments: {eps: 1e-6}
    weight_decay: float = ruled(0.05, Range(0, 10))  # decoupled with adamw and its kin
    decay_all: bool = False  # also biases, norms and layer scale
    layer_decay: float = later(1.0, Range(0, 1, open_low=True), before=1.0)  # a layer's rate over the next one's
    freeze: tuple[str, ...] = later((), before=())  # modules that stay as they are: [stem, stages.0], [stem, stages]
    schedule: str = ruled("cosine", Choice(tuple(SCHEDULES)))  # applied per step
    warmup_epochs: float = ruled(20.0, Range(0, 100_000))  # linear from 0, per step
    min_lr: float = ruled(1e-6, Range(0, 1000))  # cosine's end
    decay_every: int = ruled(30, Range(1, 100_000))  # epochs between two drops of `steps`
    decay_factor: float = ruled(0.1, Range(0, 1, open_low=True))  # the rate over the one before such a drop
    clip_grad: float | None = ruled(None, Range(0, 1e6, open_low=True))  # largest gradient norm
    ema: float | None = ruled(None, Range(0, 1, open_low=True, open_high=True))  # decay of averaged weights: 0.9999
    ema_every: int = later(1, COUNT, before=1)  # optimizer steps of the run from one update of the average to the next
    # regularisation
    loss: str = later("cross_entropy", Choice(tuple(LOSSES)), before="cross_entropy")  # in training
    bce_sum: bool = later(False, before=False)  # bce: the sum over classes instead of the mean
    bce_target_thresh: float | None = later(None, SHARE, before=None)  # bce: mixed targets above it are 1, others 0
    label_smoothing: float = ruled(0.1, BELOW_ONE)  # share of the target that all classes have in common
    mixup: float = ruled(0.8, Range(0, 100))  # alpha of the beta distribution
    cutmix: float = ruled(1.0, Range(0, 100))  # alpha of the beta distribution
    mixup_switch: float = ruled(0.5, SHARE)  # probability of cutmix where both are on
    randaugment: str | None = ruled("rand-m9-mstd0.5-inc1", RANDAUGMENT)  # magnitude, its spread, number of operations
    auto_augment: str | None = later(None, AUTOAUGMENT, before=None)  # in front of RandAugment where both are on
    trivial_augment: bool = later(False, before=False)  # TrivialAugment Wide, behind RandAugment where both are on
    erasing: float = ruled(0.25, SHARE)  # probability, pixel noise
    drop_path: float = ruled(0.1, BELOW_ONE)  # stochastic depth: rate of the last block
    dropout: float = later(0.0, BELOW_ONE, before=0.0)  # in front of the classifier
    layer_scale: float | None = ruled(1e-6, Range(0, 10))  # start of the residual branch's factors; null: none
    init: str = ruled("trunc_normal", Choice(INITS))  # of the weights; biases are 0
    # images
    repeats: int = later(1, Range(1, 1000), before=1)  # augmented copies of each image that an epoch chooses
    train_scale: float = later(1.0, Range(0, 2, open_low=True), before=1.0)  # side of training images over image_size
    crop: str = ruled("resized", Choice(tuple(CROPS)))  # random resized crop, shift by up to `crop_pad`, centre only
    crop_scale: tuple[float, ...] = ruled((0.08, 1.0), Each(Range(0, 1, open_low=True), 2, rising=True))  # of the area
    crop_pad: int = ruled(4, Range(1, 1024))  # pixels, of crop=shift
    flip: float = ruled(0.5, SHARE)  # probability of a horizontal flip
    interpolation: str = ruled("bicubic", Choice(INTERPOLATIONS))  # where images are resized
    eval_crop: float = ruled(0.875, Range(0, 1, open_low=True))  # side of the centre crop over the resized side
    without: tuple[str, ...] = ()  # techniques that are switched off by name: [mixup, ema]

    def __post_init__(self) -> None:
        check_fields(self, "recipe.")
        if self.warmup_epochs > self.epochs:
            raise ConfigError(
                f"recipe.warmup_epochs={self.warmup_epochs:g} must be at most recipe.epochs={self.epochs}"
            )
        self._check_optimizer()

    def _check_optimizer(self) -> None:
        """The arguments must be those that the optimizer takes."""
        entry, given = OPTIMIZERS[self.optimizer], f"recipe.optimizer={self.optimizer}"
        if "betas" in entry.reads and len(self.betas) != entry.betas:
            raise ConfigError(f"recipe.betas={list(self.betas)} must hold {entry.betas} numbers for {given}")
        for name in self.opt:
            if name not in entry.takes:
                raise ConfigError(f"recipe.opt.{name} is no argument of {given}, which takes: {', '.join(entry.takes)}")


@dataclass(frozen=True)
class Budget:
    """How much of the recipe is paid for; the values are in `conf/overlay/<budget>_<recipe>.yaml`."""

    name: str = ruled("demo", NAME)  # of the files in conf/overlay

    def __post_init__(self) -> None:
        check_fields(self, "budget.")


@dataclass(frozen=True)
class Batch:
    """`size` images make an optimizer step; `micro` images are one forward pass, the unit of BatchNorm and mixup."""

    size: int = ruled(4096, Range(1, 2**20))  # images of an optimizer step
    micro: int = ruled(128, Range(1, 2**20))  # images of a forward pass, the unit of BatchNorm, mixup and noise

    def __post_init__(self) -> None:
        check_fields(self, "batch.")
        self.accumulation(1)

    def accumulation(self, world_size: int) -> int:
        """Micro-batches that each of `world_size` ranks computes per optimizer step.

        Raises:
            ConfigError: `size` is not a multiple of micro * world_size; the message names the nearest sizes that are.
        """
        unit = self.micro * world_size
        if self.size % unit:
            below, above = self.size // unit * unit, (self.size // unit + 1) * unit
            nearest = f"{below} or {above}" if below else str(above)
            ranks = f" x {world_size} processes" if world_size > 1 else ""
            raise ConfigError(
                f"batch.size={self.size} is no multiple of batch.micro={self.micro}{ranks}; use {nearest}"
            )
        return self.size // unit


@dataclass(frozen=True)
class Data:
    """A data set: how to read it and what it must look like. `root` is recorded, not hashed."""

    name: str = ruled("digits", NAME)  # of the file in conf/data
    reader: str = ruled("digits", Choice(tuple(READERS)))  # what reads its files
    root: str | None = ruled(None, PLACE)  # its folder; null: the usual places
    download: bool = False  # fetch the files if they are missing
    classes: int | None = ruled(10, Range(2, 10**6))  # null: as many as there are class folders
    channels: int = ruled(3, Range(1, 64))  # of the images
    image_size: int = ruled(32, SIDE)  # default side of the square network input, pixels
    stem_stride: int = ruled(4, Choice(STEM_STRIDES))  # what the design's stem gets unless typed
    mean: tuple[float, ...] = ruled((0.5, 0.5, 0.5), Each(Range(-10, 10)))  # per channel, of values in 0..1
    std: tuple[float, ...] = ruled((0.5, 0.5, 0.5), Each(Range(0, 10, open_low=True)))  # likewise
    train_images: int | None = ruled(None, COUNT)  # a fixed, stratified subset of the training images; null: all
    eval_images: int | None = ruled(None, COUNT)  # likewise of the evaluation images
    holdout: float = ruled(0.0, Range(0, 0.5))  # share of the training images that replaces the test set (tuning)
    damaged_share: float = ruled(0.001, SHARE)  # more unreadable images than this stop the run
    checksum: str | None = resolved(None)  # filled in when the data is opened; part of the run's identity

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        for key in ("mean", "std"):
            if len(getattr(self, key)) != self.channels:
                values = list(getattr(self, key))
                raise ConfigError(
                    f"data.{key}={values} must hold one number per channel (data.channels={self.channels})"
                )


@dataclass(frozen=True)
class Checkpoint:
    """When state is saved besides the end of every epoch."""

    every_steps: int | None = ruled(None, COUNT)  # optimizer steps; null: at the end of every epoch alone
    background: bool = True  # copy, then write in a thread

    def __post_init__(self) -> None:
        check_fields(self, "checkpoint.")


@dataclass(frozen=True)
class Logger:
    """Mirrors of the local record, which is always written."""

    name: str = ruled("local", Choice(tuple(LOGGERS)))  # of the file, the last one where several were chosen
    mirrors: Mapping[str, Any] = later({}, before={})  # {wandb: true}: those that are open; {}: the one named `name`
    project: str = ruled("convnext-roadmap", NAME)  # wandb, trackio
    entity: str | None = ruled(None, NAME)  # wandb's user or team
    mode: str = ruled("offline", Choice(("online", "offline", "disabled")))  # wandb, trackio
    space: str | None = later(None, SPACE, before=None)  # of Hugging Face, where trackio goes with mode=online
    init_timeout: float = later(20.0, Range(1, 3600), before=20.0)  # seconds to wait for a server with mode=online
    artifacts: bool = later(False, before=False)  # the final weights and the record go to wandb and trackio, too
    log_every: int = ruled(50, COUNT)  # optimizer steps between two looks at the running loss

    def __post_init__(self) -> None:
        check_fields(self, "logger.")
        for name, wanted in self.mirrors.items():
            Choice(tuple(LOGGERS)).check("logger.mirrors", name)
            if not isinstance(wanted, bool):
                raise ConfigError(f"logger.mirrors.{name}={wanted} must be true or false")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The mirrors that are open, in the order of the table."""
        wanted = self.mirrors or {self.name: True}
        return tuple(name for name, entry in LOGGERS.items() if entry.home and wanted.get(name))


def sections_of(cls: Any) -> dict[str, Any]:
    """The parts of `Settings` by name: design, recipe, budget, batch, data, checkpoint, logger."""
    return {item.name: item.type for item in dataclasses.fields(cls) if dataclasses.is_dataclass(item.type)}


@dataclass(frozen=True)
class Settings:
    """One run, fully resolved: first what identifies it, then what changes how it runs but not what it computes."""

    design: Design = field(metadata=RESOLVED)
    regime: str = field(metadata=RESOLVED | {"rule": PART_OF_NAME})
    recipe: Recipe
    budget: Budget
    batch: Batch
    data: Data
    seed: int = ruled(0, Range(0, 2**32 - 1))  # of weights, order, augmentation and noise
    image_size: int = ruled(32, SIDE)  # side of the square network input in pixels
    precision: str = ruled("fp32", Choice(PRECISIONS))  # of the passes; weights stay fp32
    step: str | None = resolved(None)  # the step this run is at, ROADMAP.STEP but for ConvNeXt's; None off the ladders
    changes: tuple[str, ...] = resolved(())  # the set, in ladder order
    idle: tuple[str, ...] = resolved(())  # changes to which data, typed keys or regime leave nothing to do here
    replaced: Mapping[str, Any] | None = resolved(
        None
    )  # dotted keys that the changes set -> their values without the changes
    label: str = resolved("", PART_OF_NAME)  # the step, or a canonical name of the set
    init_weights: str | None = resolved(None)  # SHA-256 of the weights that `init_from` names
    study: str | None = resolved(None)  # the study that asked for it first
    lr: float = resolved(0.0)  # peak learning rate after scaling to batch.size

    init_from: str | None = ruled(None, PLACE)  # weights to start from: RUN, FILE, hf-hub:USER/NAME, timm:NAME
    runs_dir: str = ruled("runs", PLACE)  # where the folders of the runs lie
    rerun: bool = False  # start over what is finished or diverged
    retry_failed: bool = False  # a study continues its failed runs
    deterministic: bool = False  # the same bits on a GPU, too; slower there
    compile: str = ruled("none", Choice(COMPILE_MODES))  # torch.compile: no, block by block, the whole network
    grad_checkpointing: bool = False  # less memory for more computing: activations are computed twice
    device: str = ruled("auto", DEVICE)  # auto: a GPU if there is one
    threads: int | None = ruled(None, Range(1, 1024))  # of the CPU; null: chosen for the machine
    workers: int = ruled(2, Range(0, 256))  # processes that decode images from files
    worker_timeout: float = ruled(300.0, Range(1, 86_400))  # seconds without data from any worker that end a run
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    logger: Logger = field(default_factory=Logger)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.batch.micro % 2 and (self.recipe.mixup or self.recipe.cutmix):
            raise ConfigError(f"batch.micro={self.batch.micro} must be even: mixup and cutmix mix images in pairs")

    @property
    def train_side(self) -> int:
        """Side of the training images in pixels; evaluation shows `image_size` (FixRes, arXiv 1906.06423)."""
        return max(SMALLEST_SIDE, round(self.image_size * self.recipe.train_scale))

    def replace(self, **changes: Any) -> "Settings":
        """A copy with some fields replaced."""
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """Settings from plain nested values (`dataclasses.asdict`, JSON).

        What is left out takes its default; a field that is younger than the values, what was computed before it.

        Raises:
            ConfigError: an unknown key, or a value that is not allowed.
            DesignError: likewise in the design.
        """
        try:
            nested = {
                key: cast(Any, part)(**{**before_of(part), **values[key]})
                for key, part in sections_of(cls).items()
                if key in values
            }
            return cls(**{**values, **nested})
        except TypeError as error:
            raise ConfigError(f"not the settings of a run: {error}") from None


SECTIONS = sections_of(Settings)
# Keys that change how a run is computed, not what: they are recorded, but no part of its identity.
MACHINE_KEYS = (
    *("runs_dir", "rerun", "retry_failed", "deterministic", "compile", "grad_checkpointing", "device", "threads"),
    *("workers", "worker_timeout", "checkpoint", "logger", "data.root", "data.download", "data.damaged_share"),
    *(f"checkpoint.{item.name}" for item in dataclasses.fields(Checkpoint)),
    *(f"logger.{item.name}" for item in dataclasses.fields(Logger)),
)
