"""How every figure looks and how it becomes files. Importing this changes no global style."""

import math
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from roadmap.steps import Roadmap

FORMATS = ("png", "svg", "pdf")


@dataclass(frozen=True)
class Size:
    """A place to print a figure: width in inches and the font size, in points, that stays legible there."""

    width: float
    font: float
    dpi: int


SIZES = {
    "page": Size(7.0, 8.0, 200),  # across two columns of a paper
    "column": Size(3.4, 6.8, 300),  # one column
    "slide": Size(12.0, 13.0, 120),  # a 16:9 slide
}

# Okabe and Ito's colours, told apart with every kind of colour vision; text on white uses the darker ones only
INK, MUTED, FAINT, GRID = "#1a1a1a", "#5f6368", "#b8bcc2", "#e6e8eb"
OURS, PAPER, BAD, GOOD = "#0072B2", "#D55E00", "#B3123B", "#00795A"
_SECTION_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442")
SECOND = "#c3c7cd"
REFERENCE_COLOUR = "#8d9299"


def section_colours(road: Roadmap) -> dict[str, str]:
    """Section of a roadmap -> its colour."""
    sections = dict.fromkeys(step.section for step in road.steps)
    return dict(zip(sections, cycle(_SECTION_COLOURS), strict=False))


def _settings(size: Size) -> dict[str, Any]:
    line = size.font / 10
    return {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so figures are equal everywhere
        "font.size": size.font,
        "axes.labelsize": size.font,
        "axes.titlesize": size.font,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "xtick.labelsize": size.font - 1,
        "ytick.labelsize": size.font - 1,
        "legend.fontsize": size.font - 1,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "axes.linewidth": 0.8 * line,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8 * line,
        "lines.linewidth": 1.4 * line,
        "hatch.linewidth": 0.8 * line,
        "legend.frameon": False,
        "svg.fonttype": "path",
        "svg.hashsalt": "roadmap",  # the same figure gives the same bytes
        "pdf.fonttype": 42,
        "text.parse_math": False,  # a label is text, whatever it is made of
        "figure.dpi": size.dpi,
        "savefig.facecolor": "white",
    }


def settings_of(size: str) -> Size:
    """The size of that name: page, column or slide."""
    return SIZES[size]


@contextmanager
def style(size: str) -> Iterator[Size]:
    """Matplotlib's settings for a size, for the body only."""
    chosen = SIZES[size]
    with mpl.rc_context(_settings(chosen)):
        yield chosen


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Make a drawing function take `size="page"` and draw in that size's style; global settings stay as they are."""

    @wraps(draw)
    def wrapper(*args: Any, size: str = "page", **kwargs: Any) -> Figure:
        with style(size):
            figure = draw(*args, size=size, **kwargs)
            figure.set_dpi(SIZES[size].dpi)
            return figure

    return wrapper


def points(length: float) -> float:
    """A length in points at font size 8, scaled to the size that is being drawn."""
    return float(length * mpl.rcParams["font.size"] / 8)


def figure(size: str, height: float, **kwargs: Any) -> Figure:
    """An empty figure of a size's width and `height` in multiples of its font size's line (1.4 font sizes)."""
    chosen = SIZES[size]
    return Figure(figsize=(chosen.width, height * chosen.font * 1.4 / 72), layout="constrained", **kwargs)


def note(fig: Figure, text: str, size: str) -> None:
    """Words under a figure, wrapped to its width."""
    chosen = SIZES[size]
    columns = int(chosen.width * 72 / (0.53 * (chosen.font - 1)))
    lines = "\n".join("\n".join(textwrap.wrap(part, columns)) for part in text.split("\n"))
    fig.supxlabel(lines, x=0.01, ha="left", fontsize=chosen.font - 1, color=MUTED, linespacing=1.35)


def number(value: float, decimals: int) -> str:
    """A number as the paper prints it: half is rounded up (80.35 -> 80.4), small costs keep two digits."""
    if 0 < abs(value) < 0.1:
        return f"{value:#.2g}"
    return f"{value + math.copysign(1e-9, value):.{decimals}f}"


def tint(colour: str, strength: float = 0.28) -> tuple[float, float, float]:
    """A colour mixed with white."""
    red, green, blue = to_rgb(colour)
    return (1 - strength * (1 - red), 1 - strength * (1 - green), 1 - strength * (1 - blue))


def dot_style(n: float, colour: str) -> dict[str, Any]:
    """Marker face and edge: hollow for a single run, which says nothing about its spread."""
    return {"markerfacecolor": colour if n > 1 else "white", "markeredgecolor": colour}


def clean(axes: Axes, grid: str = "x") -> None:
    """A light grid along one axis, no ticks on the other."""
    axes.grid(axis=grid)
    axes.tick_params(axis="y" if grid == "x" else "x", length=0)


def freeze(fig: Figure) -> None:
    """Lay a figure out for good; places are rounded, so that the last bits of a float do not change the files."""
    if fig.get_layout_engine() is None:
        return
    fig.draw_without_rendering()
    with mpl.rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
        fig.set_layout_engine(None)
    for axes in fig.axes:
        left, bottom, width, height = axes.get_position().bounds
        axes.set_position((round(left, 5), round(bottom, 5), round(width, 5), round(height, 5)))


def save(fig: Figure, stem: Path, formats: tuple[str, ...] = FORMATS, source: str = "") -> list[Path]:
    """Write a figure in every format next to each other, without dates, so that equal figures give equal files.

    `source` says what was drawn; a PNG carries it, so that one that is out of date can be told.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    metadata: dict[str, dict[str, str | None]] = {
        "png": {"Software": None, "Source": source or None},
        "svg": {"Date": None},
        "pdf": {"CreationDate": None},
    }
    paths = []
    with mpl.rc_context({"svg.hashsalt": "roadmap", "svg.fonttype": "path", "pdf.fonttype": 42}):
        freeze(fig)
        for ending in formats:
            path = stem.with_name(f"{stem.name}.{ending}")
            fig.savefig(path, metadata=metadata[ending], dpi=fig.dpi)
            paths.append(path)
    return paths
