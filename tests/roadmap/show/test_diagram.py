"""Block diagrams: what is written and drawn equals the plan, for any design; nothing leaves the page."""

import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon
from matplotlib.text import Text

from roadmap import STEPS, Design, DesignError, design_for
from roadmap.operations import Op
from roadmap.plan import BlockPlan, plan_network
from roadmap.show.diagram import block_diagram, diagrams_of, draw_block, save_diagram, stem_diagram
from roadmap.show.drawing import HALF, THIN, Diagram, draw, touched
from tests.conftest import ROOT
from tests.roadmap.designs import OTHERS, SMALL, STRUCTURE, covering_array, name_of

STEP_NAMES = [step.name for step in STEPS]


def texts(figure: Figure) -> list[str]:
    """All texts of the drawing's axes in the order they were drawn."""
    return [text.get_text() for axes in figure.axes for text in axes.texts if text.get_text()]


SLOTS = {"bn": "BN", "ln": "LN", "grn": "GRN", "relu": "ReLU", "gelu": "GELU", "layer_scale": "layer scale 1e-06"}


def slot(op: Op) -> str:
    """What stands in the shape of an operation between convolutions."""
    return f"SE {op.value}" if op.kind == "squeeze_excite" else SLOTS[op.kind]


def check_block(figure: Figure, block: BlockPlan) -> None:
    written = texts(figure)
    kernels = [text for text in written if "×" in text and "→" not in text]
    assert kernels == [f"{conv.kernel}×{conv.kernel}" for conv in block.convs]
    channels = [text for text in written if "→" in text and "×" not in text]
    assert channels == [f"{conv.c_in} → {conv.c_out}" for conv in block.convs]
    for conv in block.convs:
        assert ("depthwise" in " ".join(written)) or not conv.groups == conv.c_in > 1
    slots = [slot(op) for op in (*block.branch, *block.after) if op.kind != "conv"]
    assert [text for text in written if text in SLOTS.values() or text.startswith("SE ")] == slots
    assert written.count("+") == 1
    shortcut = [text for text in written if text == "identity" or text.startswith(("1×1, ", "avg-pool "))]
    what = "identity"
    if block.shortcut:
        *pool, conv, norm = block.shortcut
        stride = f", stride {conv.stride}" if conv.stride > 1 else ""
        what = "avg-pool 2×2, stride 2, " * len(pool)
        what += f"1×1, {conv.c_in} → {conv.c_out}{stride}, {SLOTS[norm.kind]}"
    assert shortcut == [what]


@pytest.mark.parametrize("stage", [1, 4])
@pytest.mark.parametrize("name", STEP_NAMES)
def test_texts_of_a_steps_block_are_the_plans(name, stage) -> None:
    design = design_for(name, layer_scale=1e-6)
    check_block(draw_block(design, stage, title=name), plan_network(design).stages[stage - 1].blocks[-1])


@pytest.mark.parametrize("flags", covering_array(STRUCTURE, 30, seed=2), ids=name_of)
def test_texts_of_any_designs_first_block_are_the_plans(flags) -> None:
    design = Design(**SMALL, **flags | {"separate_downsample": False})
    check_block(draw_block(design, 2, first=True), plan_network(design).stages[1].blocks[0])


def test_shapes_are_as_wide_as_the_channels() -> None:
    design = design_for("inverted_bottleneck")
    figure = draw_block(design)
    shapes = [patch.get_xy() for patch in figure.axes[0].patches if isinstance(patch, Polygon)]
    block = plan_network(design).stages[0].blocks[-1]
    for corners, conv in zip(shapes, block.convs, strict=True):
        assert corners[1, 0] == pytest.approx(HALF * conv.c_in / 384)
        assert corners[2, 0] == pytest.approx(HALF * conv.c_out / 384)
    narrow = draw([stem_diagram(design_for("resnet50"))]).axes[0].patches[0]
    assert narrow.get_xy()[1, 0] == THIN  # three colours are drawn wide enough to see


def test_downsampling_stands_in_front_of_the_block() -> None:
    diagram = block_diagram(design_for("separate_downsampling"), 2, first=True)
    assert [(op.text, op.detail) for op in diagram.front] == [("LN", ""), ("2×2", "96 → 192, stride 2")]
    assert diagram.block[0].detail == "192 → 192, depthwise"


def test_stem_and_its_pooling() -> None:
    assert [op.text for op in stem_diagram(design_for("resnet50")).shapes] == [
        "7×7",
        "BN",
        "ReLU",
        "max-pool 3×3, stride 2",
    ]
    assert [op.text for op in stem_diagram(design_for("separate_downsampling")).shapes] == ["4×4", "LN"]


