"""Draws operations as a diagram: shapes as wide as the channels that pass, and the residual arrow around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from roadmap.operations import Op

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, TOUCHED = "#1a1a1a", "#5f6368", "#D55E00"
# Light tints of Okabe and Ito's colours, told apart with every kind of colour vision and below dark text.
FILLS = {
    "pointwise": "#a9d6f2",
    "spatial": "#f6cf86",
    "norm": "#dfe3e6",
    "act": "#eec9dd",
    "scale": "#ffffff",
    "pool": "#ffffff",
}
CAPTION, OUTLINES = "Wider: more channels.", " Outlined: what the change removes (dashed) and adds (solid)."
SHARE_A_ROW = ("norm", "act", "scale")
# Lengths in drawing units; the widest shape is 2 * HALF wide.
HALF, THIN, CONV, SLOT, GAP, BETWEEN, UNIT_INCHES = 1.7, 0.32, 0.86, 0.46, 0.3, 0.12, 0.44
LEFT, RIGHT, TOP, BOTTOM = -2.8, 4.2, 1.35, 0.75


@dataclass(frozen=True)
class Shape:
    """What is drawn for one operation: for a convolution, or for one of those that stand between convolutions.

    Attributes:
        look: `Operation.look`, or "sum".
        text: what stands in its shape.
        detail: what stands beside it; beside a sum, what is on the shortcut ("": identity).
        op: the planned operation; None for a sum.
    """

    look: str
    text: str
    detail: str = ""
    op: Op | None = field(default=None, compare=False)  # told apart by what is drawn


@dataclass(frozen=True)
class Diagram:
    """The shapes of one panel: those in front of the residual block, then the block's own, with a sum among them."""

    title: str
    part: str
    front: tuple[Shape, ...]
    block: tuple[Shape, ...]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """All shapes in order."""
        return self.front + self.block


def touched(diagram: Diagram, other: Diagram) -> set[int]:
    """The places of the shapes of a diagram that the other one lacks there."""
    kept: set[int] = set()
    for start, mine, theirs in ((0, diagram.front, other.front), (len(diagram.front), diagram.block, other.block)):
        for match in SequenceMatcher(None, mine, theirs, autojunk=False).get_matching_blocks():
            kept |= set(range(start + match.a, start + match.a + match.size))
    return set(range(len(diagram.shapes))) - kept


