"""What a network makes of one image: the strongest channels after each stage."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from analysis import theme

CHANNELS = 6


@theme.styled
def features_figure(
    image: ArrayLike, rows: dict[str, Sequence[ArrayLike]], *, caption: str = "", size: str = "page"
) -> Figure:
    """A row per named network, a panel per stage: the `CHANNELS` maps that vary most, beside the image.

    `image` is (H, W, 3) in 0..1; each row holds one (C, h, w) array per stage.
    """
    stages = max(len(maps) for maps in rows.values())
    fig = theme.figure(size, height=9.5 * len(rows) + 3)
    panels = fig.subplots(len(rows), stages + 1, squeeze=False)
    theme.note(fig, caption, size)
    for line, (name, maps) in zip(panels, rows.items(), strict=True):
        for axes in line:
            axes.set_axis_off()
        line[0].imshow(np.asarray(image))
        line[0].set_title(name)
        for stage, (axes, features) in enumerate(zip(line[1:], maps, strict=False), start=1):
            values = np.asarray(features, dtype=np.float64)
            axes.imshow(_mosaic(values), cmap="cividis", interpolation="nearest")
            axes.set_title(f"stage {stage}: {values.shape[0]} × {values.shape[1]}²")
    return fig


def _mosaic(features: np.ndarray) -> np.ndarray:
    """The channels of largest variance, each scaled to 0..1, in three rows of two with a gap."""
    chosen = features[np.argsort(-features.var(axis=(1, 2)), kind="stable")[:CHANNELS]]
    low, high = chosen.min(axis=(1, 2), keepdims=True), chosen.max(axis=(1, 2), keepdims=True)
    scaled = (chosen - low) / np.where(high > low, high - low, 1)
    gap = max(1, scaled.shape[1] // 14)
    padded = np.pad(scaled, ((0, 0), (gap, 0), (gap, 0)), constant_values=np.nan)
    columns = 2
    lines = [
        np.concatenate(list(padded[i : i + columns]), axis=1)
        for i in range(0, len(padded) // columns * columns, columns)
    ]
    return np.concatenate(lines, axis=0)
