"""Gains of changes by several methods, their interactions, and how a gain depends on the position in the order."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import theme
from analysis.attribution.game import Effects

_MARKS = (
    *(("o", theme.INK), ("^", theme.OURS), ("v", theme.PAPER), ("D", theme.GOOD)),
    *(("s", "#A0458A"), ("P", "#2A7F9E"), ("X", "#7A5C2E")),
)
THIRDS = ("early", "middle", "late")


@theme.styled
def effects_figure(
    series: Mapping[str, Effects],
    labels: Mapping[str, str],
    *,
    what: str = "gain in top-1 (points)",
    caption: str = "",
    size: str = "page",
) -> Figure:
    """A row per name, a mark with its 95 % interval per series; nothing for what a diverged run took away."""
    names = list(dict.fromkeys(name for effects in series.values() for name in effects.names))
    step = 0.8 / max(len(series), 1)
    shown = [textwrap.fill(labels.get(name, name), 22 if size == "column" else 40) for name in names]
    lines = max(label.count("\n") + 1 for label in shown)
    fig = theme.figure(size, height=max(0.9 * lines + 0.4, 0.55 * len(series) + 0.6) * len(names) + 6)
    axes = fig.subplots()
    theme.note(fig, caption, size)
    theme.clean(axes, "x")
    axes.axvline(0, color=theme.MUTED, linewidth=theme.points(0.8), zorder=1)
    handles = []
    for i, ((title, effects), (mark, colour)) in enumerate(zip(series.items(), _MARKS, strict=False)):
        offset = step * (i - (len(series) - 1) / 2)
        for name, value, low, high in zip(effects.names, effects.estimate, effects.low, effects.high, strict=True):
            y = names.index(name) + offset
            if np.isfinite(low) and np.isfinite(high):
                axes.plot([low, high], [y, y], color=colour, zorder=2)
            face = colour if np.isfinite(low) else "white"
            dot = axes.plot(value, y, mark, color=colour, markerfacecolor=face, markersize=theme.points(4.5), zorder=3)
            dot[0].set_gid(f"{title}:{name}")
        handles.append(Line2D([], [], color=colour, marker=mark, markersize=theme.points(4.5), label=title))
    for y in range(1, len(names)):
        axes.axhline(y - 0.5, color=theme.GRID, linewidth=theme.points(0.6), zorder=0)
    _limit(axes, series.values())
    axes.set_yticks(range(len(names)), shown)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(textwrap.fill(what, 36) if size == "column" else what)
    if len(series) > 1:
        fig.legend(handles=handles, loc="outside upper left", ncols=2 if size == "column" else len(handles))
    return fig


def _limit(axes: Axes, series: Iterable[Effects]) -> None:
    """Keep the axis on the intervals."""
    parts = [part for effects in series for part in (effects.estimate, effects.low, effects.high)]
    values = np.concatenate(parts) if parts else np.zeros(0)
    values = values[np.isfinite(values)]
    if len(values):
        low, high = min(0.0, values.min()), max(0.0, values.max())
        room = 0.06 * (high - low or 1.0)
        axes.set_xlim(low - room, high + room)


@theme.styled
def interactions_figure(
    pairs: Effects, players: Sequence[str], labels: Mapping[str, str], *, caption: str = "", size: str = "page"
) -> Figure:
    """A heat map of all pairs; bold where Holm's p is below 5 %, grey where the runs cannot tell."""
    k = len(players)
    grid, strong = np.full((k, k), np.nan), np.zeros((k, k), dtype=bool)
    for row in pairs.frame().itertuples():
        a, b = (players.index(name) for name in row.name.split(" × "))
        grid[max(a, b), min(a, b)] = row.estimate
        strong[max(a, b), min(a, b)] = row.p_holm < 0.05
    fig = theme.figure(size, height=2.1 * k + 7 + caption.count("\n"))
    axes = fig.subplots()
    theme.note(fig, caption, size)
    largest = float(np.nanmax(np.abs(grid))) if np.isfinite(grid).any() else 1.0
    norm = TwoSlopeNorm(0, -max(largest, 1e-9), max(largest, 1e-9))
    shown = np.ma.masked_invalid(grid[1:, :-1])
    lower = np.tril(np.ones((k - 1, k - 1), dtype=bool))
    axes.pcolormesh(np.where(lower, 1.0, np.nan), cmap="Greys", vmin=0, vmax=6, edgecolors="white", linewidth=1)
    image = axes.pcolormesh(shown, cmap="PuOr_r", norm=norm, edgecolors="white", linewidth=1)
    for row in range(k - 1):
        for column in range(row + 1):
            value = grid[row + 1, column]
            if np.isfinite(value):
                dark = abs(value) > 0.6 * largest
                weight = "bold" if strong[row + 1, column] else "normal"
                small = axes.xaxis.label.get_size() - (2 if k < 9 else 2.5)
                text = axes.text(column + 0.5, row + 0.5, f"{value:+.2f}".replace("-", "−"), ha="center", va="center")
                text.set(color="white" if dark else theme.INK, fontweight=weight, fontsize=small)
    axes.set_xticks(np.arange(k - 1) + 0.5, [labels.get(p, p) for p in players[:-1]], rotation=40, ha="right")
    axes.set_yticks(np.arange(k - 1) + 0.5, [labels.get(p, p) for p in players[1:]])
    axes.set_ylim(k - 1, 0)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    fig.colorbar(image, ax=axes, shrink=0.6, label="together, over the sum of both (points)")
    return fig


@theme.styled
def positions_figure(
    positions: pd.DataFrame, labels: Mapping[str, str], *, caption: str = "", size: str = "page"
) -> Figure:
    """A row per change: its gain in every order, by whether it came early, in the middle or late; bars are means."""
    names = list(dict.fromkeys(positions["name"]))
    names = [name for name in labels if name in names] or names
    third = np.minimum(positions["position"] * 3 // len(names), 2).astype(int)
    fig = theme.figure(size, height=2.1 * len(names) + 6 + caption.count("\n"))
    axes = fig.subplots()
    theme.note(fig, caption, size)
    theme.clean(axes, "x")
    axes.axvline(0, color=theme.MUTED, linewidth=theme.points(0.8), zorder=1)
    for part, (title, (mark, colour)) in enumerate(zip(THIRDS, _MARKS[1:4], strict=True)):
        rows = positions[third == part]
        y = rows["name"].map(names.index) + 0.25 * (part - 1)
        axes.plot(rows["gain"], y, mark, color=colour, markersize=theme.points(3.2), alpha=0.7, label=title)
        for name, gains in rows.groupby("name")["gain"]:
            place = names.index(str(name)) + 0.25 * (part - 1)
            axes.plot([gains.mean()] * 2, [place - 0.12, place + 0.12], color=colour, linewidth=theme.points(2))
    for y in range(1, len(names)):
        axes.axhline(y - 0.5, color=theme.GRID, linewidth=theme.points(0.6), zorder=0)
    axes.set_yticks(range(len(names)), [labels.get(name, name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("gain in top-1 where the change was added (points)")
    fig.legend(loc="outside upper left", ncols=3)
    return fig
