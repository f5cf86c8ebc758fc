"""Composition: every file and every pair of groups, precedence, the paper's recipe values, steps, labels and ids."""

import dataclasses
import itertools
from functools import cache
from typing import Any

import pytest
import yaml

from experiments.config.compose import settings_from
from experiments.config.fields import later
from experiments.config.identity import Identity, _values, run_id
from experiments.config.schema import compose
from experiments.config.settings import Batch, Settings
from experiments.config.techniques import TECHNIQUES, active, is_on
from experiments.errors import ConfigError
from roadmap.design import YES_OR_NO, _flag
from roadmap.files import CONF
from roadmap.regimes import REGIMES
from roadmap.resolve import idle_in
from roadmap.steps import BY_NAME, STEPS

GROUPS = ("regime", "recipe", "budget", "data", "logger", "launcher")
FILES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
RECIPES = ("original", "enhanced")
BUDGETS = ("paper", "proxy", "demo")


@cache
def settings(*overrides: str) -> Settings:
    """The settings under overrides, on a CPU so that precision needs no torch."""
    typed = ["device=cpu", *overrides]
    return settings_from(compose(typed), typed)


@pytest.mark.parametrize("group, name", FILES)
def test_every_file_of_every_group_composes(group: str, name: str) -> None:
    composed = settings(f"{group}={name}")
    if group in ("recipe", "budget", "data", "logger"):
        assert getattr(composed, group).name == name
    if group == "regime":
        assert composed.regime == name


@pytest.mark.parametrize("step", [step.name for step in STEPS])
def test_every_step_composes_with_every_recipe_and_budget(step: str) -> None:
    for recipe, budget in itertools.product(RECIPES, BUDGETS):
        composed = settings(f"+step={step}", f"recipe={recipe}", f"budget={budget}")
        assert (composed.recipe.name, composed.budget.name) == (recipe, budget)
        wanted = {"resnet50", "enhanced_recipe"} if step in ("resnet50", "enhanced_recipe") else {step, None}
        assert composed.step in wanted


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step_is_at_itself(step: Any, regime: str) -> None:
    if step.name in idle_in(regime):
        step = BY_NAME[step.parent]  # where it is, since it changes nothing
    composed = settings(f"+step={step.name}", f"regime={regime}")
    assert (composed.step, composed.label, composed.recipe.name) == (step.name, step.name, step.recipe)
    assert composed.changes == tuple(name for name in step.changes if name not in idle_in(regime))


def test_a_bare_run_is_the_baseline_with_the_enhanced_recipe() -> None:
    bare = settings()
    assert (bare.step, bare.changes, bare.recipe.name, bare.design.stem) == (
        "enhanced_recipe",
        (),
        "enhanced",
        "resnet",
    )
    assert run_id(bare) == run_id(settings("+step=enhanced_recipe"))


