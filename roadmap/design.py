"""`Design`: one network of the roadmap as a dozen flags; the defaults are ResNet-50."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from roadmap.errors import DesignError

STAGES = 4
STEMS = ("resnet", "patchify")
STEM_STRIDES = (4, 2, 1)
ACTS = ("relu", "gelu")
NORMS = ("bn", "ln")
INITS = ("kaiming", "trunc_normal")
EXPANSION = 4  # hidden or outer channels of a block over its thin side


@dataclass(frozen=True)
class Design:
    """A network, described by independent flags; every combination builds (paper, Section 2).

    Raises:
        DesignError: a value is outside its range; the message names the flag and what is allowed.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)  # blocks per stage
    width: float = 64  # stage i is round(width * 2**i) wide
    stem: str = "resnet"  # one of STEMS
    stem_stride: int = 4  # 4 as in the paper; 2 and 1 for small images
    groups: int | str = 1  # of the spatial convolution: an int that divides its channels, or "depthwise"
    kernel_size: int = 3  # of the spatial convolution, odd
    inverted: bool = False  # thin outside and wide inside
    spatial_first: bool = False  # the spatial convolution moves to the front of the block
    act: str = "relu"  # one of ACTS
    fewer_acts: bool = False  # one activation per block
    fewer_norms: bool = False  # one norm per block
    norm: str = "bn"  # one of NORMS
    separate_downsample: bool = False  # 2x2 stride-2 convolutions between stages
    boundary_norms: bool = False  # norms after a patchify stem, before separate downsampling, after global pooling
    layer_scale: float | None = None  # initial value of a learned factor per channel on the residual branch
    init: str = "kaiming"  # one of INITS
    drop_path: float = 0.0  # stochastic depth: rate of the last block, linear in depth from 0

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))

    def replace(self, **flags: Any) -> "Design":
        """A copy with some flags set otherwise; an unknown flag is a DesignError."""
        unknown = sorted(set(flags) - set(FLAGS))
        if unknown:
            raise DesignError(f"unknown design flag {unknown[0]!r}; the flags are: {', '.join(FLAGS)}")
        return dataclasses.replace(self, **flags)

    def stage_width(self, stage: int) -> int:
        """The thin channel count of a stage: width * 2**stage, rounded by itself."""
        return round(self.width * 2**stage)

    def block_channels(self, stage: int) -> tuple[int, int]:
        """(outer, hidden) channels of a block in this stage: wide outside as in ResNet, or wide inside if inverted."""
        thin = self.stage_width(stage)
        wide = EXPANSION * thin
        return (thin, wide) if self.inverted else (wide, thin)

    def drop_rates(self) -> tuple[float, ...]:
        """The stochastic-depth rate of each block in order, linear in depth from 0 to `drop_path`."""
        total = sum(self.depths)
        return tuple(self.drop_path * i / max(total - 1, 1) for i in range(total))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (_is_int(value) or isinstance(value, float)) and math.isfinite(value)


def _one_of(*allowed: Any) -> Any:
    def check(name: str, value: Any) -> Any:
        # True == 1 in Python, so types are compared as well.
        if not any(value == option and type(value) is type(option) for option in allowed):
            raise DesignError(f"design.{name}={value!r} is not one of: {', '.join(str(option) for option in allowed)}")
        return value

    return check


def _check_depths(name: str, value: Any) -> tuple[int, ...]:
    good = isinstance(value, list | tuple) and len(value) == STAGES and all(_is_int(d) and d >= 1 for d in value)
    if not good:
        raise DesignError(f"design.{name}={value!r} must be {STAGES} whole numbers of at least 1, e.g. [3,4,6,3]")
    return tuple(value)


def _check_width(name: str, value: Any) -> float:
    if not _is_number(value) or round(value) < 1:
        raise DesignError(f"design.{name}={value!r} must be a number of at least 1")
    return int(value) if float(value).is_integer() else value


def _check_groups(name: str, value: Any) -> int | str:
    if value != "depthwise" and not (_is_int(value) and value >= 1):
        raise DesignError(f"design.{name}={value!r} must be depthwise or a whole number of at least 1")
    return value


def _check_kernel(name: str, value: Any) -> int:
    if not _is_int(value) or value < 1 or value % 2 == 0:
        raise DesignError(f"design.{name}={value!r} must be an odd whole number of at least 1, e.g. 3, 5, 7")
    return value


def _check_layer_scale(name: str, value: Any) -> float | None:
    if value is not None and not (_is_number(value) and value >= 0):
        raise DesignError(f"design.{name}={value!r} must be null or a number of at least 0, e.g. 1e-6")
    return value


def _check_drop_path(name: str, value: Any) -> float:
    if not _is_number(value) or not 0 <= value < 1:
        raise DesignError(f"design.{name}={value!r} must be at least 0 and below 1")
    return float(value)


_FLAG = _one_of(True, False)
_CHECKS = {
    "depths": _check_depths,
    "width": _check_width,
    "stem": _one_of(*STEMS),
    "stem_stride": _one_of(*STEM_STRIDES),
    "groups": _check_groups,
    "kernel_size": _check_kernel,
    "inverted": _FLAG,
    "spatial_first": _FLAG,
    "act": _one_of(*ACTS),
    "fewer_acts": _FLAG,
    "fewer_norms": _FLAG,
    "norm": _one_of(*NORMS),
    "separate_downsample": _FLAG,
    "boundary_norms": _FLAG,
    "layer_scale": _check_layer_scale,
    "init": _one_of(*INITS),
    "drop_path": _check_drop_path,
}
FLAGS = tuple(field.name for field in dataclasses.fields(Design))
