"""Block diagrams as in the paper's Figures 3 and 4: which operations of a design's plan are drawn, and into what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.design import Design
from roadmap.errors import DesignError
from roadmap.plan import BlockPlan, Ops, plan_network
from roadmap.show.drawing import Diagram, Shape, draw
from roadmap.show.explain import compare
from roadmap.steps import DEFAULT, Roadmap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")


def _shapes(ops: Ops) -> tuple[Shape, ...]:
    return tuple(Shape(op.row.look, op.row.label(op), op.row.detail(op), op) for op in ops)


def _block_shapes(block: BlockPlan) -> tuple[Shape, ...]:
    shortcut = _shapes(block.shortcut)
    beside = ", ".join(text for shape in shortcut for text in (shape.text, shape.detail) if text)
    return (*_shapes(block.branch), Shape("sum", "+", beside), *_shapes(block.after))


def block_diagram(design: Design, stage: int, first: bool = False, title: str = "") -> Diagram:
    """A residual block of a stage (from 1): its last, or its first with the downsampling in front of it."""
    plan = plan_network(design).stages[stage - 1]
    front = _shapes(plan.downsample) if first else ()
    depths = ", ".join(map(str, design.depths))
    part = f"{'first' if first else 'last'} block of stage {stage}; depths {depths}"
    return Diagram(title, part, front, _block_shapes(plan.blocks[0 if first else -1]))


def stem_diagram(design: Design, title: str = "") -> Diagram:
    """The stem; it has no residual block."""
    return Diagram(title, "stem", _shapes(plan_network(design).stem), ())


def diagrams_of(designs: Mapping[str, Design]) -> list[Diagram]:
    """One diagram a design, all of the same part: the first of block, downsampling and stem in which they differ."""
    second = min(2, *(len(design.depths) for design in designs.values()))
    views = [
        [block_diagram(design, 1, title=title) for title, design in designs.items()],
        [block_diagram(design, second, first=True, title=title) for title, design in designs.items()],
        [stem_diagram(design, title) for title, design in designs.items()],
    ]
    return next((view for view in views if len({diagram.shapes for diagram in view}) > 1), views[0])


def draw_block(design: Design, stage: int = 1, *, first: bool = False, title: str = "") -> Figure:
    """Draw the residual block of a design as a figure.

    Args:
        design: any design.
        stage: from 1.
        first: the stage's first block, with the downsampling in front of it, instead of its last.
        title: stands above it.
    """
    return draw([block_diagram(design, stage, first, title)])


def save_diagram(
    path: Path,
    step: str,
    regime: str = "tiny",
    add: Iterable[str] = (),
    drop: Iterable[str] = (),
    road: Roadmap = DEFAULT,
) -> None:
    """Draw a step of a roadmap beside its parent, or the altered set beside the step, into a PNG, SVG or PDF file.

    Raises:
        DesignError: another ending, an unknown name, or a set that cannot be.
        OSError: the file cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise DesignError(f"{path}: a figure ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    pair = compare(step, regime, add, drop, road)
    designs = {pair.against: pair.before} if pair.against else {}
    figure = draw(diagrams_of({**designs, pair.title: pair.after}))
    from matplotlib import rc_context

    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower(), {})
    with rc_context({"svg.hashsalt": "roadmap", "pdf.fonttype": 42}):  # the same diagram gives the same bytes
        figure.savefig(path, dpi=200, metadata=undated)