# Neither recipe has what later ladders added.
OFF = {
    "ema_every": 1,
    "loss": "cross_entropy",
    "opt": {},
    "layer_decay": 1,
    "freeze": (),
    "auto_augment": None,
    "trivial_augment": False,
    "dropout": 0,
    "repeats": 1,
    "train_scale": 1,
}
# The paper, Table 5 and Appendix A.1; EMA is off in the roadmap.
TABLE_5 = {
    "epochs": 300,
    "optimizer": "adamw",
    "base_lr": 4e-3,
    "lr_batch": 4096,
    "betas": (0.9, 0.999),
    "weight_decay": 0.05,
    "decay_all": False,
    "schedule": "cosine",
    "warmup_epochs": 20,
    "min_lr": 1e-6,
    "clip_grad": None,
    "ema": None,
    "label_smoothing": 0.1,
    "mixup": 0.8,
    "cutmix": 1.0,
    "mixup_switch": 0.5,
    "randaugment": "rand-m9-mstd0.5-inc1",
    "erasing": 0.25,
    "drop_path": 0.1,
    "layer_scale": 1e-6,
    "init": "trunc_normal",
    "crop": "resized",
    "crop_scale": (0.08, 1.0),
    "flip": 0.5,
    "interpolation": "bicubic",
    "eval_crop": 224 / 256,
}
# torchvision's recipe for ResNet-50's first weights (76.13 %).
TORCHVISION = {
    "epochs": 90,
    "optimizer": "sgd",
    "base_lr": 0.1,
    "lr_batch": 256,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "decay_all": True,
    "schedule": "steps",
    "decay_every": 30,
    "decay_factor": 0.1,
    "warmup_epochs": 0,
    "clip_grad": None,
    "ema": None,
    "label_smoothing": 0,
    "mixup": 0,
    "cutmix": 0,
    "randaugment": None,
    "erasing": 0,
    "drop_path": 0,
    "layer_scale": None,
    "init": "kaiming",
    "crop": "resized",
    "crop_scale": (0.08, 1.0),
    "flip": 0.5,
    "interpolation": "bilinear",
    "eval_crop": 224 / 256,
}
# The paper, Appendix A.2, with the decay by layer of its larger networks; without EMA.
FINE_TUNING = {
    **TABLE_5,
    "epochs": 30,
    "base_lr": 5e-5,
    "lr_batch": 512,
    "layer_decay": 0.8,
    "weight_decay": 1e-8,
    "warmup_epochs": 0,
    "mixup": 0,
    "cutmix": 0,
}
RECIPE_TABLES = {
    "enhanced": (TABLE_5 | OFF, {"size": 4096, "micro": 128}, 4e-3, {"name", "lr", "without", "momentum"}),
    "original": (TORCHVISION | OFF, {"size": 256, "micro": 32}, 0.1, {"name", "lr", "without", "betas", "min_lr"}),
    "finetune": (OFF | FINE_TUNING, {"size": 512, "micro": 128}, 5e-5, {"name", "lr", "without", "momentum"}),
}
STEP_OF = {"enhanced": "enhanced_recipe", "original": "resnet50", "finetune": None}


@pytest.mark.parametrize("recipe", RECIPE_TABLES)
def test_recipes_are_the_published_ones(recipe: str) -> None:
    table, batch, rate, not_published = RECIPE_TABLES[recipe]
    composed = settings(f"recipe={recipe}", "budget=paper", "data=imagenet", "data.root=/data/imagenet")
    found = dataclasses.asdict(composed.recipe)
    assert {key: found[key] for key in table} == table
    idle = {"decay_every", "decay_factor", "crop_pad", "mixup_switch", "bce_sum", "bce_target_thresh"}
    assert set(found) - set(table) <= not_published | idle  # a new key needs a published value here
    assert dataclasses.asdict(composed.batch) == batch
    assert composed.lr == pytest.approx(rate, rel=1e-12)
    assert (composed.image_size, composed.data.classes) == (224, 1000)
    assert composed.step == STEP_OF[recipe]


@pytest.mark.parametrize("regime, rate", [("tiny", 0.1), ("base", 0.5), ("micro", 0.0)])
def test_stochastic_depth_follows_the_regime(regime: str, rate: float) -> None:
    assert settings(f"regime={regime}").design.drop_path == rate
    assert settings(f"regime={regime}", "recipe=original").design.drop_path == 0


def test_regime_values_are_those_of_its_file() -> None:
    for regime in REGIMES:
        written = yaml.safe_load((CONF / "regime" / f"{regime}.yaml").read_text())
        assert compose([f"regime={regime}"])["regime"] == {"stem_factor": 1} | written


