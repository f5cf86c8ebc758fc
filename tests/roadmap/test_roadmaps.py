"""Roadmaps as files: their rows, what they share, the order of a set, and the files that are refused."""

import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from roadmap import ROADMAPS, Design, DesignError, build, design_for, label_of, set_of
from roadmap.changes import FILES
from roadmap.regimes import REGIMES
from roadmap.resolve import idle_in, qualified, step_at, steps_at
from roadmap.steps import CHANGES, DEFAULT, alternatives, in_order, step_named
from tests.conftest import ROOT

PUBLISHED = {"convnext": 17, "bag_of_tricks": 7, "torchvision": 13, "resnet_rs": 11, "convnext_v2": 3}
OTHERS = [road for road in ROADMAPS.values() if road is not DEFAULT]


@pytest.mark.parametrize("name, rows", PUBLISHED.items())
def test_rows_and_published_numbers(name: str, rows: int) -> None:
    road = ROADMAPS[name]
    assert len(road.steps) == rows
    steps = {row.step for row in road.rows if not row.is_reference}
    assert steps <= set(road.by_name)
    if name != "convnext_v2":  # whose table has no row for layer scale alone
        assert steps == set(road.by_name)
    assert {row.regime for row in road.rows} <= set(road.regimes)


def test_the_published_ends() -> None:
    ends = {name: (road.row(road.root.name), road.row(road.end.name)) for name, road in ROADMAPS.items() if road.rows}
    found = {name: (first.top1, last.top1) for name, (first, last) in ends.items() if first and last}
    assert found == {
        "convnext": (76.13, 81.97),
        "bag_of_tricks": (76.21, 79.15),
        "torchvision": (76.13, 80.858),
        "resnet_rs": (79.0, 83.4),
        "convnext_v2": (83.8, 84.3),
    }


@pytest.mark.parametrize("road", OTHERS, ids=lambda road: road.name)
def test_each_step_adds_its_change_to_its_parents(road) -> None:
    for step in road.steps[1:]:
        before = road.by_name[step.parent].changes
        assert step.changes == (*before, step.name)
        assert in_order(step.changes, road) == step.changes


def test_names_say_one_thing_and_steps_are_told_apart() -> None:
    every = [step for road in ROADMAPS.values() for step in road.steps]
    names = {}
    for step in every:
        names.setdefault(qualified(step), []).append(step)
    assert all(len(steps) == 1 for steps in names.values())
    sets = {}
    for step in every:  # one set under one recipe has one label, whichever roadmaps it stands in
        sets.setdefault((frozenset(step.changes), step.recipe), []).append(step)
    shared = [{qualified(step) for step in steps} for steps in sets.values() if len(steps) > 1]
    assert {"resnet50", "torchvision.torchvision_baseline", "resnet_rs.resnet_rs_baseline"} in shared
    assert {"separate_downsampling", "convnext_v2.separate_downsampling"} in shared


def test_roadmaps_share_runs() -> None:
    assert step_at((), "original") == "resnet50"
    assert [step.name for step in steps_at((), "original", ROADMAPS["torchvision"])] == ["torchvision_baseline"]
    assert step_at((), "enhanced", ROADMAPS["torchvision"]) is None
    ema = ROADMAPS["resnet_rs"].step_named("ema").changes
    assert step_at(tuple(reversed(ema)), "original", ROADMAPS["resnet_rs"]) == "ema"


def test_a_step_of_another_roadmap_is_refused_with_its_roadmap() -> None:
    with pytest.raises(
        DesignError, match=r"^step=squeeze_excite is no step of roadmap=convnext; .* roadmap=resnet_rs$"
    ):
        step_named("squeeze_excite")
    with pytest.raises(DesignError, match=r"^roadmap='resnet' is not one of: convnext, "):
        design_for("resnet50", roadmap="resnet")


def test_alternatives_are_changes_that_give_a_key_another_value_and_do_not_follow() -> None:
    assert {"patchify_stem"} == alternatives("resnet_c") == alternatives("resnet_d")
    assert alternatives("epochs_600") == {"epochs_350", "mixup_epochs_200"}
    assert alternatives("resnet_b") == set()  # its root has the other value, which any change may set anew
    assert in_order(["epochs_600", "bag_of_tricks_baseline"], ROADMAPS["torchvision"])[1] == "epochs_600"
    full = DEFAULT.end.changes
    assert set(set_of(full, add=["resnet_d"])) == {*full, "resnet_d"} - {"patchify_stem"}


def test_a_set_is_in_the_order_of_its_roadmap_then_of_the_others() -> None:
    torchvision = ROADMAPS["torchvision"]
    assert in_order(["gelu", "label_smoothing", "trivial_augment", "grn"], torchvision) == (
        *("trivial_augment", "label_smoothing", "gelu", "grn"),
    )
    changes = set_of("label_smoothing", add=["squeeze_excite", "gelu"], road=torchvision)
    assert changes[-2:] == ("gelu", "squeeze_excite")
    assert label_of(("squeeze_excite",)) == "resnet50+squeeze_excite"


