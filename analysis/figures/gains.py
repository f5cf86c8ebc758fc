"""What each step gains over the step that it builds on, how sure that is, and what the paper found."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis import theme
from analysis.gains import GAIN, LOSS
from analysis.ladder import Ladder

INTERVALS = "gain with 95 % interval (thin: all gains at once)"
COLOURS = {GAIN: theme.GOOD, LOSS: theme.BAD}


@theme.styled
def gains_figure(ladder: Ladder, *, paper: Ladder | None = None, caption: str = "", size: str = "page") -> Figure:
    """A dot with its 95 % interval per step; the paper's gain as a diamond; the band is what these runs cannot find."""
    rows = ladder.table[ladder.table["parent"].notna()].reset_index(drop=True)
    beside = 10 if size == "column" else 5  # legend, labels of the axis, caption: more lines where it is narrow
    fig = theme.figure(size, height=1.35 * len(rows) + beside + caption.count("\n"))
    axes = fig.subplots()
    theme.note(fig, caption, size)
    theme.clean(axes, "x")
    mde = rows["mde"].median()
    if mde == mde:
        axes.axvspan(-mde, mde, color=theme.GRID, zorder=0, linewidth=0)
    axes.axvline(0, color=theme.MUTED, linewidth=theme.points(0.8), zorder=1)
    for y, row in enumerate(rows.itertuples()):
        draw_gain(axes, y, row, row.step)
        if paper is not None and row.paper_gain == row.paper_gain:
            axes.plot(
                row.paper_gain, y + 0.27, "D", color=theme.PAPER, markersize=theme.points(3), zorder=2, clip_on=False
            )
    axes.set_yticks(np.arange(len(rows)))
    axes.set_yticklabels(rows["label"])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("gain in top-1 over the step before (points)")
    fig.legend(
        handles=_legend(rows["gain_low"].notna().any(), mde == mde, paper),
        loc="outside upper left",
        ncols=1 if size == "column" else 3,
    )
    return fig


def draw_gain(axes: Axes, y: int, row: Any, name: str) -> None:
    """A gain with its interval and verdict in one line of a figure; hollow where there is no interval."""
    colour = COLOURS.get(row.verdict, theme.MUTED)
    sure = row.gain_low == row.gain_low
    if sure:
        axes.plot([row.gain_low, row.gain_high], [y, y], color=colour, zorder=2)
        axes.plot([row.joint_low, row.joint_high], [y, y], color=colour, linewidth=theme.points(0.8), zorder=2)
    if row.gain == row.gain:
        face = colour if sure else "white"
        dot = axes.plot(row.gain, y, "o", color=colour, markerfacecolor=face, markersize=theme.points(5), zorder=3)
        dot[0].set_gid(f"gain:{name}")
    beside = axes.get_yaxis_transform()
    axes.text(1.015, y, row.verdict, transform=beside, va="center", color=colour, clip_on=False)


def _legend(intervals: bool, band: bool, paper: Ladder | None) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    if intervals:
        handles.append(Line2D([], [], color=theme.INK, marker="o", label=INTERVALS))
    else:
        handles.append(
            Line2D([], [], color=theme.INK, marker="o", markerfacecolor="white", linestyle="", label="gain, n = 1")
        )
    if paper is not None:
        handles.append(
            Line2D(
                [],
                [],
                color=theme.PAPER,
                marker="D",
                linestyle="",
                markersize=theme.points(3),
                label=f"the {paper.publication}'s gain",
            )
        )
    if band:
        handles.append(Patch(facecolor=theme.GRID, label="too small for a verdict (80 % power)"))
    return handles
