"""Results of today equal those of RESULTS_VERSION, and those of a loop in plain torch and timm's parts."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.data import Mixup
from timm.loss import BinaryCrossEntropy
from timm.optim import Lamb, NAdamW, param_groups_weight_decay
from timm.utils import ModelEmaV3, accuracy
from torch import nn
from torch.nn.functional import cross_entropy

from experiments.config.identity import RESULTS_VERSION
from experiments.config.settings import Settings
from experiments.config.techniques import TECHNIQUES, is_on
from experiments.data import DataSource, open_data, source
from experiments.randomness import derive
from experiments.training import job, loop, mixing, optim
from experiments.training.ema import Ema
from tests.experiments.training.golden import RUNS, agrees, build_in_fp64, measure, norm, read_golden
from tests.experiments.training.runs import settings_of

pytestmark = pytest.mark.numeric
GOLDEN = read_golden()


@pytest.mark.parametrize("name", RUNS)
def test_golden_runs(name: str) -> None:
    """Other numbers are other results: raise RESULTS_VERSION, then `python -m tests.experiments.training.golden`."""
    assert GOLDEN["results_version"] == RESULTS_VERSION, f"measure the numbers of version {RESULTS_VERSION} anew"
    measured = measure(*RUNS[name])
    assert agrees(measured, GOLDEN["runs"][name]), measured


# ---- the same runs without the engine


@pytest.mark.parametrize("name", RUNS)
def test_a_plain_loop_computes_the_golden_runs(name: str, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, *RUNS[name])
    measured = list(_plain_loop(settings, open_data(settings, device=torch.device("cpu"))))
    assert agrees(measured, GOLDEN["runs"][name]), measured


def _plain_loop(settings: Settings, data: DataSource) -> Iterator[dict[str, float]]:
    """What `measure` returns, by timm's and torch's own parts; in common are the images, the network and the keys."""
    recipe, seed, micro = settings.recipe, settings.seed, settings.batch.micro
    per_epoch, parts = data.train_size // settings.batch.size, settings.batch.size // micro
    torch.manual_seed(derive("init", seed))
    model = build_in_fp64(settings.design, num_classes=data.num_classes, in_chans=data.in_chans)
    average = ModelEmaV3(model, decay=recipe.ema) if recipe.ema else None
    optimizer = _optimizer(model, settings)
    ways = {"target_threshold": recipe.bce_target_thresh, "sum_classes": recipe.bce_sum}
    loss_of = BinaryCrossEntropy(recipe.label_smoothing, **ways) if recipe.loss == "bce" else cross_entropy
    mixup = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=data.num_classes)
    for epoch in range(recipe.epochs):
        losses = []
        for batch in data.train(epoch, range(per_epoch), range(parts)):
            step, images, labels = epoch * per_epoch + batch.step, batch.images, batch.labels
            if recipe.mixup:
                np.random.seed(derive("mixup", seed, step, batch.index) % 2**32)
                images, labels = mixup(images, labels)
                labels = labels.double()
            torch.manual_seed(derive("noise", seed, step, batch.index))
            loss = loss_of(model.train()(images), labels)
            (loss / parts).backward()
            losses.append(loss.item())
            if batch.index < parts - 1:
                continue
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[-1]["lr"] = _rate(settings, step, per_epoch)
            if recipe.clip_grad:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
            optimizer.step()
            optimizer.zero_grad()
            if average and (step + 1) % recipe.ema_every == 0:
                average.update(model)
        yield {
            "epoch": epoch + 1,
            "step": step + 1,
            "lr": _rate(settings, step, per_epoch),
            "train_loss": sum(losses) / len(losses),
            **_score(model, data),
            **({"top1_ema": _score(average.module, data)["top1"]} if average else {}),
        }
    averaged = average.module.state_dict() if average else {}
    yield {"weights": norm(model.state_dict()), "average": norm(averaged)}


def _optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    recipe = settings.recipe
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), 1.0, recipe.momentum, weight_decay=recipe.weight_decay)
    groups = param_groups_weight_decay(model, recipe.weight_decay)
    if recipe.optimizer == "lamb":
        return Lamb(groups, betas=recipe.betas, max_grad_norm=None)
    if recipe.optimizer == "nadamw":
        return NAdamW(groups, betas=recipe.betas, **recipe.opt)
    return torch.optim.AdamW(groups, betas=recipe.betas)


def _rate(settings: Settings, step: int, per_epoch: int) -> float:
    recipe, peak, warmup = settings.recipe, settings.lr, settings.recipe.warmup_epochs * per_epoch
    if step < warmup:
        return peak * step / warmup
    if recipe.schedule == "steps":
        return peak * recipe.decay_factor ** (step // (recipe.decay_every * per_epoch))
    done = (step - warmup) / (recipe.epochs * per_epoch - warmup)
    return recipe.min_lr + (peak - recipe.min_lr) * (1 + math.cos(math.pi * done)) / 2


@torch.no_grad()
def _score(model: nn.Module, data: DataSource) -> dict[str, float]:
    found = [(model.eval()(images), labels) for images, labels in data.evaluate()]
    logits, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    top1, top5 = (float(share) for share in accuracy(logits.double(), labels, topk=(1, 5)))
    return {"loss": cross_entropy(logits, labels).item(), "top1": top1, "top5": top5}


# ---- a wrong engine is noticed


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_technique_that_is_ignored_shows(technique: str, tmp_path: Path) -> None:
    run = next(name for name in RUNS if is_on(settings_of(tmp_path, *RUNS[name]).recipe, technique))
    off = [f"recipe.{key}={'null' if value is None else value}" for key, value in TECHNIQUES[technique].items()]
    assert not agrees(measure(*RUNS[run], *off), GOLDEN["runs"][run])


@pytest.mark.parametrize(
    "name, value",
    [
        ("enhanced", "recipe.betas=[0.9,0.99]"),
        ("enhanced", "recipe.eval_crop=1"),
        ("enhanced", "batch.micro=4"),
        ("original", "batch.micro=4"),
        ("original", "recipe.momentum=0.8"),
        ("original", "recipe.decay_factor=0.2"),
        ("later", "recipe.optimizer=adamw"),
        ("later", "recipe.betas=[0.9,0.99]"),
        ("adapted", "recipe.optimizer=adamw"),
        ("adapted", "recipe.opt={eps:1e-8}"),
        ("adapted", "recipe.auto_augment=original"),
        ("adapted", "recipe.bce_sum=false"),
        ("adapted", "recipe.bce_target_thresh=null"),
        ("later", "recipe.repeats=4"),
        ("later", "recipe.ema_every=4"),
    ],
)
def test_another_value_shows(name: str, value: str) -> None:
    assert not agrees(measure(*RUNS[name], value), GOLDEN["runs"][name])


def _key_of_another_seed(module: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(module, "derive", lambda *parts: derive("other", *parts))


def _other_groups(patch: pytest.MonkeyPatch) -> None:
    groups = optim.parameter_groups
    patch.setattr(optim, "parameter_groups", lambda m, r: groups(m, dataclasses.replace(r, decay_all=not r.decay_all)))


def _rate_of_the_next_step(patch: pytest.MonkeyPatch) -> None:
    rate = job.learning_rate
    patch.setattr(job, "learning_rate", lambda recipe, peak, step, steps: rate(recipe, peak, step + 1, steps))


def _average_the_other_way_round(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(job, "Ema", lambda model, decay: Ema(model, 1 - decay))


WRONG: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "decay on the other parameters": ("enhanced", _other_groups),
    "decay off some parameters": ("original", _other_groups),
    "warm-up one step early": ("enhanced", _rate_of_the_next_step),
    "drops one step early": ("original", _rate_of_the_next_step),
    "average the other way round": ("enhanced", _average_the_other_way_round),
    "other mixup": ("enhanced", _key_of_another_seed(mixing)),
    "other noise": ("enhanced", _key_of_another_seed(loop)),
    "other initial weights": ("original", _key_of_another_seed(job)),
    "other order of images": ("original", _key_of_another_seed(source)),
}


@pytest.mark.parametrize("name, wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_engine_shows(name: str, wrong: Callable[[pytest.MonkeyPatch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        wrong(patch)
        assert not agrees(measure(*RUNS[name]), GOLDEN["runs"][name])