def test_deep_stems() -> None:
    layer = [("3×3", ""), ("BN", ""), ("ReLU", "")]
    for stem, end in (("deep", [("max-pool 3×3, stride 2", "")]), ("deep_conv", layer)):
        shapes = stem_diagram(Design(stem=stem)).shapes
        assert [shape.text for shape in shapes] == [text for text, _ in [*layer * 3, *end]]
        assert [shape.detail for shape in shapes[::3]][:3] == ["3 → 32, stride 2", "32 → 32", "32 → 64"]


def test_networks_with_other_numbers_of_stages_stand_side_by_side() -> None:
    one, two = design_for("gelu", depths=(2,)), design_for("gelu", depths=(2, 2))
    assert [diagram.part for diagram in diagrams_of({"a": one, "b": two})] == [
        "last block of stage 1; depths 2",
        "last block of stage 1; depths 2, 2",
    ]
    four = design_for("separate_downsampling")
    assert diagrams_of({"a": one, "b": four})[1].part.startswith("last block of stage 1")


PARTS = {
    "enhanced_recipe": "last block of stage 1",
    "stage_ratio": "last block of stage 1",
    "patchify_stem": "stem",
    "depthwise": "last block of stage 1",
    "layer_norm": "last block of stage 1",
    "separate_downsampling": "first block of stage 2",
}


@pytest.mark.parametrize("name", PARTS)
def test_the_part_that_a_change_touches_is_drawn(name) -> None:
    parent = next(step.parent for step in STEPS if step.name == name)
    before, after = diagrams_of({"before": design_for(parent), "after": design_for(name)})
    assert before.part.startswith(PARTS[name])
    assert after.part.startswith(PARTS[name])
    assert (before.shapes == after.shapes) == (name in ("enhanced_recipe", "stage_ratio"))


def outlined(figure: Figure, panel: int) -> list[str]:
    """Line styles of the outlines of a panel's shapes that are drawn bold."""
    shapes = [patch for patch in figure.axes[panel].patches if isinstance(patch, Polygon | FancyBboxPatch)]
    return [patch.get_linestyle() for patch in shapes if patch.get_linewidth() > 1]


def test_only_what_differs_is_outlined() -> None:
    before, after = diagrams_of({"a": design_for("gelu"), "b": design_for("fewer_activations")})
    figure = draw([before, after])
    gone = [before.shapes[place] for place in sorted(touched(before, after))]
    assert [(shape.look, shape.text) for shape in gone] == [("act", "GELU"), ("act", "GELU")]
    assert touched(after, before) == set()
    assert outlined(figure, 0) == ["dashed", "dashed"]
    assert outlined(figure, 1) == []
    kernel = draw(diagrams_of({"a": design_for("move_up_depthwise"), "b": design_for("kernel_7")}))
    assert (outlined(kernel, 0), outlined(kernel, 1)) == (["dashed"], ["solid"])


def views_of(name: str) -> list[Diagram]:
    """A step beside its parent; of another network its parts that no step has, with all that can scale a branch."""
    if name not in OTHERS:
        parent = next(step.parent for step in STEPS if step.name == name)
        return diagrams_of({parent or "none": design_for(parent or name), name: design_for(name)})
    design = OTHERS[name].replace(layer_scale=1e-6, drop_path=0.1)
    return [stem_diagram(design), block_diagram(design, min(2, len(design.depths)), first=True)]


@pytest.mark.parametrize("name", [*STEP_NAMES, *OTHERS])
def test_no_text_leaves_the_page_or_covers_another(name) -> None:
    figure = draw(views_of(name))
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.findobj(Text) if text.get_text()]
    for index, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf", ".PNG"])
def test_files_are_written_and_the_same_each_time(tmp_path, ending) -> None:
    files = [tmp_path / f"{name}{ending}" for name in "ab"]
    for file in files:
        save_diagram(file, "separate_downsampling", "base", drop=["kernel_7"])
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes()[:4] in (b"\x89PNG", b"<?xm", b"%PDF")


def test_other_endings_and_names_are_refused(tmp_path) -> None:
    with pytest.raises(DesignError, match=r"block\.gif: a figure ends in \.png, \.svg or \.pdf"):
        save_diagram(tmp_path / "block.gif", "kernel_7")
    with pytest.raises(DesignError, match="step='kernel_8'"):
        save_diagram(tmp_path / "block.png", "kernel_8")
    with pytest.raises(FileNotFoundError):
        save_diagram(Path("no/such/folder/block.png"), "kernel_7")


def test_drawing_needs_no_torch_and_changes_no_settings() -> None:
    program = (
        "import sys, matplotlib as m; before = dict(m.rcParams)\n"
        "from roadmap import Design; from roadmap.show.diagram import draw_block; draw_block(Design())\n"
        "assert 'torch' not in sys.modules and dict(m.rcParams) == before"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
