"""Designs to test with: the product of all flags, a covering array of it, and a network's cost as torch counts it."""

import itertools
import math
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from roadmap import Design, design_for
from roadmap.design import RULES, flags_asked_by

# Values that reach every branch of the rule of a flag whose values cannot be listed.
OPEN: dict[str, tuple[Any, ...]] = {
    "groups": (1, 2, "depthwise"),
    "kernel_size": (3, 5, 7, 9, 11),
    "squeeze_excite": (None, 1 / 16, 0.5),
    "layer_scale": (None, 1e-6, 0.5),
    "drop_path": (0.0, 0.3),
    "dropout": (0.0, 0.2),
}
SIZES = ("depths", "width")
LEARNING = {flag: RULES[flag].choices or OPEN[flag] for flag in flags_asked_by("recipe")}
STRUCTURE = {flag: rule.choices or OPEN[flag] for flag, rule in RULES.items() if flag not in (*SIZES, *LEARNING)}
FLAG_VALUES = STRUCTURE | LEARNING
SMALL = {"depths": (1, 2, 1, 1), "width": 8}
ANY_DEPTHS = ((2,), (1, 2), (1, 2, 1, 1), (1, 1, 2, 1, 1))

# Small networks with what no step of the road to ConvNeXt has.
OTHERS = {
    "resnet_ac": Design(**SMALL, stem="deep", early_stride=True, init="zero_gamma"),
    "resnet_rs": Design(**SMALL, stem="deep_conv", pooled_shortcut=True, squeeze_excite=0.25),
    "convnext_v2": design_for("separate_downsampling", **SMALL, grn=True),
    "convnext_d_se": design_for("layer_norm", **SMALL, pooled_shortcut=True, squeeze_excite=0.5, grn=True),
    "isotropic": design_for("separate_downsampling", depths=(3,), width=16, stem_stride=16),
}


def flag_product(flags: dict[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Every combination of the flags' values."""
    return (dict(zip(flags, values, strict=True)) for values in itertools.product(*flags.values()))


def pairs_of(choice: dict[str, Any]) -> set[tuple[tuple[str, Any], tuple[str, Any]]]:
    """All pairs of (flag, value) that a choice of values holds."""
    return set(itertools.combinations(choice.items(), 2))


def all_pairs(flags: dict[str, tuple[Any, ...]]) -> set[tuple[tuple[str, Any], tuple[str, Any]]]:
    """All pairs of values of two different flags."""
    return {
        ((one, a), (other, b))
        for one, other in itertools.combinations(flags, 2)
        for a, b in itertools.product(flags[one], flags[other])
    }


def covering_array(flags: dict[str, tuple[Any, ...]], count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` choices of values that hold every pair: greedy among random candidates, then filled up at random."""
    rng = random.Random(seed)

    def draw() -> dict[str, Any]:
        return {flag: rng.choice(values) for flag, values in flags.items()}

    chosen, left = [], all_pairs(flags)
    while left:
        best = max((draw() for _ in range(30)), key=lambda choice: len(pairs_of(choice) & left))
        chosen.append(best)
        left -= pairs_of(best)
    return chosen + [draw() for _ in range(count - len(chosen))]


def name_of(choice: dict[str, Any]) -> str:
    """A test's name for a choice of values: the values in the flags' order."""
    return "-".join(str(value) for value in choice.values())


class OutputCounter(TorchDispatchMode):
    """Counts the output elements of every convolution and matrix product that runs, however a module calls it."""

    OPS = (torch.ops.aten.convolution, torch.ops.aten.addmm, torch.ops.aten.mm, torch.ops.aten.bmm)

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in self.OPS:
            self.elements += out.numel()
        return out


def measured(model: nn.Module, image_size: tuple[int, int], device: str = "meta") -> tuple[int, int, int]:
    """(params, macs, activations) of one image as torch counts them on the built module."""
    image = torch.empty(1, 3, *image_size, device=device)
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        model(image)
    with torch.no_grad(), OutputCounter() as outputs:
        model(image)
    params = sum(parameter.numel() for parameter in model.parameters())
    assert flops.get_total_flops() % 2 == 0
    return params, flops.get_total_flops() // 2, outputs.elements


def output_side(design: Design, side: int) -> int:
    """Side of the last feature map: every stride rounds up."""
    strides = [design.stem_stride] if design.stem == "patchify" else [2] * int(math.log2(design.stem_stride))
    for stride in (*strides, *[2] * (len(design.depths) - 1)):
        side = math.ceil(side / stride)
    return side
