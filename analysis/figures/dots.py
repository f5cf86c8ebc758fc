"""Gains of configurations over what each is compared with: a dot with its interval per row."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import theme
from analysis.figures.gains import INTERVALS, draw_gain

_LONGEST = {"page": 46, "slide": 46, "column": 20}  # characters of a name


@theme.styled
def dots_figure(table: pd.DataFrame, *, caption: str = "", size: str = "page") -> Figure:
    """A row per configuration of `table` (name, over, and the columns of `gains.with_gains`)."""
    rows = table.reset_index(drop=True)
    same = rows["over"].nunique() == 1
    pitch = 1.35 if same else 2.3
    fig = theme.figure(size, height=pitch * len(rows) + 6 + caption.count("\n"))
    axes = fig.subplots()
    theme.note(fig, caption, size)
    theme.clean(axes, "x")
    axes.axvline(0, color=theme.MUTED, linewidth=theme.points(0.8), zorder=1)
    for y, row in enumerate(rows.itertuples()):
        draw_gain(axes, y, row, row.name)
    names = [_short(row.name, size) + ("" if same else f"\nover {_short(row.over, size)}") for row in rows.itertuples()]
    axes.set_yticks(np.arange(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    over = f"{rows['over'].iloc[0]} " if same else ""
    axes.set_xlabel(f"gain in top-1 over {_short(over, size) or 'the nearest row of the ladder '}(points)")
    sure = rows["gain_low"].notna()
    handles = [Line2D([], [], color=theme.INK, marker="o", label=INTERVALS)] * bool(sure.any())
    if not sure.all():
        handles.append(
            Line2D(
                [], [], color=theme.INK, marker="o", markerfacecolor="white", linestyle="", label="gain, no interval"
            )
        )
    fig.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return fig


def _short(name: str, size: str) -> str:
    longest = _LONGEST[size]
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
