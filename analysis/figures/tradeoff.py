"""Accuracy against what it costs: the ladder as a path."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import theme
from analysis.figures.layout import label_beside
from analysis.ladder import Ladder

# metric -> axis label, unit divisor
METRICS = {
    "gmacs": ("GFLOPs (multiply-adds at {side} px)", 1.0),
    "params": ("parameters (millions, 1000 classes)", 1e6),
    "images_per_second": ("training images per second", 1.0),
}


def has_metric(ladder: Ladder, metric: str) -> bool:
    """Whether steps with an accuracy differ in this metric: where only the training changes, their costs are one."""
    return int(ladder.measured[metric].nunique()) >= 2


@theme.styled
def tradeoff_figure(
    ladder: Ladder, metric: str = "gmacs", *, paper: Ladder | None = None, caption: str = "", size: str = "page"
) -> Figure:
    """Top-1 against `metric` (a key of METRICS) as a path through the steps, the paper's path in a panel beside it."""
    shown = [one for one in (ladder, paper) if one is not None and has_metric(one, metric)]
    stacked = size == "column"
    fig = theme.figure(size, height=23 * (len(shown) if stacked else 1) + 2 + caption.count("\n"))
    panels = fig.subplots(len(shown) if stacked else 1, 1 if stacked else len(shown), squeeze=False).ravel()
    theme.note(fig, caption, size)
    for axes, one in zip(panels, shown, strict=True):
        _path(axes, one, metric)
        axes.set_title(f"the {one.publication}, ImageNet-1K" if one.is_paper else "these runs")
        axes.set_xlabel(METRICS[metric][0].format(side=one.road.image_size if one.is_paper else 224))
        axes.set_ylabel("top-1 accuracy (%)")
    for axes, one in zip(panels, shown, strict=True):
        _label(axes, one, metric)
    return fig


def _path(axes: Axes, ladder: Ladder, metric: str) -> None:
    """Points in the sections' colours, the adopted path as a line, side branches dashed from their parent."""
    axes.grid(True)
    rows = ladder.measured[ladder.measured[metric].notna()].set_index("step", drop=False)
    unit = METRICS[metric][1]
    path, colours = rows[rows["on_path"]], theme.section_colours(ladder.road)
    axes.plot(path[metric] / unit, path["top1"], color=theme.FAINT, zorder=1)
    for row in rows.itertuples():
        x, colour = getattr(row, metric) / unit, colours[row.section]
        if not row.on_path and row.parent in rows.index:
            start = rows.loc[row.parent]
            axes.plot([start[metric] / unit, x], [start["top1"], row.top1], ":", color=theme.FAINT, zorder=1)
        if row.std == row.std:
            axes.errorbar(x, row.top1, row.std, color=colour, elinewidth=theme.points(0.9), zorder=2)
        point = axes.plot(x, row.top1, "o", markersize=theme.points(4.5), **theme.dot_style(row.n, colour), zorder=3)
        point[0].set_gid(f"point:{row.step}")
    for x, y, _ in _reference(ladder, metric):
        axes.plot(x, y, "s", color=theme.REFERENCE_COLOUR, zorder=3)
    axes.margins(x=0.08, y=0.07)


def _reference(ladder: Ladder, metric: str) -> list[tuple[float, float, str]]:
    """The published reference network's point: its metric, accuracy and label; none where one is unknown."""
    if not (ladder.is_paper and ladder.reference):
        return []
    known = {"gmacs": ladder.reference.gflops_counted, "images_per_second": ladder.reference_speed}
    x, y = known.get(metric), ladder.reference.top1
    return [(x, y, ladder.reference.label)] if x is not None and math.isfinite(x) else []


def _label(axes: Axes, ladder: Ladder, metric: str) -> None:
    rows = ladder.measured[ladder.measured[metric].notna()]
    unit = METRICS[metric][1]
    points = [(getattr(row, metric) / unit, row.top1, row.label) for row in rows.itertuples()]
    colours = [theme.section_colours(ladder.road)[section] for section in rows["section"]]
    for point in _reference(ladder, metric):
        points.append(point)
        colours.append(theme.REFERENCE_COLOUR)
    label_beside(axes, points, colours, axes.xaxis.label.get_size() - 1.5)