def draw(diagrams: Sequence[Diagram]) -> Figure:
    """Draw one diagram, or two side by side on one scale with what differs outlined (before: dashed, after: solid)."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    widest = max(channels for diagram in diagrams for channels in _channels(diagram))
    depth = max(_height(diagram) for diagram in diagrams)
    size = ((RIGHT - LEFT) * len(diagrams) * UNIT_INCHES, (depth + TOP + BOTTOM) * UNIT_INCHES)
    with rc_context({"font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 8.5}):
        figure = Figure(figsize=size, facecolor="white")
        for index, diagram in enumerate(diagrams):
            axes = figure.add_axes((index / len(diagrams), 0, 1 / len(diagrams), 1))
            axes.set(xlim=(LEFT, RIGHT), ylim=(-depth - BOTTOM, TOP))
            axes.axis("off")
            marked = touched(diagram, diagrams[1 - index]) if len(diagrams) == 2 else set()
            _Panel(axes, HALF / widest, "solid" if index else "dashed").draw(diagram, marked)
        differ = len({diagram.shapes for diagram in diagrams}) > 1
        figure.text(0.5, 0.012, CAPTION + OUTLINES * differ, ha="center", va="bottom", size=7, color=MUTED)
    return figure


def _channels(diagram: Diagram) -> list[int]:
    return [
        side
        for shape in diagram.shapes
        if shape.look == "conv" and shape.op
        for side in (shape.op.c_in, shape.op.c_out)
    ]


def _rows(shapes: Sequence[Shape]) -> list[list[tuple[int, Shape]]]:
    """Operations in rows, with their places in the list: small ones share a row, as in "BN, ReLU", while they fit."""
    rows: list[list[tuple[int, Shape]]] = []
    for place, shape in enumerate(shapes):
        last = [other for _, other in rows[-1]] if rows else []
        small = all(other.look in SHARE_A_ROW for other in (*last, shape))
        if last and small and _row_width([*last, shape]) <= 2 * HALF:
            rows[-1].append((place, shape))
        else:
            rows.append([(place, shape)])
    return rows


def _width(shape: Shape) -> float:
    return 0.42 + 0.17 * len(shape.text)


def _row_width(shapes: Sequence[Shape]) -> float:
    return sum(map(_width, shapes)) + BETWEEN * (len(shapes) - 1)


def _row_height(row: Sequence[tuple[int, Shape]]) -> float:
    return (CONV if row[0][1].look == "conv" else SLOT) + GAP


def _height(diagram: Diagram) -> float:
    return sum(_row_height(row) for row in _rows(diagram.shapes)) + GAP


class _Panel:
    """Draws one diagram from the top down, y falling from 0."""

    def __init__(self, axes: Axes, scale: float, outline: str) -> None:
        self.axes = axes
        self.scale = scale  # units per channel, of half a width
        self.outline = outline  # line style of what differs
        self.y = 0.0

    def draw(self, diagram: Diagram, marked: set[int]) -> None:
        """Draw title, operations and the residual arrow; those at the marked places get an outline."""
        text = self.axes.text
        text(0, TOP - 0.25, diagram.title, ha="center", va="top", weight="bold", color=INK, size=9.5)
        text(0, TOP - 0.72, diagram.part, ha="center", va="top", color=MUTED, size=7.5)
        block_top = 0.0
        for row in _rows(diagram.shapes):
            if diagram.block and row[0][0] == len(diagram.front):
                block_top = self.y
            self._line(self.y, self.y - GAP)
            self.y -= GAP
            self._row(row, marked, block_top)
        self._arrow((0, self.y), (0, self.y - GAP - 0.1))

    def _row(self, row: Sequence[tuple[int, Shape]], marked: set[int], block_top: float) -> None:
        place, shape = row[0]
        if shape.look == "conv":
            self._conv(shape, self._edge(place in marked))
        elif shape.look == "sum":
            self._sum(shape, self._edge(place in marked), block_top)
        else:
            self._slots(row, marked)

    def _conv(self, shape: Shape, edge: dict[str, Any]) -> None:
        """A shape as wide above as the channels that come in, below as those that go out."""
        from matplotlib.patches import Polygon

        assert shape.op is not None
        above, below = (max(channels * self.scale, THIN) for channels in (shape.op.c_in, shape.op.c_out))
        bottom = self.y - CONV
        corners = [(-above, self.y), (above, self.y), (below, bottom), (-below, bottom)]
        fill = FILLS["spatial" if shape.op.kernel > 1 else "pointwise"]
        self.axes.add_patch(Polygon(corners, closed=True, facecolor=fill, joinstyle="round", **edge))
        middle = self.y - CONV / 2
        self.axes.text(0, middle, shape.text, ha="center", va="center", color=INK, weight="bold")
        channels, _, rest = shape.detail.partition(", ")
        where = HALF + 0.2
        self.axes.text(where, middle + 0.2 * bool(rest), channels, ha="left", va="center", color=INK)
        self.axes.text(where, middle - 0.24, rest, ha="left", va="center", color=MUTED, size=7.5)
        self.y = bottom

    def _slots(self, row: Sequence[tuple[int, Shape]], marked: set[int]) -> None:
        from matplotlib.patches import FancyBboxPatch

        x = -_row_width([shape for _, shape in row]) / 2
        for place, shape in row:
            width = _width(shape)
            style = f"round,pad=0,rounding_size={SLOT / 2}"
            corner = (x, self.y - SLOT)
            box = FancyBboxPatch(
                corner, width, SLOT, boxstyle=style, facecolor=FILLS[shape.look], **self._edge(place in marked)
            )
            self.axes.add_patch(box)
            self.axes.text(x + width / 2, self.y - SLOT / 2, shape.text, ha="center", va="center", color=INK, size=7.5)
            x += width + BETWEEN
        self.y -= SLOT

    def _sum(self, shape: Shape, edge: dict[str, Any], block_top: float) -> None:
        """The circle where the branch meets the shortcut, and the shortcut's way around it."""
        from matplotlib.patches import Circle

        radius, middle, left = SLOT / 2, self.y - SLOT / 2, -HALF - 0.55
        start = block_top - GAP / 2
        self.axes.plot([0, left, left], [start, start, middle], color=MUTED, linewidth=0.9)
        self._arrow((left, middle), (-radius, middle))
        self.axes.add_patch(Circle((0, middle), radius, facecolor="white", **self._edge(False)))
        self.axes.text(0, middle - 0.01, shape.text, ha="center", va="center", color=INK, size=10)
        box = {"boxstyle": "round,pad=0.3", "facecolor": FILLS["pointwise"] if shape.detail else "white", **edge}
        label = {"rotation": 90, "ha": "center", "va": "center", "color": INK, "size": 7, "bbox": box}
        self.axes.text(left, (start + middle) / 2, shape.detail or "identity", **label)
        self.y -= SLOT

    def _line(self, start: float, end: float) -> None:
        self.axes.plot([0, 0], [start, end], color=MUTED, linewidth=0.9, zorder=0.5)

    def _arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        arrow = {"arrowstyle": "-|>", "color": MUTED, "linewidth": 0.9, "mutation_scale": 9, "shrinkA": 0, "shrinkB": 0}
        self.axes.annotate("", xy=end, xytext=start, arrowprops=arrow)

    def _edge(self, marked: bool) -> dict[str, Any]:
        if not marked:
            return {"edgecolor": MUTED, "linewidth": 0.9, "linestyle": "solid"}
        return {"edgecolor": TOUCHED, "linewidth": 1.9, "linestyle": self.outline}
