"""Step, changes and label are functions of the resolved run: one run, one directory, however it was spelled."""

import random
from typing import Any

import pytest

from experiments.config.compose import settings_from
from experiments.config.identity import run_id
from experiments.config.labels import changes_in, labels_of
from experiments.config.schema import compose
from experiments.config.settings import Recipe, Settings
from experiments.store.run_dir import RunDir
from roadmap.regimes import REGIMES
from roadmap.resolve import design_for, idle_in, label_of, steps_at
from tests.roadmap.test_resolve import all_subsets


def settings(*typed: str) -> Settings:
    overrides = [*typed, "device=cpu", "regime=micro"]
    return settings_from(compose(overrides), overrides)


@pytest.mark.parametrize("regime", REGIMES)
def test_every_set_of_changes_is_found_again_and_keeps_its_label(regime: str) -> None:
    for changes in random.Random(0).sample(all_subsets(), 500):
        design = design_for(changes, regime, layer_scale=1e-6, drop_path=0.1)
        changes = tuple(name for name in changes if name not in idle_in(regime))
        assert changes_in(design, regime) == changes
        step = next((found.name for found in steps_at(changes, "enhanced", idle=idle_in(regime))), None)
        label = step or label_of(changes, idle_in(regime))
        assert labels_of(changes, design, Recipe(name="enhanced"), regime) == (step, changes, (), label)
        assert labels_of((), design.replace(stem_stride=2, init="trunc_normal"), Recipe(), regime).label == label


SPELLINGS = [
    (
        "move_up_depthwise+kernel_size_33",
        ("+step=kernel_7", "design.kernel_size=33"),
        ("+step=kernel_9", "design.kernel_size=33"),
        ("+step=move_up_depthwise", "design.kernel_size=33"),
        ("+step=gelu", "drop=[gelu,kernel_7]", "design.kernel_size=33"),
        ("+step=inverted_bottleneck", "design.spatial_first=true", "design.kernel_size=33"),
    ),
    (
        "separate_downsampling-width+width_20",
        ("+step=separate_downsampling", "design.width=20"),
        ("+step=separate_downsampling", "drop=[width]", "design.width=20"),
        ("+step=layer_norm", "design.width=20", "design.separate_downsample=true", "design.boundary_norms=true"),
    ),
    (
        "separate_downsampling+boundary_norms_false",
        ("+step=separate_downsampling", "design.boundary_norms=false"),
        ("+step=layer_norm", "design.separate_downsample=true"),
    ),
    (
        "layer_norm+boundary_norms_true",
        ("+step=layer_norm", "design.boundary_norms=true"),
        ("+step=separate_downsampling", "design.separate_downsample=false"),
    ),
    (
        "resnet50+gelu+kernel_size_33-mixup-cutmix",
        ("+step=enhanced_recipe", "add=[gelu]", "design.kernel_size=33", "recipe.without=[mixup,cutmix]"),
        ("design.act=gelu", "design.kernel_size=33", "recipe.without=[cutmix,mixup]"),
    ),
    (
        "kernel_7-width+width_41.25",
        ("+step=kernel_7", "match_gmacs=0.25"),
        ("+step=kernel_7", "drop=[width]", "match_gmacs=0.25"),
        ("+step=kernel_7", "drop=[width]", "design.width=41.25"),
    ),
]


@pytest.mark.parametrize("spelt", SPELLINGS, ids=lambda spelt: spelt[0])
def test_every_spelling_of_a_run_leads_to_one_directory(spelt: tuple[Any, ...]) -> None:
    label, *ways = spelt
    runs = [settings(*way, *(("budget=paper",) if "mixup" in label else ())) for way in ways]
    assert len({run_id(run) for run in runs}) == 1
    assert {(run.label, run.changes, run.step) for run in runs} == {(label, runs[0].changes, None)}
    assert len({RunDir.locate(run).path for run in runs}) == 1


def test_a_label_fits_into_a_file_name() -> None:
    longest = settings(
        "recipe=enhanced",
        *("add=[depthwise,inverted_bottleneck,gelu,layer_norm]", "design.depths=[11,12,13,14]", "design.width=100.125"),
        "recipe.without=[label_smoothing,weight_decay,warmup,cosine,layer_scale,trunc_normal]",
    )
    assert len(longest.label) == 120
    assert len(RunDir.locate(longest).path.name) < 200
