"""Does accuracy saturate with the kernel size?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import theme
from analysis.attribution.kernels import KERNELS, SMALLEST, KernelCurve
from analysis.ladder import Ladder
from roadmap.steps import Roadmap

_MARKS = (("o", theme.OURS), ("D", theme.PAPER), ("s", theme.MUTED), ("^", theme.GOOD), ("v", theme.BAD))


@dataclass(frozen=True)
class Curve:
    """Gain over the smallest kernel by kernel side, points, and half of its 95 % interval; NaN where there is none."""

    sizes: Sequence[int]
    gains: Sequence[float]
    halves: Sequence[float]


def kernel_steps(road: Roadmap) -> dict[str, int]:
    """The step that a roadmap's kernel sizes build on, and these: name -> kernel side; {} where there are none."""
    steps = [step for step in road.steps if step.name in KERNELS]
    start = next((step.parent for step in steps if step.on_path), None)
    if start is None or set(KERNELS) & set(road.by_name[start].changes):
        return {}
    return {start: SMALLEST} | {step.name: KERNELS[step.name] for step in steps if step.parent == start}


def ladder_curve(ladder: Ladder) -> Curve:
    """The kernel sizes of a ladder."""
    rows, sizes = ladder.table.set_index("step"), kernel_steps(ladder.road)
    names = [name for name in sizes if name in rows.index]  # the published ladder lacks one's own
    gains = [float(rows["gain"][name]) for name in names]
    halves = [float(rows["gain_high"][name] - rows["gain"][name]) for name in names]
    if names:  # the first is what the others are measured by
        gains[0], halves[0] = (0.0 if rows["n"][names[0]] else math.nan), math.nan
    return Curve([sizes[name] for name in names], gains, halves)


def context_curve(found: KernelCurve) -> Curve:
    """The kernel sizes on one set of other changes."""
    gains = found.gains
    return Curve(found.sizes, [0.0, *gains.estimate.tolist()], [math.nan, *(gains.high - gains.estimate).tolist()])


def has_kernels(ladder: Ladder) -> bool:
    """Whether the smallest kernel and at least one other were trained."""
    return sum(math.isfinite(gain) for gain in ladder_curve(ladder).gains) >= 2


@theme.styled
def kernels_figure(curves: Mapping[str, Curve], *, caption: str = "", size: str = "page") -> Figure:
    """Gain over the 3x3 kernel by kernel size, a line per named curve; hollow where there is no interval."""
    fig = theme.figure(size, height=17 + caption.count("\n"))
    axes = fig.subplots()
    theme.note(fig, caption, size)
    axes.grid(True)
    axes.axhline(0, color=theme.MUTED, linewidth=theme.points(0.8))
    handles: list[Line2D] = []
    for i, ((name, curve), (mark, colour)) in enumerate(zip(curves.items(), cycle(_MARKS), strict=False)):
        places = [kernel + 0.09 * (i - (len(curves) - 1) / 2) for kernel in curve.sizes]
        bars = {"elinewidth": theme.points(0.9), "capsize": theme.points(2), "fmt": "none"}
        axes.errorbar(places, curve.gains, curve.halves, color=colour, **bars)
        axes.plot(places, curve.gains, "-", color=colour)
        for place, gain, half in zip(places, curve.gains, curve.halves, strict=True):
            face = "white" if half != half and gain != 0 else colour
            axes.plot(place, gain, mark, color=colour, markersize=theme.points(4.5), markerfacecolor=face)
        filled = colour if any(half == half for half in curve.halves) else "white"
        shown = {"marker": mark, "color": colour, "markersize": theme.points(4.5)}
        handles.append(Line2D([], [], label=name, markerfacecolor=filled, **shown))
    sizes = sorted({kernel for curve in curves.values() for kernel in curve.sizes})
    axes.set_xticks(sizes, [f"{k} × {k}" for k in sizes])
    axes.set_xlabel("kernel of the spatial convolution")
    axes.set_ylabel(f"gain over {SMALLEST} × {SMALLEST} (points)")
    columns = 1 if size == "column" else min(len(handles), 3)
    fig.legend(handles=handles, loc="outside upper left", ncols=columns)
    return fig
