"""What changes do to the training: precedence, the size of a budget, changes that do nothing, techniques in `drop`."""

from pathlib import Path

import pytest

from experiments.config.compose import settings_from
from experiments.config.identity import run_id
from experiments.config.schema import compose
from experiments.config.settings import Settings
from experiments.errors import ConfigError
from experiments.store.run_dir import RunDir
from roadmap import ROADMAPS
from roadmap.errors import UserError

PAPER = ("budget=paper", "data=imagenet")
MICRO = ("regime=micro",)


def settings(*typed: str) -> Settings:
    overrides = [*typed, "device=cpu"]
    return settings_from(compose(overrides), overrides)


def test_the_published_recipe_at_the_end_of_torchvisions_ladder() -> None:
    run = settings("+step=repeated_augmentation", "roadmap=torchvision", *PAPER)
    recipe = run.recipe
    assert (run.batch.size, run.lr, recipe.epochs, recipe.warmup_epochs) == (1024, 0.5, 600, 5)
    assert (recipe.optimizer, recipe.schedule, recipe.weight_decay, recipe.decay_all) == ("sgd", "cosine", 2e-5, False)
    assert (recipe.mixup, recipe.cutmix, recipe.label_smoothing, recipe.erasing) == (0.2, 1.0, 0.1, 0.1)
    assert (recipe.trivial_augment, recipe.repeats, recipe.ema_every, run.train_side) == (True, 4, 32, 176)
    assert round(run.image_size / recipe.eval_crop) == 232
    # its script: 1 - (1 - 0.99998) * batch * interval / epochs
    assert recipe.ema == pytest.approx(1 - 2e-5 * 1024 * 32 / 600, abs=1e-5)


def test_the_published_start_and_end_of_bag_of_tricks() -> None:
    start = settings("roadmap=bag_of_tricks", *PAPER)
    assert start.step == "bag_of_tricks.bag_of_tricks_baseline"
    assert (start.recipe.epochs, start.lr, start.batch.size, start.design.init) == (120, 0.4, 1024, "zero_gamma")
    assert start.design.early_stride and not start.recipe.decay_all
    end = settings("+step=mixup_epochs_200", "roadmap=bag_of_tricks", *PAPER)
    assert (end.recipe.epochs, end.recipe.mixup, end.design.stem) == (200, 0.2, "deep")
    assert end.design.pooled_shortcut and not end.design.early_stride


def test_a_budget_shrinks_epochs_and_rate_as_it_does_the_recipes() -> None:
    bare, changed = settings("+step=resnet50"), settings("+step=epochs_600", "roadmap=torchvision")
    assert changed.recipe.epochs == round(bare.recipe.epochs * 600 / 90)
    assert changed.recipe.warmup_epochs == pytest.approx(5 * bare.recipe.epochs / 90)
    assert changed.lr / bare.lr == pytest.approx((0.5 / 1024) / (0.1 / 256))
    assert changed.batch == bare.batch  # the budget's, not 1024


def test_an_overlay_may_say_what_stands_in_for_a_value() -> None:
    assert settings("+step=ema_every_32", "roadmap=torchvision").recipe.ema_every == 1
    assert settings("+step=ema", "roadmap=resnet_rs", *PAPER).recipe.ema == 0.9999


@pytest.mark.parametrize("typed, value", [((), 0.1), (("recipe.label_smoothing=0.3",), 0.3)])
def test_the_command_line_wins_over_a_change(typed: tuple[str, ...], value: float) -> None:
    run = settings("+step=label_smoothing", "roadmap=resnet_rs", *MICRO, *typed)
    assert run.recipe.label_smoothing == value
    assert run.idle == (("label_smoothing",) if typed else ())


def test_data_win_over_a_change_which_then_does_nothing() -> None:
    before, here = (settings(f"+step={step}", "roadmap=torchvision") for step in ("ema_every_32", "inference_resize"))
    assert run_id(before) == run_id(here)  # digits are evaluated whole
    assert here.step == before.step == "torchvision.ema_every_32"
    assert set(here.idle) == {"inference_resize", "trivial_augment", "fixres"}
    elsewhere = settings("+step=inference_resize", "roadmap=torchvision", *PAPER)
    assert elsewhere.step == "torchvision.inference_resize"
    assert elsewhere.idle == ()


def test_a_budget_without_random_crops_leaves_fixres_nothing_to_do() -> None:
    fixres, before = (settings(f"+step={step}", "roadmap=torchvision") for step in ("fixres", "weight_decay_tuning"))
    assert run_id(fixres) == run_id(before)
    assert fixres.train_side == fixres.image_size
    assert "fixres" not in settings("+step=fixres", "roadmap=torchvision", *PAPER).idle


