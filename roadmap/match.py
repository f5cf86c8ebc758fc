"""Scale a design's width so that its network meets a budget of multiply-accumulates (the key `match_gmacs`)."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache

from roadmap.complexity import complexity_of
from roadmap.design import Design
from roadmap.errors import DesignError
from roadmap.plan import plan_network

NARROWEST, WIDEST = 1, 512


@cache
def widths_for(stages: int) -> tuple[float, ...]:
    """Ascending widths that give every network there is: stage i of n has round(width * 2**i) channels, i < n."""
    unit = 2 ** (stages + 1)
    return tuple(step / unit for step in range(NARROWEST * unit, WIDEST * unit + 1))


def match_width(
    design: Design,
    target_gmacs: float,
    image_size: int | tuple[int, int] = 224,
    num_classes: int = 1000,
    tolerance: float = 0.02,
    stem_stride: int = 4,
) -> Design:
    """The design at the real-valued width that brings its GMACs nearest to a target.

    GMACs are counted as the paper does: with stem_stride 4 whatever the design's own, at 224 px and 1000 classes.
    A design that comes as near at its own width keeps it. Where `groups` is a number, only widths are tried whose
    channels it divides.

    Args:
        design: any design; every flag but the width stays as it is.
        target_gmacs: multiply-accumulates of a forward pass of one image, in 1e9.
        image_size: pixels.
        num_classes: outputs of the classifier.
        tolerance: largest distance from the target, relative to it.
        stem_stride: at which they are counted; isotropic networks have 16.

    Raises:
        DesignError: the target is no positive number, or no width comes within the tolerance.
    """
    number = isinstance(target_gmacs, int | float) and not isinstance(target_gmacs, bool)
    if not (number and math.isfinite(target_gmacs) and target_gmacs > 0):
        raise DesignError(f"match_gmacs={target_gmacs!r} must be null or a number above 0, e.g. 4.5")

    @cache
    def gmacs(width: float) -> float:
        counted = design.replace(width=width, stem_stride=stem_stride)
        return complexity_of(counted, image_size=image_size, num_classes=num_classes).gmacs

    def distance(width: float) -> float:
        return abs(gmacs(width) - target_gmacs)

    widths = _widths(design)
    above = bisect_left(widths, target_gmacs, key=gmacs)
    around = widths[max(above - 4, 0) : above + 4]  # several may give the same channels: the roundest is taken
    best = min(around, key=lambda width: (distance(width), width.as_integer_ratio()[1]))
    if distance(best) > tolerance * target_gmacs:
        nearest, lowest, highest = (
            " and ".join(f"{gmacs(width):.4g} (width {width:g})" for width in some)
            for some in (widths[max(above - 1, 0) : above + 1], widths[:1], widths[-1:])
        )
        raise DesignError(
            f"match_gmacs={target_gmacs:g} cannot be met within {tolerance:.0%}; nearest for this design: {nearest}; "
            f"its range: {lowest} to {highest}"
        )
    return design if _fits(design) and distance(design.width) <= distance(best) else design.replace(width=best)


def _widths(design: Design) -> Sequence[float]:
    """The widths to try, ascending; where `groups` is a number above 1, those in eighths whose channels it divides.

    Raises:
        DesignError: there is none.
    """
    widths = widths_for(len(design.depths))
    if design.groups in ("depthwise", 1):
        return widths
    shallow = design.replace(depths=tuple(min(depth, 2) for depth in design.depths))  # later blocks repeat the second
    widths = tuple(width for width in widths if width % 0.125 == 0 and _fits(shallow.replace(width=width)))
    if not widths:
        raise DesignError(f"match_gmacs: design.groups={design.groups} divides the channels of no width up to {WIDEST}")
    return widths


def _fits(design: Design) -> bool:
    try:
        plan_network(design)
    except DesignError:
        return False
    return True
