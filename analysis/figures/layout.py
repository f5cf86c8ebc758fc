"""Labels that do not overlap."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from analysis import theme


def spread(wanted: Sequence[float], distance: float, low: float, high: float) -> np.ndarray:
    """Positions at least `distance` apart, in the order of `wanted`, each as near to its wish as the others allow.

    Neighbours that are too close move apart evenly around their mean. Where low..high is too short for all, they are
    spaced evenly over it.
    """
    count = len(wanted)
    if count == 0:
        return np.zeros(0)
    if (count - 1) * distance >= high - low:
        places = np.linspace(low, high, count)
        return places[np.argsort(np.argsort(wanted, kind="stable"), kind="stable")]
    order = np.argsort(wanted, kind="stable")
    # with i * distance taken off, "at least distance apart" is "not falling": merge falling neighbours into their mean
    blocks: list[list[float]] = []
    for value in np.asarray(wanted, dtype=float)[order] - distance * np.arange(count):
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            last, weight = blocks.pop()
            blocks[-1] = [
                (blocks[-1][0] * blocks[-1][1] + last * weight) / (blocks[-1][1] + weight),
                blocks[-1][1] + weight,
            ]
    flat = np.concatenate([np.full(int(weight), value) for value, weight in blocks])
    flat = np.clip(flat, low, high - distance * (count - 1))
    places = np.empty(count)
    places[order] = flat + distance * np.arange(count)
    return places


def label_beside(
    axes: Axes, points: Sequence[tuple[float, float, str]], colours: Sequence[str], text_size: float
) -> None:
    """Names of points (x, y, name) in a column right of the axes, each joined to its point by a thin line."""
    figure = axes.get_figure()
    assert figure is not None
    figure.draw_without_rendering()
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    axes.set(xlim=(left, right), ylim=(low, high))  # places below are relative to these
    distance = (high - low) * text_size * 1.3 * figure.dpi / 72 / axes.get_window_extent().height
    places = spread([y for _, y, _ in points], distance, low + distance / 2, high - distance / 2)
    beside = axes.get_yaxis_transform()  # x as a share of the axes' width, y as data
    for (x, y, name), place, colour in zip(points, places, colours, strict=True):
        share = (x - left) / (right - left)
        line = {"color": colour, "linewidth": theme.points(0.5), "alpha": 0.55, "zorder": 2}
        axes.plot([share, 1.03], [y, place], transform=beside, clip_on=False, **line)
        axes.text(1.04, place, name, transform=beside, va="center", fontsize=text_size)
