"""Golden runs: what the engine computed when RESULTS_VERSION was last raised, in numbers that any processor repeats.

Their networks compute in fp64, are smooth (a ReLU or a max-pool near its kink turns rounding into another gradient) and
have no BatchNorm over single pixels (which amplifies it). What is left is the rounding of fp32 images and losses: the
numbers spread by less than 3e-6 over instruction sets and thread counts, a sixth of TOLERANCE.

`python -m tests.experiments.training.golden` measures them anew, after RESULTS_VERSION was raised.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import roadmap
from experiments.config.identity import RESULTS_VERSION
from experiments.store.checkpoint import Checkpoints
from experiments.training import job
from experiments.training import run as engine
from tests.experiments.training.runs import lines, only_run, settings_of

GOLDEN = Path(__file__).with_name("golden.json")
TOLERANCE = 2e-5  # relative
Numbers = list[dict[str, float]]
# Values at which every technique shows within eight steps.
RUNS = {
    "enhanced": (
        *("+step=separate_downsampling", "recipe.layer_scale=0.5", "recipe.drop_path=0.2"),
        *("recipe.ema=0.9", "recipe.clip_grad=1", "recipe.weight_decay=0.5"),
    ),
    "original": (
        *("+step=gelu", "recipe=original", "image_size=64"),
        *("recipe.lr=0.02", "recipe.decay_every=1", "recipe.weight_decay=0.01"),
    ),
    "later": (  # what the other ladders add
        *("+step=separate_downsampling", "recipe.layer_scale=0.5", "recipe.optimizer=lamb", "recipe.loss=bce"),
        *("recipe.randaugment=null", "recipe.trivial_augment=true", "recipe.repeats=2", "recipe.train_scale=0.75"),
        *("recipe.ema=0.9", "recipe.ema_every=3", "recipe.dropout=0.2"),
    ),
    "adapted": (  # what timm's names choose
        *("+step=separate_downsampling", "recipe.layer_scale=0.5", "recipe.weight_decay=0.5"),
        *("recipe.optimizer=nadamw", "recipe.opt={eps:1e-3}", "recipe.randaugment=null"),
        *("recipe.auto_augment=original-mstd0.5", "recipe.loss=bce"),
        *("recipe.bce_sum=true", "recipe.bce_target_thresh=0.2"),
    ),
}


def build_in_fp64(*arguments: Any, **flags: Any) -> nn.Module:
    """`roadmap.build` with weights drawn in fp64, which takes images in any type."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        model = roadmap.build(*arguments, **flags)
    finally:
        torch.set_default_dtype(default)
    model.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    return model


def norm(tensors: Mapping[str, Tensor], prefix: str = "") -> float:
    """Euclidean norm of all floating-point tensors whose name begins with `prefix`."""
    chosen = [tensor for name, tensor in tensors.items() if name.startswith(prefix) and tensor.is_floating_point()]
    return float(sum(tensor.double().square().sum() for tensor in chosen)) ** 0.5


def measure(*overrides: str) -> Numbers:
    """The metrics of every epoch of an fp64 run, then the norms of its weights and of their average."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "build", build_in_fp64)
        settings = settings_of(Path(folder), "threads=null", *overrides)
        record = engine.run(settings)
        run = only_run(Path(folder))
        kept = Checkpoints(run, record["run_id"]).load()
        assert kept is not None
        metrics = [{key: value for key, value in line.items() if value is not None} for line in lines(run)]
        return [*metrics, {"weights": norm(kept.tensors, "model."), "average": norm(kept.tensors, "ema.")}]


def agrees(measured: Numbers, expected: Numbers) -> bool:
    """Whether all numbers of two runs are equal within TOLERANCE."""
    return len(measured) == len(expected) and all(
        got == pytest.approx(wanted, rel=TOLERANCE) for got, wanted in zip(measured, expected, strict=True)
    )


def read_golden() -> dict[str, Any]:
    """The recorded numbers: results_version, and per run what `measure` returned."""
    golden: dict[str, Any] = json.loads(GOLDEN.read_text())
    return golden


def write_golden() -> None:
    """Measure the golden runs anew."""
    runs = {name: measure(*overrides) for name, overrides in RUNS.items()}
    GOLDEN.write_text(json.dumps({"results_version": RESULTS_VERSION, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    write_golden()
