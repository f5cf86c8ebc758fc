"""The roadmap figure in the layout of the paper's Figure 2: a bar per step, grouped by section, GFLOPs as marks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator

from analysis import theme
from analysis.gains import DIVERGED, FAILED
from analysis.ladder import Ladder, where

HATCH = "////"
BAR, THIN = 0.56, 0.17  # heights in rows: the main bar, and the second regime's below it


@dataclass(frozen=True)
class _Rows:
    """Where each row is drawn: the steps from the top, then the reference network below a gap."""

    steps: tuple[str, ...]
    sections: tuple[str, ...]
    labels: tuple[str, ...]
    reference: str | None

    @property
    def y(self) -> np.ndarray:
        return np.arange(len(self.steps), dtype=float)

    @property
    def reference_y(self) -> float:
        return len(self.steps) + 0.3

    @property
    def limits(self) -> tuple[float, float]:
        last = self.reference_y if self.reference else len(self.steps) - 1
        return last + 0.65, -0.65


@theme.styled
def roadmap_figure(
    ladder: Ladder,
    *,
    second: Ladder | None = None,
    paper: Ladder | None = None,
    paper_second: Ladder | None = None,
    caption: str = "",
    size: str = "page",
) -> Figure:
    """Draw `ladder`; `second` is another regime (thin grey bars), `paper` the published ladder in a panel beside it."""
    reference = ladder.reference or (paper.reference if paper else None)
    table = ladder.table
    rows = _Rows(
        tuple(table["step"]), tuple(table["section"]), tuple(table["label"]), reference.label if reference else None
    )
    columns = {"page": (0.62, 2.6, 1.6, 1.15), "slide": (0.62, 2.6, 1.6, 1.15), "column": (0.01, 1.5, 1.0, 0.75)}[size]
    widths = [
        columns[0],
        columns[1] if paper else columns[1] + columns[2] * 0.7,
        *([columns[2]] if paper else []),
        columns[3],
    ]
    pitch = 1.8 if size == "column" else 1.5  # in a narrow figure some labels take two lines
    fig = theme.figure(size, height=pitch * len(rows.steps) + 7 + 1.1 * caption.count("\n"))
    axes = fig.subplots(1, len(widths), sharey=True, width_ratios=widths)
    _sections(axes[0], rows, theme.section_colours(ladder.road), show_names=size != "column")
    bars = axes[1]
    brief = size == "column"
    many = (2 if brief else 3) if paper else 6
    _bars(bars, ladder, second, rows, decimals=1 if brief else 2, spread=not brief, ticks=many)
    bars.set_yticks([*rows.y, *([rows.reference_y] if rows.reference else [])])
    labels = [label.replace(" (", "\n(") if brief else label for label in rows.labels]
    bars.set_yticklabels([*labels, *([rows.reference] if rows.reference else [])], linespacing=0.95)
    bars.tick_params(axis="y", labelleft=True)
    if paper:
        bars.set_title("these runs")
        _bars(axes[2], paper, paper_second, rows, decimals=1 if brief else 2, spread=False, ticks=many)
        axes[2].set_title(f"the {paper.publication}")
    _gflops(axes[-1], ladder, paper, rows, brief)
    bars.set_ylim(*rows.limits)
    _legend(fig, ladder, second, paper, paper_second, size)
    theme.note(fig, caption, size)
    return fig


def _sections(axes: Axes, rows: _Rows, colours: dict[str, str], show_names: bool) -> None:
    """Names of the sections beside a coloured line along their rows."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    start = 0
    for i in range(1, len(rows.sections) + 1):
        if i < len(rows.sections) and rows.sections[i] == rows.sections[start]:
            continue
        name = rows.sections[start]
        colour = colours[name]
        axes.plot(
            [1, 1],
            [start - 0.36, i - 1 + 0.36],
            color=colour,
            linewidth=theme.points(3),
            solid_capstyle="butt",
            clip_on=False,
        )
        if show_names:
            axes.text(0.88, (start + i - 1) / 2, name.replace(" ", "\n"), ha="right", va="center", color=theme.MUTED)
        start = i