OVERLAY = yaml.safe_load((CONF / "overlay" / "demo_enhanced.yaml").read_text())
PRECEDENCE = [
    # the recipe over the schema, the regime through the recipe
    (("recipe=original", "budget=paper", "data=imagenet"), "recipe.weight_decay", 1e-4),
    (("regime=base", "budget=paper", "data=imagenet"), "recipe.drop_path", 0.5),
    # the overlay over the recipe
    (("budget=proxy", "data=cifar10"), "recipe.crop", "none"),
    (("budget=proxy", "data=cifar10"), "batch.size", 64),
    (("budget=demo", "data=cifar10"), "recipe.epochs", OVERLAY["recipe"]["epochs"]),
    (("budget=demo", "+step=resnet50", "data=cifar10"), "recipe.crop", "none"),
    # the data's limits over the overlay
    (("budget=paper", "data=digits"), "recipe.crop", "none"),
    (("budget=paper", "data=digits"), "recipe.flip", 0.0),
    (("recipe=original", "data=digits"), "recipe.flip", 0.0),
    (("+step=resnet50", "data=digits"), "recipe.flip", 0.0),
    (("budget=paper", "data=imagenet"), "recipe.flip", 0.5),
    # the command line over everything, in whatever order it is typed
    (("recipe.flip=0.3", "data=digits"), "recipe.flip", 0.3),
    (("recipe.epochs=3", "budget=proxy"), "recipe.epochs", 3),
    (("recipe.drop_path=0.4", "regime=base"), "design.drop_path", 0.4),
    (("design.drop_path=0.4", "regime=base"), "recipe.drop_path", 0.4),
    (("recipe=original", "+step=kernel_7"), "recipe.name", "original"),
    (("data.image_size=64",), "image_size", 64),
    (("image_size=48", "data.image_size=64"), "image_size", 48),
    (("data.stem_stride=2",), "design.stem_stride", 2),
    (("design.stem_stride=1",), "data.stem_stride", 1),
]


@pytest.mark.parametrize("overrides, key, value", PRECEDENCE)
def test_precedence(overrides: tuple[str, ...], key: str, value: Any) -> None:
    found: Any = settings(*overrides)
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


def test_data_files_only_limit_augmentation() -> None:
    """A data file may switch a recipe's augmentation off, never on."""
    for path in (CONF / "data").glob("*.yaml"):
        limits = yaml.safe_load(path.read_text()).get("recipe", {})
        allowed = {"crop": "none", "flip": 0.0, "eval_crop": 1.0, "trivial_augment": False}
        assert limits.items() <= allowed.items(), path.name


def test_overlay_headers_state_what_they_cost() -> None:
    for path in (CONF / "overlay").glob("*.yaml"):
        lines = path.read_text().splitlines()
        assert lines[0] == "# @package _global_"
        for line, start in zip(lines[1:5], ("Command:", "Hardware:", "Wall time:", "Expected top-1:"), strict=True):
            assert line.startswith(f"# {start}"), path.name
        assert any("Switched off" in line for line in lines), path.name


SETS = [
    (("+step=separate_downsampling", "drop=[kernel_7]"), None, "separate_downsampling-kernel_7"),
    (("+step=enhanced_recipe", "add=[gelu,layer_norm]"), None, "resnet50+gelu+layer_norm"),
    (("+step=kernel_7", "add=[kernel_9]"), "kernel_9", "kernel_9"),
    (("+step=gelu", "drop=[gelu]"), "kernel_7", "kernel_7"),
    (("+step=kernel_7", "recipe=original"), None, "kernel_7+original"),
    (("+step=resnet50", "recipe=enhanced"), "enhanced_recipe", "enhanced_recipe"),
    (("recipe=original",), "resnet50", "resnet50"),
    (("+step=kernel_7", "design.kernel_size=33"), None, "move_up_depthwise+kernel_size_33"),
    (("+step=kernel_7", "design.kernel_size=13"), "large_kernels.kernel_13", "large_kernels.kernel_13"),
    (("+step=kernel_7", "recipe.without=[label_smoothing]"), None, "kernel_7-label_smoothing"),
    # flags that spell a change are that change, and what the recipe or the data may choose makes no step
    (("+step=move_up_depthwise", "design.kernel_size=7"), "kernel_7", "kernel_7"),
    (("+step=kernel_7", "design.act=gelu"), "gelu", "gelu"),
    (("+step=kernel_7", "design.kernel_size=3"), "move_up_depthwise", "move_up_depthwise"),
    (("+step=kernel_7", "design.layer_scale=null"), "kernel_7", "kernel_7"),
    (("+step=kernel_7", "data.stem_stride=2", "recipe.init=kaiming"), "kernel_7", "kernel_7"),
    (("+step=kernel_7", "match_gmacs=4.5"), None, None),
]