def test_what_the_changes_replaced_is_kept() -> None:
    run = settings("+step=label_smoothing", "roadmap=bag_of_tricks", *PAPER)
    assert run.replaced == {
        "recipe.epochs": 90,
        "recipe.warmup_epochs": 0,
        "recipe.decay_all": True,
        "recipe.init": "kaiming",
        "recipe.schedule": "steps",
        "recipe.min_lr": 1e-6,
        "recipe.label_smoothing": 0.0,
        "batch.size": 256,
        "batch.micro": 32,
    }
    assert settings("+step=kernel_7").replaced is None
    assert (
        Settings.from_dict(
            {**vars(run), "design": vars(run.design), "recipe": vars(run.recipe)}
            | {name: vars(getattr(run, name)) for name in ("budget", "batch", "data", "checkpoint", "logger")}
        )
        == run
    )


def test_changes_of_all_roadmaps_go_together() -> None:
    run = settings("+step=separate_downsampling", "add=[squeeze_excite,grn,ema]", *PAPER)
    assert run.step is None
    assert run.label == "separate_downsampling+grn+ema+squeeze_excite"
    assert run.recipe.ema == 0.9999
    assert run.design.grn
    assert run.design.squeeze_excite == 0.25
    torchvision = ",".join(ROADMAPS["torchvision"].players)
    mixed = settings("+step=separate_downsampling", "recipe=original", f"add=[{torchvision}]", *PAPER)
    assert (mixed.design.kernel_size, mixed.recipe.epochs, mixed.recipe.optimizer) == (7, 600, "sgd")


def test_every_spelling_of_a_set_is_one_run() -> None:
    step = settings("+step=epochs_350", "roadmap=resnet_rs")
    added = settings("+step=resnet50", "add=[epochs_350,cosine]")
    assert run_id(step) == run_id(added)
    assert step.label == added.label == "resnet_rs.epochs_350"


def test_a_set_that_comes_to_the_same_is_the_same_run() -> None:
    root = ("roadmap=bag_of_tricks", "+step=resnet_b")
    both, one = settings(*root, "add=[resnet_c,resnet_d]"), settings(*root, "add=[resnet_d]")
    assert run_id(both) == run_id(one) == run_id(settings("roadmap=bag_of_tricks", "+step=resnet_d"))
    assert both.label == one.label == "bag_of_tricks.resnet_d"
    assert both.changes == one.changes


def test_a_run_is_found_under_whatever_name_it_was_started(tmp_path: Path) -> None:
    where = f"runs_dir={tmp_path}"
    typed = settings("+step=resnet50", "recipe.label_smoothing=0.1", where)
    named = settings("+step=resnet50", "add=[label_smoothing]", where)
    assert run_id(typed) == run_id(named)
    assert typed.label != named.label
    RunDir.locate(typed).path.mkdir()
    assert RunDir.locate(named).path == RunDir.locate(typed).path
    other_seed = named.replace(seed=1)
    assert RunDir.locate(other_seed).path.name.startswith(named.label)


def test_drop_names_techniques_of_the_recipe_too() -> None:
    dropped = settings("+step=gelu", "drop=[mixup,kernel_7]", *PAPER)
    without = settings("+step=gelu", "drop=[kernel_7]", "recipe.without=[mixup]", *PAPER)
    assert run_id(dropped) == run_id(without)
    assert dropped.recipe.without == ("mixup",)
    change = settings("+step=cutmix", "roadmap=torchvision", "drop=[mixup]", *PAPER)  # a change of the set: it goes
    assert "mixup" not in change.changes
    assert change.recipe.without == ()


REFUSED = {
    ("+step=separate_downsampling", "add=[label_smoothing]"): "add=[label_smoothing] changes nothing here: recipe=enh",
    (
        "+step=separate_downsampling",
        "add=[resnet_b]",
    ): "add=[resnet_b] changes nothing here: separate_downsampling has it",
    ("+step=gelu", "drop=[cutmix]"): "recipe.without=cutmix: it is already off",
    ("+step=squeeze_excite",): "step=squeeze_excite is no step of roadmap=convnext; it is one of roadmap=resnet_rs",
    ("roadmap.title=Mine",): "roadmap.title is fixed by roadmap=convnext",
    (
        "roadmap.name=torchvision",
    ): "roadmap.name cannot be set; choose one of the files in conf/roadmap with roadmap=NAME",
    ("+step=ema", "roadmap=resnet_rs", "changes.ema.recipe.ema=0.5"): "changes.ema is set by the step",
}


@pytest.mark.parametrize("typed, message", REFUSED.items())
def test_refused(typed: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as found:
        settings(*typed)
    assert str(found.value).startswith(message)


def test_a_step_may_not_set_a_key_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from roadmap.changes import FILES

    monkeypatch.setitem(vars(FILES["cosine"]), "raw", {"recipe": {"shedule": "cosine"}})
    with pytest.raises(ConfigError, match=r"step cosine: recipe\.shedule is not a key that a change may set"):
        settings("+step=label_smoothing", "roadmap=bag_of_tricks")
