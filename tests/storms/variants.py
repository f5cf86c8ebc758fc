"""The runs that the storms interrupt: tiny, but with everything on that has a state or a random number."""

from dataclasses import dataclass
from pathlib import Path

SMALL = (
    "regime=micro",
    "budget=paper",
    "device=cpu",
    "threads=1",
    "workers=0",
    "image_size=32",
    "logger.log_every=4",
)
EVERYTHING_ON = (
    "recipe=enhanced",
    "recipe.lr=2e-3",
    "recipe.warmup_epochs=1",
    "recipe.drop_path=0.2",
    "recipe.ema=0.9",
    "recipe.clip_grad=5.0",
    "recipe.erasing=0.5",
)  # mixup, cutmix, RandAugment, crops, flips, label smoothing are the recipe's own
LATER = (  # what the recipes of the other ladders add
    *("recipe.optimizer=lamb", "recipe.loss=bce", "recipe.trivial_augment=true", "recipe.repeats=2"),
    *("recipe.train_scale=0.75", "recipe.ema_every=3", "recipe.dropout=0.2"),
)
SYNTHETIC = ("data=synthetic", "data.train_images=96", "data.eval_images=32")


@dataclass(frozen=True)
class Variant:
    """A run by its overrides; `folder` runs read PNG files with data workers."""

    name: str
    overrides: tuple[str, ...]
    folder: bool = False

    def command(self, runs_dir: Path, images: Path | None = None, *extra: str) -> list[str]:
        """The overrides of `python run.py` for this run below `runs_dir`."""
        data = ["data=imagefolder", f"data.root={images}", "data.classes=4"] if self.folder else list(SYNTHETIC)
        return [*SMALL, *data, *self.overrides, f"runs_dir={runs_dir}", *extra]


def _of(step: str, *overrides: str, name: str = "", folder: bool = False) -> Variant:
    return Variant(name or step, (f"+step={step}", *overrides), folder)


# 5 epochs of 12 steps of two accumulated micro batches; precision fp16 switches the loss scaler on.
SIXTY_STEPS = ("recipe.epochs=5", "batch.size=8", "batch.micro=4", "precision=fp16")
RESUMED = (
    *(
        _of(step, *EVERYTHING_ON, *SIXTY_STEPS)
        for step in ("enhanced_recipe", "depthwise", "kernel_7", "layer_norm", "separate_downsampling")
    ),
    _of("kernel_7", *EVERYTHING_ON, *LATER, *SIXTY_STEPS, name="later_keys"),
    _of("resnet50", "recipe=original", "recipe.lr=0.05", *SIXTY_STEPS, name="fp16 and SGD"),
)

# 3 epochs of 6 steps, a checkpoint every second step.
EIGHTEEN_STEPS = ("recipe.epochs=3", "checkpoint.every_steps=2")
_SIZE = ("batch.size=16", "batch.micro=8")
_SIZE_FOLDER = ("batch.size=8", "batch.micro=4")
KILLED = (
    _of("resnet50", "recipe=original", "recipe.lr=0.05", *EIGHTEEN_STEPS, *_SIZE),
    _of("enhanced_recipe", *EVERYTHING_ON, *EIGHTEEN_STEPS, *_SIZE),
    _of("separate_downsampling", *EVERYTHING_ON, *EIGHTEEN_STEPS, *_SIZE, "precision=bf16"),
    _of("kernel_7", *EVERYTHING_ON, *EIGHTEEN_STEPS, *_SIZE_FOLDER, "workers=0", name="folder, 0 workers", folder=True),
    _of("kernel_7", *EVERYTHING_ON, *EIGHTEEN_STEPS, *_SIZE_FOLDER, "workers=1", name="folder, 1 worker", folder=True),
    _of("kernel_7", *EVERYTHING_ON, *EIGHTEEN_STEPS, *_SIZE_FOLDER, "workers=2", name="folder, 2 workers", folder=True),
    _of("kernel_7", *EVERYTHING_ON, *LATER, *EIGHTEEN_STEPS, *_SIZE, name="later_keys"),
    # the loss scaler skips its first steps, which must not leave a momentum that was never written
    _of(
        "resnet50", "recipe=original", "recipe.lr=0.05", *EIGHTEEN_STEPS, *_SIZE, "precision=fp16", name="fp16 and SGD"
    ),
)
FAULTED = KILLED[1]
