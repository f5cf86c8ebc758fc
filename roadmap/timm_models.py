"""Registers every network of the roadmaps in every regime with timm.

`timm.create_model("roadmap_tiny_kernel_7")` works after importing this.
"""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from roadmap.design import FLAGS, Design
from roadmap.network import RoadmapNet
from roadmap.regimes import REGIMES
from roadmap.resolve import design_for, qualified
from roadmap.steps import DEFAULT, ROADMAPS

# Of the roadmaps beside ConvNeXt's those steps that change the network, e.g. roadmap_base_resnet_rs_squeeze_excite.
_STEPS = {
    qualified(step).replace(".", "_"): step.changes
    for road in ROADMAPS.values()
    for step in road.steps
    if road is DEFAULT or step.own.design_in("tiny")
}
_NAMES = {f"roadmap_{regime}_{name}": (regime, changes) for regime in REGIMES for name, changes in _STEPS.items()}
_DATA: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "num_classes": 1000,
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "first_conv": "stem.conv",
    "classifier": "head.fc",
}


def design_of(name: str, **flags: Any) -> Design:
    """The network of a registered name, with flags on top. Raises KeyError or DesignError."""
    regime, changes = _NAMES[name]
    return design_for(changes, regime, **flags)


def _config(regime: str, changes: tuple[str, ...]) -> dict[str, Any]:
    """What timm keeps of a step, for images of 224 pixels."""
    design = design_for(changes, regime)
    side = _DATA["input_size"][-1] // design.reduction
    return {"url": "", **_DATA, "pool_size": (side, side), "description": _description(regime, changes)}


def _description(regime: str, changes: tuple[str, ...]) -> str:
    return f"In regime {regime}: {', '.join(changes) or 'no change'}."


default_cfgs = generate_default_cfgs({name: _config(*key) for name, key in _NAMES.items()})


def _create(
    regime: str,
    changes: tuple[str, ...],
    num_classes: int = 1000,
    in_chans: int = 3,
    global_pool: str = "avg",
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    output_stride: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **flags: Any,
) -> RoadmapNet:
    """Take timm's arguments; every other one is a design flag, as a file of JSON has it.

    Raises:
        TypeError: an argument that is neither.
        ValueError: pooling or an output stride that the network does not have.
        DesignError: a flag's value is outside its range.
    """
    unknown = sorted(set(flags) - set(FLAGS))
    if unknown:
        raise TypeError(f"unknown argument {unknown[0]!r}; beside timm's there are: {', '.join(FLAGS)}")
    rates = {"dropout": drop_rate, "drop_path": drop_path_rate}
    design = design_for(changes, regime, **flags | {flag: rate for flag, rate in rates.items() if rate is not None})
    if output_stride not in (None, design.reduction):
        raise ValueError(f"output_stride={output_stride} is not one of: {design.reduction}")
    with nullcontext() if device is None else torch.device(device):
        return RoadmapNet(design, num_classes, in_chans, global_pool).to(dtype=dtype)


def _entry_point(name: str) -> Callable[..., RoadmapNet]:
    regime, changes = _NAMES[name]

    def create(pretrained: bool = False, **kwargs: Any) -> RoadmapNet:
        stages = len(kwargs.get("depths") or design_for(changes, regime).depths)
        return build_model_with_cfg(
            _create,
            name,
            pretrained,
            feature_cfg={"out_indices": tuple(range(stages)), "flatten_sequential": True},
            regime=regime,
            changes=changes,
            **kwargs,
        )

    create.__name__ = create.__qualname__ = name
    create.__module__ = __name__
    create.__doc__ = _description(regime, changes)
    return create


__all__: list[str] = []  # timm's registry adds each name
for _name in _NAMES:
    setattr(sys.modules[__name__], _name, register_model(_entry_point(_name)))
