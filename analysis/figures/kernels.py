"""Does accuracy saturate with the kernel size?"""

import math
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import theme
from analysis.ladder import Ladder
from roadmap import STEPS

_KERNELS = [step for step in STEPS if "kernel_size" in step.delta]
START = _KERNELS[0].parent  # all kernel sizes build on the same step
SIZES = {START: 3} | {step.name: int(step.delta["kernel_size"]) for step in _KERNELS}
_MARKS = (("o", theme.OURS), ("D", theme.PAPER), ("s", theme.MUTED))


@dataclass(frozen=True)
class _Curve:
    sizes: list[int]
    gains: list[float]
    halves: list[float]


def _curve(ladder: Ladder) -> _Curve:
    """Gain over the smallest kernel by kernel size and half of its 95 % interval; NaN where there is none."""
    rows = ladder.table.set_index("step")
    start = 0.0 if rows["n"][START] else math.nan
    gains = [start if name == START else float(rows["gain"][name]) for name in SIZES]
    halves = [math.nan if name == START else float(rows["gain_high"][name] - rows["gain"][name]) for name in SIZES]
    return _Curve(list(SIZES.values()), gains, halves)


def has_kernels(ladder: Ladder) -> bool:
    """Whether the smallest kernel and at least one other were trained."""
    return sum(math.isfinite(gain) for gain in _curve(ladder).gains) >= 2


@theme.styled
def kernels_figure(ladders: dict[str, Ladder], *, caption: str = "", size: str = "page") -> Figure:
    """Gain over the 3x3 kernel by kernel size, a line per named ladder; hollow where there is no interval."""
    fig = theme.figure(size, height=17 + caption.count("\n"))
    axes = fig.subplots()
    theme.note(fig, caption, size)
    handles: list[Line2D] = []
    axes.grid(True)
    axes.axhline(0, color=theme.MUTED, linewidth=theme.points(0.8))
    for i, ((name, ladder), (mark, colour)) in enumerate(zip(ladders.items(), _MARKS, strict=False)):
        curve = _curve(ladder)
        places = [kernel + 0.09 * (i - (len(ladders) - 1) / 2) for kernel in curve.sizes]
        axes.errorbar(
            places,
            curve.gains,
            curve.halves,
            color=colour,
            elinewidth=theme.points(0.9),
            capsize=theme.points(2),
            fmt="none",
        )
        axes.plot(places, curve.gains, "-", color=colour)
        for place, gain, half in zip(places, curve.gains, curve.halves, strict=True):
            face = "white" if half != half and gain != 0 else colour
            axes.plot(place, gain, mark, color=colour, markersize=theme.points(4.5), markerfacecolor=face)
        shown = {"marker": mark, "color": colour, "markersize": theme.points(4.5)}
        handles.append(
            Line2D(
                [], [], label=name, markerfacecolor=colour if any(h == h for h in curve.halves) else "white", **shown
            )
        )
    axes.set_xticks(list(SIZES.values()), [f"{k} × {k}" for k in SIZES.values()])
    axes.set_xlabel("kernel of the depthwise convolution")
    axes.set_ylabel("gain over 3 × 3 (points)")
    fig.legend(handles=handles, loc="outside upper left", ncols=1 if size == "column" else len(handles))
    return fig