@pytest.mark.parametrize("overrides, step, label", SETS)
def test_step_and_label(overrides: tuple[str, ...], step: str | None, label: str | None) -> None:
    composed = settings(*overrides)
    assert composed.step == step
    assert label is None or composed.label == label


def test_match_gmacs_is_resolved_into_the_design() -> None:
    from roadmap import complexity_of

    composed = settings("+step=depthwise", "match_gmacs=4.5")
    assert complexity_of(composed.design, image_size=224, num_classes=1000).gmacs == pytest.approx(4.5, rel=0.02)
    assert composed.step is None
    assert "match_gmacs" not in str(Identity.of(composed).asked)


# --- batch and learning rate


@pytest.mark.parametrize("size, rate", [(4096, 4e-3), (256, 2.5e-4), (8192, 8e-3)])
def test_linear_learning_rate(size: int, rate: float) -> None:
    assert settings("budget=paper", f"batch.size={size}").lr == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("size", [128, 8320, 16384])
def test_learning_rate_is_not_scaled_outside(size: int) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.lr must be set .*256-8192"):
        settings("budget=paper", f"batch.size={size}")
    assert settings("budget=paper", f"batch.size={size}", "recipe.lr=1e-3").lr == 1e-3


@pytest.mark.parametrize("reference", [128, 16384])
def test_a_rate_for_a_batch_outside_is_not_scaled_either(reference: int) -> None:
    with pytest.raises(ConfigError, match=rf"recipe\.lr must be set .*lr_batch={reference}"):
        settings("budget=paper", "batch.size=512", f"recipe.lr_batch={reference}")
    assert settings("budget=paper", f"batch.size={reference}", f"recipe.lr_batch={reference}").lr == 4e-3


def test_an_overlay_brings_its_own_rate() -> None:
    demo = settings()
    assert demo.batch.size < 256
    assert demo.lr == demo.recipe.base_lr


@pytest.mark.parametrize(
    "size, micro, ranks, nearest", [(100, 64, 1, "64 or 128"), (32, 64, 1, "64"), (384, 128, 2, "256 or 512")]
)
def test_batches_that_do_not_divide(size: int, micro: int, ranks: int, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"batch\.size={size} .*use {nearest}$"):
        Batch(size, micro).accumulation(ranks)


def test_accumulation() -> None:
    assert Batch(4096, 128).accumulation(8) == 4


# --- techniques by name


TYPED = {  # those that no recipe file of ours switches on
    "ema": ("recipe.ema=0.99",),
    "clip_grad": ("recipe.clip_grad=1",),
    "bce": ("recipe.loss=bce",),
    "auto_augment": ("recipe.auto_augment=original",),
    "trivial_augment": ("recipe.trivial_augment=true",),
    "repeats": ("recipe.repeats=4",),
    "fixres": ("recipe.train_scale=0.8",),
    "dropout": ("recipe.dropout=0.2",),
}


@pytest.mark.parametrize("name", TECHNIQUES)
def test_each_technique_can_be_taken_away(name: str) -> None:
    on = TYPED.get(name, ())
    common = ("budget=paper", "data=imagenet", "recipe=enhanced")
    if on:  # a technique that was typed cannot be taken away by name as well
        with pytest.raises(ConfigError, match=f"recipe.without={name} contradicts"):
            settings(*common, *on, f"recipe.without=[{name}]")
        return
    full, less = settings(*common), settings(*common, f"recipe.without=[{name}]")
    assert set(active(full.recipe)) - set(active(less.recipe)) == {name}
    assert less.recipe.without == (name,)
    assert less.step is None
    assert run_id(less) != run_id(full)
    changed = {key for key, value in dataclasses.asdict(less.recipe).items() if value != getattr(full.recipe, key)}
    assert changed == {"without", *TECHNIQUES[name]}


