"""`explain`: what it says, against the plan, and receptive fields against a measurement by gradients."""

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor, nn

from roadmap import STEPS, Design, DesignError, build, complexity_of, design_for, paper
from roadmap.plan import plan_network
from roadmap.show.diagram import diagrams_of
from roadmap.show.explain import Comparison, _all_ops, _costs, block_words, explain, receptive_fields
from tests.roadmap.designs import FLAG_VALUES, SMALL

STEP_NAMES = [step.name for step in STEPS]
PARTS = ("stem", "stage 1", "stage 2", "stage 3", "stage 4", "head", "total")


def linear_everywhere(design: Design) -> nn.Module:
    """The network with weights that let every input pixel show: positive, nothing gated, averages for maxima."""
    torch.manual_seed(0)
    model = build(design, num_classes=1).double().eval()
    for name in [name for name, module in model.stem.named_children() if isinstance(module, nn.MaxPool2d)]:
        setattr(model.stem, name, nn.AvgPool2d(3, 2, 1))
    for parameter in model.parameters():
        parameter.data.uniform_(0.5, 1.5)
    return model


def measured_field(model: nn.Module, stage: int, side: int) -> int:
    """Rows of the input that change one location in the middle of a stage's output."""
    x = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    out: Tensor = model.stages[: stage + 1](model.stem(x))
    middle = out.shape[-1] // 2
    out[:, :, middle, middle].square().sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert 0 < rows[0] <= rows[-1] < side - 1  # the border does not cut it
    return int(rows[-1] - rows[0]) + 1


@pytest.mark.parametrize(
    "step, flags",
    [
        ("resnet50", {}),
        ("resnet50", {"stem_stride": 1, "kernel_size": 5}),
        ("patchify_stem", {}),
        ("inverted_bottleneck", {"stem_stride": 2}),
        ("kernel_5", {}),
        ("layer_norm", {"kernel_size": 3}),
        ("separate_downsampling", {"kernel_size": 3}),
        ("separate_downsampling", {"kernel_size": 5, "stem_stride": 2}),
        ("resnet50", {"early_stride": True, "stem": "deep"}),
        ("resnet50", {"kernel_size": 1, "pooled_shortcut": True, "stem": "deep_conv", "stem_stride": 8}),
        ("resnet50", {"depths": (2, 1), "stem_stride": 8}),
        ("separate_downsampling", {"depths": (2,), "stem_stride": 16, "kernel_size": 3}),
    ],
)
def test_receptive_fields_are_what_gradients_reach(step, flags) -> None:
    design = design_for(step, **{"width": 2, "depths": (1, 2, 1, 1)} | flags)
    model = linear_everywhere(design)
    for stage, field in enumerate(receptive_fields(design)[:3]):
        side = 128 * (field // 64 + 2)
        assert measured_field(model, stage, side) == field


def test_receptive_fields_of_known_networks() -> None:
    assert receptive_fields(design_for("resnet50")) == (35, 91, 267, 427)
    assert receptive_fields(design_for("separate_downsampling")) == (76, 224, 1096, 1688)


@pytest.mark.parametrize("regime", ["tiny", "micro"])
@pytest.mark.parametrize("name", STEP_NAMES)
def test_it_states_config_paper_and_costs(name, regime) -> None:
    text = explain(name, regime)
    step = next(step for step in STEPS if step.name == name)
    design = design_for(name, regime)
    assert text.startswith(f"{name} in regime {regime}")
    assert (f"compared with {step.parent}" in text) == (step.parent is not None)
    words = text.replace("\n", " ").split()
    for flag, value in step.delta_in(regime).items():
        written = str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "").strip("()")
        assert any(word.replace("[", "").replace("]", "").startswith(f"{flag}={written}") for word in words)
    row = paper.row(name, regime)
    assert (f"{row.label}\n{row.top1:.2f}" in text) if row else ("The paper has no row for it." in text)
    cost = complexity_of(design)
    total = next(line for line in text.splitlines() if line.strip().startswith("total")).split()
    after = total[2::2] if step.parent else total[1:]
    assert after == [f"{cost.params / 1e6:.3f}", f"{cost.gmacs:.3f}", f"{cost.activations / 1e6:.3f}"]


@pytest.mark.parametrize("name", STEP_NAMES)
def test_it_shows_every_operation_of_the_block(name) -> None:
    text = " ".join(explain(name).split())
    design = design_for(name)
    for block in plan_network(design).stages[1].blocks[:2]:
        for op in block_words(block):
            assert op in text


def table_of(text: str) -> dict[str, list[str]]:
    """Part -> numbers, from the table of costs."""
    rows = [line for line in text.split("Cost per part")[1].splitlines() if line.strip().startswith(PARTS)]
    found = {}
    for line in rows:
        part = next(part for part in PARTS if line.strip().startswith(part))
        found[part] = line.strip().removeprefix(part).split()
    return found


def test_parts_add_up_to_the_total() -> None:
    table = table_of(explain("kernel_7"))
    assert tuple(table) == PARTS
    for column in range(6):
        parts = sum(float(table[part][column]) for part in PARTS[:-1])
        assert parts == pytest.approx(float(table["total"][column]), abs=0.004)
    assert [table[f"stage {i}"][7] for i in (1, 2, 3, 4)] == ["76", "196", "1,012", "1,492"]