def _bars(
    axes: Axes, ladder: Ladder, second: Ladder | None, rows: _Rows, *, decimals: int, spread: bool, ticks: int
) -> None:
    """One panel of bars: the steps, the second regime and the reference network."""
    start, top, end = _limits(ladder, second, 0.52 if spread else 0.34)
    axes.set_xlim(start, end)
    theme.clean(axes, "x")
    axes.set_xticks(
        [tick for tick in MaxNLocator(ticks, steps=[1, 2, 5, 10]).tick_values(start, top) if start <= tick <= top]
    )
    colours = theme.section_colours(ladder.road)
    for row in ladder.table.itertuples():  # the published ladder lacks steps of one's own
        y = rows.steps.index(row.step)
        colour = colours[row.section]
        if row.top1 == row.top1:
            _bar(axes, y, start, row, colour)
            _value(axes, y, row, decimals, spread)
        else:
            _absent(axes, y, start, row)
        other = second.row(row.step)["top1"] if second else np.nan
        if other == other:
            thin = axes.barh(y + BAR / 2 + THIN / 2, other - start, THIN, start, color=theme.SECOND)
            thin[0].set_gid(f"second:{row.step}")
    reference = ladder.reference if ladder.is_paper else None
    if reference:
        bar = axes.barh(rows.reference_y, reference.top1 - start, BAR, start, color=theme.REFERENCE_COLOUR)
        bar[0].set_gid("reference")
        _beside(axes, theme.number(reference.top1, decimals), (reference.top1, rows.reference_y), 3)
        if second and second.reference:
            width = second.reference.top1 - start
            axes.barh(rows.reference_y + BAR / 2 + THIN / 2, width, THIN, start, color=theme.SECOND)
    axes.set_xlabel("top-1 (%)" if ticks < 4 else f"top-1 accuracy (%), axis from {start:g}")


def _bar(axes: Axes, y: float, start: float, row: pd.Series, colour: str) -> None:
    """A bar with its error bar; hollow for one run, hatched if the paper does not carry the step on."""
    face = "white" if row.n == 1 else colour if row.adopted else theme.tint(colour)
    hatch = None if row.adopted else HATCH
    bar = axes.barh(y, row.top1 - start, BAR, start, linewidth=0.9, facecolor=face, edgecolor=colour, hatch=hatch)
    bar[0].set_gid(f"bar:{row.step}")
    if row.std == row.std:
        axes.errorbar(
            row.top1, y, xerr=row.std, color=theme.INK, elinewidth=theme.points(0.9), capsize=theme.points(1.6)
        )


def _beside(axes: Axes, text: str, place: Any, points: float, **style: Any) -> Annotation:
    """Text that starts `points` to the right of a place (x, y) or of another text."""
    at = {"xy": (1, 0.5), "xycoords": place} if isinstance(place, Annotation) else {"xy": place}
    return axes.annotate(text, xytext=(theme.points(points), 0), textcoords="offset points", va="center", **at, **style)


def _value(axes: Axes, y: float, row: pd.Series, decimals: int, spread: bool) -> None:
    """The mean behind the bar, then its spread and number of runs where there is room, and any runs that diverged."""
    end = row.top1 + (row.std if row.std == row.std else 0)
    label = _beside(axes, theme.number(row.top1, decimals), (end, y), 3)
    label.set_gid(f"value:{row.step}")
    small = axes.xaxis.label.get_size() - 2
    if row.diverged:
        text = f"× {row.diverged} of {row.n + row.diverged}" + (" diverged" if spread else "")
        _beside(axes, text, label, 3, color=theme.BAD, fontsize=small).set_gid(f"state:{row.step}")
    elif spread:
        text = f"±{row.std:.2f}, n={row.n:.0f}" if row.std == row.std else f"n={row.n:.0f}"
        _beside(axes, text, label, 3, color=theme.MUTED, fontsize=small)


def _absent(axes: Axes, y: float, start: float, row: pd.Series) -> None:
    """Why there is no bar: missing, half done, failed, diverged or no effect."""
    bad = row.status in (DIVERGED, FAILED)
    text = f"{row.diverged} diverged" if row.diverged else row.status
    colour = theme.BAD if bad else theme.MUTED
    _beside(axes, f"{'×' if bad else '–'} {text}", (start, y), 4, color=colour).set_gid(f"state:{row.step}")