def test_isotropic_regimes_leave_the_stage_ratio_nothing_to_do() -> None:
    assert {regime for regime in REGIMES if idle_in(regime)} == {"isotropic", "isotropic_base"}
    assert idle_in("isotropic") == idle_in("isotropic_base") == {"stage_ratio"}
    end = design_for("separate_downsampling", "isotropic")
    assert (end.depths, end.width, end.stem_stride) == ((18,), 384, 16)


# ---- any set of changes of any roadmaps


def random_sets(count: int, seed: int = 0) -> list[tuple[str, ...]]:
    """Sets of changes from all roadmaps, of every size, no two of a set alternatives."""
    draw = random.Random(seed)
    sets = []
    for _ in range(count):
        chosen: list[str] = []
        for name in draw.sample(CHANGES, draw.randint(0, len(CHANGES))):
            if not alternatives(name) & set(chosen):
                chosen.append(name)
        sets.append(in_order(chosen))
    return sets


def small(design: Design) -> Design:
    """The same operations, one block a stage and narrow."""
    return design.replace(depths=(1,) * len(design.depths), width=8)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_any_set_builds_and_trains(count: int, regime: str) -> None:
    trained: set[Design] = set()
    for changes in random_sets(count):
        design = small(design_for(changes, regime))
        if design in trained:
            continue
        trained.add(design)
        model = build(design, num_classes=3)
        loss = torch.nn.functional.cross_entropy(model(torch.randn(2, 3, 32, 32)), torch.tensor([0, 2]))
        loss.backward()
        assert loss.isfinite(), changes
    assert len(trained) > count // 2


@pytest.mark.parametrize("regime", REGIMES)
def test_labels_of_any_set_are_its_own_and_fit_into_a_file_name(regime: str) -> None:
    sets = set(random_sets(500))
    labels = {label_of(changes) for changes in sets}
    assert len(labels) == len(sets)
    assert not [label for label in labels if set(label) & set("/ :")]


# ---- files of one's own


def in_folder(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"ROADMAP_PATH": str(folder), "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


def put(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# @package _global_\n{text}\n")
    return folder


ROADMAP = """
defaults: [override /recipe: original]
roadmap:
  name: mine
  title: Mine
  source: nobody
  steps: [resnet50, gelu, cosine]
"""
BROKEN = {
    "must say step: mine": {"step__mine": "step: yours"},
    "must name at most one parent in its defaults and one change, mine": {
        "step__mine": "step: mine\nchanges: {yours: {width: 8}}"
    },
    "wide=8 is no flag of the design and none of: recipe, batch": {
        "step__mine": "step: mine\nchanges: {mine: {wide: 8}}"
    },
    "step=gelu is": {"step__gelu": "step: gelu\nchanges: {gelu: {act: relu}}"},
    "there is no file step/gello.yaml; is it gelu?": {"roadmap__mine": ROADMAP.replace("gelu", "gello")},
    "gelu stands in it twice": {"roadmap__mine": ROADMAP.replace("cosine", "gelu")},
    "must hold title": {"roadmap__mine": ROADMAP.replace("title: Mine", "")},
    "must hold override /recipe": {"roadmap__mine": ROADMAP.replace("[override /recipe: original]", "[]")},
    "cannot be read": {"step__mine": "step: [mine"},
    "published=none.csv is no file beside it": {"roadmap__mine": ROADMAP + "  published: none.csv"},
}


@pytest.mark.parametrize("message, files", BROKEN.items())
def test_a_file_that_is_wrong_is_one_line(message: str, files: dict[str, str], tmp_path: Path) -> None:
    program = "import sys; from roadmap.__main__ import main; sys.exit(main(['explain', 'gelu', '--roadmap', 'mine']))"
    done = in_folder(put(tmp_path, **files), program)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_roadmap_of_ones_own_puts_steps_of_others_in_another_order(tmp_path: Path) -> None:
    program = (
        "from roadmap.steps import ROADMAPS\n"
        "road = ROADMAPS['mine']\n"
        "print(*(f'{s.name}<{s.parent}:{s.recipe}' for s in road.steps), road.end.changes)"
    )
    done = in_folder(put(tmp_path, roadmap__mine=ROADMAP), program)
    assert done.stdout.split(" (")[0] == "resnet50<None:original gelu<resnet50:original cosine<gelu:original", (
        done.stderr
    )
    assert "('gelu', 'cosine')" in done.stdout


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    done = in_folder(tmp_path / "nowhere", "import sys; from roadmap.__main__ import main; sys.exit(main([]))")
    assert done.returncode == 2
    assert f"ROADMAP_PATH: there is no folder {tmp_path / 'nowhere'}" in done.stderr


def test_every_step_file_is_in_a_roadmap_or_can_be_added() -> None:
    placed = set(itertools.chain(*(road.by_name for road in ROADMAPS.values())))
    assert set(FILES) == placed