def test_marks_tell_what_the_change_touches() -> None:
    lines = explain("separate_downsampling").splitlines()
    marked = [line.split() for line in lines if line.strip()[:2] in ("* ", "+ ", "- ")]
    assert ["+", "ln"] in marked
    assert ["+", "conv", "2x2", "96", "->", "192,", "stride", "2,", "bias"] in marked
    assert any(words[0] == "*" and words[-2:] == ["+", "x"] for words in marked)
    assert "  stem, the same: conv 4x4 3 -> 96, stride 4, bias" in explain("kernel_7").splitlines()


def test_the_slip_of_table_10_is_said() -> None:
    assert "4.49 GFLOPs as printed (4.46 as counted: the printed column slipped)" in explain("separate_downsampling")
    assert "counted" not in explain("separate_downsampling", "base")


def test_altered_sets_are_compared_with_the_step_itself() -> None:
    text = explain("separate_downsampling", drop=["kernel_7"])
    assert text.startswith("separate_downsampling-kernel_7 in regime tiny, compared with separate_downsampling\n")
    assert "The paper has no row for it.\nSection 2.5 (large kernel) is about kernel_7: kernel size -> 7." in text
    assert "kernel_size=3 (was 7)" in text


def test_a_set_that_is_a_step_gets_that_steps_row() -> None:
    assert "80.57 ± 0.06 % top-1" in explain("kernel_7", add=["kernel_9"])


def test_size_and_classes() -> None:
    small = explain("kernel_7", image_size=32, num_classes=10)
    cost = complexity_of("kernel_7", image_size=32, num_classes=10)
    assert table_of(small)["total"][3] == f"{cost.gmacs:.3f}"
    assert "at 32 px with 10 classes" in small


def test_lines_fit_a_terminal() -> None:
    for name in STEP_NAMES:
        assert max(map(len, explain(name).splitlines())) <= 120


def test_layer_scale_and_bias_are_shown() -> None:
    design = design_for("separate_downsampling", layer_scale=1e-6)
    block = plan_network(design).stages[0].blocks[0]
    assert block_words(block) == [
        "spatial 7x7 96 -> 96, groups 96, bias",
        "ln",
        "pw_in 1x1 96 -> 384, bias",
        "gelu",
        "pw_out 1x1 384 -> 96, bias",
        "layer scale 1e-06",
        "+ x",
    ]
    strided = dataclasses.replace(block.convs[0], stride=2, groups=1, bias=False)
    assert strided.row.words(strided) == "spatial 7x7 96 -> 96, stride 2"


@pytest.mark.parametrize("base", [{}, {"stem": "patchify", "separate_downsample": True}], ids=["resnet", "convnext"])
@pytest.mark.parametrize("flag", FLAG_VALUES)
def test_two_different_networks_are_never_called_the_same(flag, base) -> None:
    """Whatever a flag changes in the plan shows in the list of operations, and in the diagram but for the head."""
    for one, other in itertools.combinations([Design(**SMALL | base | {flag: v}) for v in FLAG_VALUES[flag]], 2):
        plans = [plan_network(one), plan_network(other)]
        assert (_all_ops(one) != _all_ops(other)) == (plans[0] != plans[1])
        before, after = diagrams_of({"": one, " ": other})
        assert (before.shapes != after.shapes) == any(p.stem != q.stem or p.stages != q.stages for p, q in [plans])


def test_operations_of_other_ladders_in_words() -> None:
    design = Design(stem="deep", pooled_shortcut=True, squeeze_excite=0.25, grn=True, dropout=0.25)
    parts = _all_ops(design)
    assert parts["first block of stage 2"] == [
        "pw_in 1x1 256 -> 128",
        "bn",
        "relu",
        "spatial 3x3 128 -> 128, stride 2",
        "bn",
        "relu",
        "grn",
        "pw_out 1x1 128 -> 512",
        "bn",
        "squeeze-excite 512 -> 128 -> 512",
        "+ avg-pool 2x2, stride 2, shortcut 1x1 256 -> 512, bn",
        "relu",
    ]
    assert parts["stem"][3:6] == ["conv 3x3 32 -> 32", "bn", "relu"]
    assert parts["head"] == ["global average pooling", "dropout 0.25", "linear classifier"]


def test_an_isotropic_network_is_told_by_its_one_stage() -> None:
    parts = _all_ops(design_for("separate_downsampling", depths=(18,), width=384, stem_stride=16))
    assert list(parts) == ["stem", "first block of stage 1", "its other blocks", "head"]
    assert parts["stem"] == ["conv 16x16 3 -> 384, stride 16, bias"]


def test_costs_of_networks_with_other_numbers_of_stages_stand_side_by_side() -> None:
    one, twelve = Design(depths=(1,), width=8), Design(depths=(1,) * 12, width=1)
    lines = _costs(Comparison("after", "before", one, twelve), 64, 10).splitlines()[2:]
    assert [line.split("  ")[1].strip() for line in lines] == [
        "stem",
        *(f"stage {number}" for number in range(1, 13)),
        "head",
        "total",
    ]
    assert len(lines[1].split()) == 2 + 8
    assert len(lines[2].split()) == 2 + 4


def test_unknown_names() -> None:
    with pytest.raises(DesignError, match="step='kernel_8'"):
        explain("kernel_8")
    with pytest.raises(DesignError, match="drop=gelu"):
        explain("kernel_7", drop=["gelu"])