def _limits(ladder: Ladder, second: Ladder | None, room: float) -> tuple[float, float, float]:
    """Where the axis starts (a round number below the lowest bar), the longest bar, the end (room for the values)."""
    main = ladder.table["top1"].dropna()
    values = pd.concat([main, *([second.table["top1"].dropna()] if second else [])]).to_numpy()
    if not len(values):
        return 0.0, 100.0, 100.0
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 0.5)
    step = 10 ** np.floor(np.log10(span)) / 2
    start = max(0.0, np.floor((low - 0.18 * span) / step) * step)
    longest = float(main.max()) if len(main) else high
    return start, high, max(high + 0.03 * span, longest + room * (high - start))


def _gflops(axes: Axes, ladder: Ladder, paper: Ladder | None, rows: _Rows, brief: bool) -> None:
    """GFLOPs as marks along the path; side branches are marks beside it."""
    table = ladder.table
    gmacs = table["gmacs"].to_numpy(float)
    path = table["on_path"].to_numpy(bool) & np.isfinite(gmacs)
    axes.plot(gmacs[path], rows.y[path], color=theme.FAINT, zorder=1)
    for y, row in zip(rows.y, table.itertuples(), strict=True):
        if row.gmacs == row.gmacs:
            style = {"markerfacecolor": theme.INK if row.on_path else "white", "markeredgecolor": theme.INK}
            mark = axes.plot(row.gmacs, y, "*", markersize=theme.points(6.5), **style, markeredgewidth=0.7)
            mark[0].set_gid(f"gflops:{row.step}")
            _beside(axes, theme.number(row.gmacs, 1 if brief and row.gmacs >= 1 else 2), (row.gmacs, y), 5)
    reference = ladder.reference if ladder.is_paper else None
    if reference and reference.gflops_counted is not None:
        axes.plot(
            reference.gflops_counted, rows.reference_y, "*", color=theme.REFERENCE_COLOUR, markersize=theme.points(6.5)
        )
        text = theme.number(reference.gflops_counted, 1 if brief else 2)
        _beside(axes, text, (reference.gflops_counted, rows.reference_y), 5)
    finite = gmacs[np.isfinite(gmacs)]
    if len(finite):
        low, high = float(finite.min()), float(finite.max())
        span = max(high - low, 0.1 * high)
        axes.set_xlim(max(0, low - 0.12 * span), high + 0.55 * span)
        if span > high - low:  # all cost about the same: close values are long numbers
            axes.set_xticks([float(f"{high:.2g}")])
    theme.clean(axes, "x")
    axes.set_xlabel("GFLOPs")
    if paper:
        axes.set_title("cost")


def _legend(
    fig: Figure, ladder: Ladder, second: Ladder | None, paper: Ladder | None, paper_second: Ladder | None, size: str
) -> None:
    """Only what is drawn is explained."""
    shown = [ladder, *([paper] if paper else [])]
    handles: list[Patch | Line2D] = []
    if second or paper_second:
        regime = (second or paper_second).regime  # type: ignore[union-attr]
        handles.append(Patch(facecolor=theme.SECOND, label=where(ladder.road, regime)))
    if any(((one.table["n"] == 1) & one.table["top1"].notna()).any() for one in shown):
        handles.append(Patch(facecolor="white", edgecolor=theme.MUTED, label="one run (n = 1)"))
    if (~ladder.table["adopted"]).any():
        handles.append(Patch(facecolor=theme.FAINT, edgecolor="white", hatch=HATCH, label="not adopted"))
    if any(one.table["std"].notna().any() for one in shown):
        handles.append(Line2D([], [], color=theme.INK, marker="|", markersize=5, label="± 1 std over seeds"))
    columns = 2 if size == "column" else len(handles)
    if handles:
        fig.legend(handles=handles, loc="outside upper left", ncols=columns, handlelength=1.6, columnspacing=1.4)
