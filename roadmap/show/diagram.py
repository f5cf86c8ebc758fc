"""Block diagrams as in the paper's Figures 3 and 4: which operations of a design's plan are drawn, and into what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.design import Design
from roadmap.errors import DesignError
from roadmap.plan import BlockPlan, Conv, plan_network
from roadmap.show.drawing import Diagram, Op, draw
from roadmap.show.explain import compare

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
NAMES = {"bn": "BN", "ln": "LN", "relu": "ReLU", "gelu": "GELU"}


def detail_text(conv: Conv) -> str:
    """Channels, grouping and stride of a convolution, e.g. "96 → 96, depthwise, stride 2"."""
    parts = [f"{conv.c_in} → {conv.c_out}"]
    if conv.groups > 1:
        parts.append("depthwise" if conv.groups == conv.c_in else f"{conv.groups} groups")
    if conv.stride > 1:
        parts.append(f"stride {conv.stride}")
    return ", ".join(parts)


def _conv_ops(conv: Conv, design: Design) -> list[Op]:
    ops = [Op("conv", f"{conv.kernel}×{conv.kernel}", detail_text(conv), conv)]
    ops += [Op("norm", NAMES[design.norm])] * conv.norm
    return ops + [Op("act", NAMES[design.act])] * conv.act


def _block_ops(block: BlockPlan, design: Design) -> tuple[Op, ...]:
    ops = [op for conv in block.convs for op in _conv_ops(conv, design)]
    ops += [Op("scale", "layer scale")] * (design.layer_scale is not None)
    short = block.shortcut
    ops.append(Op("sum", "+", f"1×1, {detail_text(short)}, {NAMES[design.norm]}" if short else "", short))
    return (*ops, *[Op("act", NAMES[design.act])] * block.act_after_sum)


def block_diagram(design: Design, stage: int, first: bool = False, title: str = "") -> Diagram:
    """A residual block of a stage (1 to 4): its last, or its first with the downsampling in front of it."""
    plan = plan_network(design).stages[stage - 1]
    front: list[Op] = []
    if first and plan.downsample:
        front = [Op("norm", NAMES[design.norm])] * plan.norm_before + _conv_ops(plan.downsample, design)
    depths = ", ".join(map(str, design.depths))
    part = f"{'first' if first else 'last'} block of stage {stage}; depths {depths}"
    return Diagram(title, part, tuple(front), _block_ops(plan.blocks[0 if first else -1], design))


def stem_diagram(design: Design, title: str = "") -> Diagram:
    """The stem; it has no residual block."""
    plan = plan_network(design)
    pool = [Op("pool", "max-pool 3×3, stride 2")] * plan.max_pool
    return Diagram(title, "stem", (*_conv_ops(plan.stem, design), *pool), ())


def diagrams_of(designs: Mapping[str, Design]) -> list[Diagram]:
    """One diagram a design, all of the same part: the first of block, downsampling and stem in which they differ."""
    views = [
        [block_diagram(design, 1, title=title) for title, design in designs.items()],
        [block_diagram(design, 2, first=True, title=title) for title, design in designs.items()],
        [stem_diagram(design, title) for title, design in designs.items()],
    ]
    return next((view for view in views if len({diagram.ops for diagram in view}) > 1), views[0])


def draw_block(design: Design, stage: int = 1, *, first: bool = False, title: str = "") -> Figure:
    """Draw the residual block of a design as a figure.

    Args:
        design: any design.
        stage: 1 to 4.
        first: the stage's first block, with the downsampling in front of it, instead of its last.
        title: stands above it.
    """
    return draw([block_diagram(design, stage, first, title)])


def save_diagram(
    path: Path, step: str, regime: str = "tiny", add: Iterable[str] = (), drop: Iterable[str] = ()
) -> None:
    """Draw a step beside its parent, or the altered set beside the step, into a PNG, SVG or PDF file.

    Raises:
        DesignError: another ending, an unknown name, or a set that cannot be.
        OSError: the file cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise DesignError(f"{path}: a figure ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    pair = compare(step, regime, add, drop)
    designs = {pair.against: pair.before} if pair.against else {}
    figure = draw(diagrams_of({**designs, pair.title: pair.after}))
    from matplotlib import rc_context

    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower(), {})
    with rc_context({"svg.hashsalt": "roadmap", "pdf.fonttype": 42}):  # the same diagram gives the same bytes
        figure.savefig(path, dpi=200, metadata=undated)