def test_without_is_a_set() -> None:
    one, other = (
        settings("budget=paper", "data=imagenet", f"recipe.without=[{names}]")
        for names in ("mixup,cutmix", "cutmix,mixup")
    )
    assert one.recipe.without == other.recipe.without == ("mixup", "cutmix")
    assert run_id(one) == run_id(other)


def test_off_values_are_off() -> None:
    recipe = settings("budget=paper", "data=imagenet").recipe
    for name, off in TECHNIQUES.items():
        assert not is_on(dataclasses.replace(recipe, **off), name)


# --- identity


def test_run_id_covers_what_changes_the_result_and_nothing_else() -> None:
    base = settings("+step=kernel_7")
    same = (
        "runs_dir=elsewhere",
        "threads=1",
        "workers=0",
        "deterministic=true",
        "compile=blocks",
        "data.root=/data",
        "checkpoint.every_steps=7",
        "logger=wandb",
        "rerun=true",
        "grad_checkpointing=true",
        "data.damaged_share=0.5",
    )
    for override in same:
        assert run_id(settings("+step=kernel_7", override)) == run_id(base), override
    others = (
        "seed=1",
        "image_size=64",
        "precision=bf16",
        "recipe.epochs=3",
        "batch.micro=32",
        "regime=micro",
        "add=[gelu]",
        "recipe.mixup=0.1",
        "recipe.optimizer=lamb",
        "recipe.loss=bce",
        "recipe.optimizer=lion",
        "recipe.opt={eps:1e-6}",
        "recipe.opt={amsgrad:true}",
        "recipe.auto_augment=v0",
        "recipe.auto_augment=v0-mstd0.5",
        "recipe.trivial_augment=true",
        "recipe.repeats=4",
        "recipe.train_scale=0.75",
        "data.eval_images=100",
        "data.holdout=0.1",
        "recipe.lr=1e-3",
        "data.stem_stride=2",
        "data=synthetic",
    )
    ids = [run_id(settings("+step=kernel_7", override)) for override in others]
    assert len({run_id(base), *ids}) == len(others) + 1


def test_config_id_is_shared_by_seeds_only() -> None:
    zero, one, other = settings("seed=0"), settings("seed=1"), settings("seed=1", "recipe.epochs=3")
    shared = [Identity.of(item).config_id for item in (zero, one, other)]
    assert shared[0] == shared[1] != shared[2]
    assert len({run_id(item) for item in (zero, one, other)}) == 3


@dataclasses.dataclass(frozen=True)
class Section:
    """A section with a field that is younger than recorded runs, and one that was made stronger since."""

    old: int = 1
    young: float = later(0.5, before=0.0)
    flag: str = _flag("relu", YES_OR_NO, before="relu")  # as the design's are written


def test_a_later_field_stays_out_of_the_identity_while_it_asks_for_what_was_computed_before() -> None:
    assert _values(Section(young=0.0)) == {"old": 1}
    assert _values(Section(flag="gelu")) == {"old": 1, "young": 0.5, "flag": "gelu"}


def test_equal_results_have_equal_ids_however_they_are_asked_for() -> None:
    assert run_id(settings("+step=kernel_7", f"recipe.lr={OVERLAY['recipe']['base_lr']}")) == run_id(
        settings("+step=kernel_7")
    )
    assert run_id(settings("+step=kernel_7", "design.drop_path=0.2")) == run_id(
        settings("+step=kernel_7", "recipe.drop_path=0.2")
    )
    assert run_id(settings("+step=move_up_depthwise", "add=[kernel_7]")) == run_id(settings("+step=kernel_7"))


def test_the_datas_checksum_is_part_of_the_identity() -> None:
    base = settings()
    opened = base.replace(data=dataclasses.replace(base.data, checksum="0" * 64))
    assert run_id(opened) != run_id(base)
