"""Costs counted from the plan: the paper's numbers, torch's own counts on the built module, and the golden file."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from roadmap import STEPS, Design, DesignError, build, complexity_of, design_for, paper
from roadmap.changes import Change
from roadmap.complexity import walk
from roadmap.errors import UserError
from roadmap.plan import plan_network
from roadmap.regimes import REGIMES
from roadmap.show.golden import deviations, golden_rows, read_golden, write_golden
from roadmap.steps import BY_NAME, DEFAULT, ROADMAPS
from tests.roadmap.designs import (
    ANY_DEPTHS,
    FLAG_VALUES,
    SMALL,
    STRUCTURE,
    covering_array,
    measured,
    name_of,
    output_side,
)

LADDER_ROWS = [row for row in paper.rows() if not row.is_reference]
GOLDEN = Path(__file__).parents[1] / "golden" / "complexity.csv"


@pytest.mark.parametrize("row", LADDER_ROWS, ids=lambda row: f"{row.regime}-{row.step}")
def test_gmacs_are_the_papers_to_two_decimals(row) -> None:
    gmacs = complexity_of(row.step, regime=row.regime).gmacs
    counted_otherwise = {("tiny", "layer_norm"): 4.15, ("tiny", "separate_downsampling"): 4.46}
    assert f"{gmacs:.2f}" == f"{counted_otherwise.get((row.regime, row.step), row.gflops):.2f}"
    assert row.gflops_counted == counted_otherwise.get((row.regime, row.step), row.gflops)


def test_table_10_slipped_by_one_line() -> None:
    printed = {row.step: row.gflops for row in paper.rows() if row.regime == "tiny"}
    counted = {row.step: row.gflops_counted for row in paper.rows() if row.regime == "tiny"}
    assert (printed["layer_norm"], printed["separate_downsampling"], printed["swin_t"]) == (4.46, 4.49, 4.50)
    assert (counted["layer_norm"], counted["separate_downsampling"], counted["swin_t"]) == (4.15, 4.46, 4.49)
    assert all(row.gflops == row.gflops_counted for row in paper.rows() if row.regime == "base")


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_counts_are_torchs_on_the_built_module(step, regime) -> None:
    with torch.device("meta"):
        model = build(step.name, regime=regime)
    cost = complexity_of(step.name, regime=regime)
    assert (cost.params, cost.macs, cost.activations) == measured(model, (224, 224))


@pytest.mark.parametrize("flags", covering_array(FLAG_VALUES | {"depths": ANY_DEPTHS}, 40, seed=1), ids=name_of)
def test_counts_are_torchs_for_any_flags(flags) -> None:
    design = Design(width=8, **flags)
    with torch.device("meta"):
        model = build(design, num_classes=7)
    cost = complexity_of(design, image_size=(75, 48), num_classes=7)
    assert (cost.params, cost.macs, cost.activations) == measured(model, (75, 48))


@settings(deadline=None, max_examples=40)
@given(
    flags=st.fixed_dictionaries({flag: st.sampled_from(values) for flag, values in STRUCTURE.items()}),
    depths=st.lists(st.integers(1, 2), min_size=1, max_size=5),
    width=st.floats(2, 24),
    kernel_size=st.integers(0, 15).map(lambda half: 2 * half + 1),
    image_size=st.tuples(st.integers(28, 256), st.integers(28, 256)),
    layer_scale=st.sampled_from([None, 1e-6]),
)
def test_loose_values_cost_what_torch_counts(flags, depths, width, kernel_size, image_size, layer_scale) -> None:
    loose = {"depths": depths, "width": width, "kernel_size": kernel_size, "groups": "depthwise"}
    design = Design(**flags | loose, layer_scale=layer_scale)
    with torch.device("meta"):
        model = build(design, num_classes=5)
    cost = complexity_of(design, image_size=image_size, num_classes=5)
    assert (cost.params, cost.macs, cost.activations) == measured(model, image_size)
    *_, positions = (places for _, op, places in walk(plan_network(design), image_size) if op.role != "head")
    assert positions == output_side(design, image_size[0]) * output_side(design, image_size[1])


def test_input_channels_classes_and_square_sizes() -> None:
    gray = complexity_of("kernel_7", in_chans=1, num_classes=10, image_size=96)
    with torch.device("meta"):
        model = build("kernel_7", in_chans=1, num_classes=10)
    assert gray.params == sum(parameter.numel() for parameter in model.parameters())
    assert gray == complexity_of("kernel_7", in_chans=1, num_classes=10, image_size=(96, 96))
    assert complexity_of("kernel_7", regime="base") == complexity_of(design_for("kernel_7", "base"))
    with pytest.raises(DesignError, match="regime='huge'"):
        complexity_of("kernel_7", regime="huge")


def test_parameter_counts_of_the_ends() -> None:
    scaled = {"layer_scale": 1e-6}
    assert complexity_of("resnet50").params == 25_557_032
    assert complexity_of("resnet50", regime="base").params == 64_673_832
    assert complexity_of(design_for("separate_downsampling", **scaled)).params == 28_589_128
    assert complexity_of(design_for("separate_downsampling", "base", **scaled)).params == 88_591_464


def test_both_ladders_are_counted_within_a_second_and_without_torch() -> None:
    program = (
        "import sys, time; start = time.process_time()\n"
        "from roadmap.show.tables import ladder_rows\n"
        "rows = ladder_rows('tiny') + ladder_rows('base')\n"
        "print(len(rows), time.process_time() - start, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count, seconds, loads_torch = done.stdout.split()
    assert (int(count), loads_torch) == (2 * len(STEPS), "False")
    assert float(seconds) < 1


def test_golden_file_is_up_to_date() -> None:
    assert read_golden(GOLDEN) == golden_rows()
    assert len(golden_rows()) == sum(
        len(road.steps) * len(REGIMES if road is DEFAULT else road.regimes) for road in ROADMAPS.values()
    )


def test_golden_file_is_rewritten_as_it_is(tmp_path) -> None:
    write_golden(tmp_path / "complexity.csv")
    assert (tmp_path / "complexity.csv").read_bytes() == GOLDEN.read_bytes()


def change_the_paper(monkeypatch) -> None:
    monkeypatch.setitem(paper.COUNTED_GFLOPS, ("tiny", "kernel_7"), 4.16)
    paper.rows.cache_clear()


def change_the_step(monkeypatch) -> None:
    monkeypatch.setattr(Change, "delta_in", changed_delta)


DELTA_IN = Change.delta_in


def changed_delta(change: Change, regime: str) -> dict:
    return {"kernel_size": 9} if change.name == "kernel_7" else DELTA_IN(change, regime)


@pytest.mark.parametrize(
    "change, what",
    [
        (change_the_paper, r"tiny kernel_7: 4\.15 GMACs, the paper has 4\.16"),
        (change_the_step, r"tiny kernel_7: 4\.21 GMACs, the paper has 4\.15.*base kernel_7: 14\.95 GMACs.* 14\.81"),
    ],
)
def test_golden_file_is_not_rewritten_when_the_network_leaves_the_paper(tmp_path, monkeypatch, change, what) -> None:
    file = tmp_path / "complexity.csv"
    file.write_text("as it was\n")
    change(monkeypatch)
    try:
        with pytest.raises(UserError, match=what) as caught:
            write_golden(file)
        assert "\n" not in str(caught.value)
        assert file.read_text() == "as it was\n"
    finally:
        monkeypatch.undo()
        paper.rows.cache_clear()
    assert deviations(golden_rows()) == []


def test_micro_is_guarded_by_the_golden_file_alone() -> None:
    rows = [{**row, "macs": 1} for row in golden_rows() if row["regime"] == "micro"]
    assert deviations(rows) == []
    assert {row["regime"] for row in golden_rows()} == set(REGIMES)


@pytest.mark.parametrize("flags", covering_array(FLAG_VALUES, 40, seed=3), ids=name_of)
def test_walk_names_are_the_modules_and_every_operation_has_its_parameters(flags) -> None:
    """Each planned operation is the module of its name, and no module has a parameter that no operation has."""
    design = Design(**SMALL, **flags)
    with torch.device("meta"):
        model = build(design, num_classes=7)
    parts = dict(model.named_modules()) | dict(model.named_parameters())
    names = []
    for name, op, _ in walk(plan_network(design, num_classes=7), 32):
        part = parts[name]
        parameters = list(part.parameters()) if isinstance(part, nn.Module) else [part]
        assert sum(parameter.numel() for parameter in parameters) == op.params, name
        if op.kind == "conv":
            assert tuple(part.weight.shape) == (op.c_out, op.c_in // op.groups, op.kernel, op.kernel)
        names.append(name)
    assert len(set(names)) == len(names)
    assert {
        key for key in dict(model.named_parameters()) if not any(f"{key}.".startswith(f"{name}.") for name in names)
    } == set()


def test_steps_differ_in_cost_exactly_where_the_paper_says_so() -> None:
    same = [
        step.name for step in STEPS if step.parent and complexity_of(step.name).macs == complexity_of(step.parent).macs
    ]
    assert same == ["enhanced_recipe", "gelu", "fewer_activations", "fewer_norms", "layer_norm"]
    assert BY_NAME["fewer_norms"].delta == {"fewer_norms": True}
