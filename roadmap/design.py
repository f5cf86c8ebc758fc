"""`Design`: one network of the roadmaps as two dozen flags; the defaults are ResNet-50."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from roadmap.errors import DesignError
from roadmap.operations import ACTS, NORMS

STEMS = ("resnet", "deep", "deep_conv", "patchify")
STEM_STRIDES = (16, 8, 4, 2, 1)
INITS = ("kaiming", "zero_gamma", "trunc_normal")
EXPANSION = 4  # hidden or outer channels of a block over its thin side


@dataclass(frozen=True)
class Rule:
    """What a flag may be.

    Attributes:
        allowed: the same in words, as it ends an error message.
        accepts: whether a value is allowed.
        choices: all allowed values where they can be listed.
        plain: an allowed value in the form in which equal values are equal.
    """

    allowed: str
    accepts: Callable[[Any], bool]
    choices: tuple[Any, ...] = ()
    plain: Callable[[Any], Any] = lambda value: value


def _one_of(*choices: Any) -> Rule:
    # True == 1 in Python, so types are compared as well.
    def accepts(value: Any) -> bool:
        return any(value == choice and type(value) is type(choice) for choice in choices)

    return Rule(f"is not one of: {', '.join(map(str, choices))}", accepts, choices)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (_is_int(value) or isinstance(value, float)) and math.isfinite(value)


def _are_depths(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(_is_int(d) and d >= 1 for d in value)


YES_OR_NO = _one_of(True, False)  # the rule of a flag that states none
_DEPTHS = Rule("must be whole numbers of at least 1, one a stage, e.g. [3,4,6,3]", _are_depths, plain=tuple)
_WIDTH = Rule(
    "must be a number of at least 1",
    lambda value: _is_number(value) and round(value) >= 1,
    plain=lambda value: int(value) if float(value).is_integer() else value,
)
_GROUPS = Rule(
    "must be depthwise or a whole number of at least 1",
    lambda value: value == "depthwise" or (_is_int(value) and value >= 1),
)
_KERNEL = Rule(
    "must be an odd whole number of at least 1, e.g. 3, 5, 7",
    lambda value: _is_int(value) and value >= 1 and value % 2 == 1,
)
_LAYER_SCALE = Rule(
    "must be null or a number of at least 0, e.g. 1e-6",
    lambda value: value is None or (_is_number(value) and value >= 0),
)
_RATE = Rule("must be at least 0 and below 1", lambda value: _is_number(value) and 0 <= value < 1, plain=float)
_RATIO = Rule(
    "must be null or a number above 0 and at most 1, e.g. 0.25",
    lambda value: value is None or (_is_number(value) and 0 < value <= 1),
    plain=lambda value: value if value is None else float(value),
)


def _flag(default: Any, rule: Rule, asked_by: str = "", **before: Any) -> Any:
    """A field with its rule.

    Args:
        default: its value in ResNet-50.
        rule: what it may be.
        asked_by: what sets it in a run where no step of the ladder does.
        **before: `before=VALUE`, for a flag that came when there were records already: the value that gives the
            networks of these. It never changes, whatever the default becomes.
    """
    return dataclasses.field(default=default, metadata={"rule": rule, "asked_by": asked_by, **before})


@dataclass(frozen=True)
class Design:
    """A network, described by independent flags; every combination builds (paper, Section 2).

    Raises:
        DesignError: a value is outside its range; the message names the flag and what is allowed.
    """

    depths: tuple[int, ...] = _flag((3, 4, 6, 3), _DEPTHS)  # blocks per stage, of any number of stages
    width: float = _flag(64, _WIDTH)  # stage i is round(width * 2**i) wide
    stem: str = _flag("resnet", _one_of(*STEMS))  # 7x7 (deep: three 3x3) with max-pooling, or patches of s x s
    stem_stride: int = _flag(4, _one_of(*STEM_STRIDES), "data")  # 4; isotropic networks 16; small images 2 or 1
    groups: int | str = _flag(1, _GROUPS)  # of the spatial convolution: an int that divides its channels, or depthwise
    kernel_size: int = _flag(3, _KERNEL)  # of the spatial convolution, odd
    inverted: bool = False  # thin outside and wide inside
    spatial_first: bool = False  # the spatial convolution moves to the front of the block
    act: str = _flag("relu", _one_of(*ACTS))  # in every place of an activation
    fewer_acts: bool = False  # one activation per block
    fewer_norms: bool = False  # one norm per block
    norm: str = _flag("bn", _one_of(*NORMS))  # in every place of a norm: BatchNorm, or LayerNorm over channels
    separate_downsample: bool = False  # 2x2 stride-2 convolutions between stages
    boundary_norms: bool = False  # norms after a patchify stem, before separate downsampling, after global pooling
    early_stride: bool = _flag(False, YES_OR_NO, before=False)  # the block's stride sits in its first convolution
    pooled_shortcut: bool = _flag(False, YES_OR_NO, before=False)  # averages do what a shortcut's stride did
    squeeze_excite: float | None = _flag(None, _RATIO, before=None)  # its hidden channels over the block's outer ones
    grn: bool = _flag(False, YES_OR_NO, before=False)  # global response normalisation before the last convolution
    layer_scale: float | None = _flag(None, _LAYER_SCALE, "recipe")  # of the residual branch, per channel: its start
    init: str = _flag("kaiming", _one_of(*INITS), "recipe")  # of the weights
    drop_path: float = _flag(0.0, _RATE, "recipe")  # stochastic depth: of the last block, linear in depth from 0
    dropout: float = _flag(0.0, _RATE, "recipe", before=0.0)  # of the classifier's input

    def __post_init__(self) -> None:
        for name, rule in RULES.items():
            value = getattr(self, name)
            if not rule.accepts(value):
                raise DesignError(f"design.{name}={value!r} {rule.allowed}")
            object.__setattr__(self, name, rule.plain(value))

    def replace(self, **flags: Any) -> "Design":
        """A copy with some flags set otherwise; an unknown flag is a DesignError."""
        unknown = sorted(set(flags) - set(FLAGS))
        if unknown:
            raise DesignError(f"unknown design flag {unknown[0]!r}; the flags are: {', '.join(FLAGS)}")
        return dataclasses.replace(self, **flags)

    @property
    def reduction(self) -> int:
        """Input side over the side of the last stage's map."""
        return self.stem_stride * 2 ** (len(self.depths) - 1)

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


RULES: dict[str, Rule] = {item.name: item.metadata.get("rule", YES_OR_NO) for item in dataclasses.fields(Design)}
FLAGS = tuple(RULES)
BEFORE = {item.name: item.metadata["before"] for item in dataclasses.fields(Design) if "before" in item.metadata}


def flags_asked_by(*askers: str) -> tuple[str, ...]:
    """The flags that recipe or data ask of a design ("recipe", "data"): they make no step of the ladder."""
    return tuple(item.name for item in dataclasses.fields(Design) if item.metadata.get("asked_by") in askers)
