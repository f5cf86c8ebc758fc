"""Runs that start from weights: from runs, files and other libraries, with other classes, layer decay, frozen parts."""

import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from experiments.config.compose import settings_from
from experiments.config.identity import run_id
from experiments.config.schema import compose
from experiments.errors import ConfigError, InterruptedRun
from experiments.training import run as engine
from experiments.training.optim import build_optimizer, set_learning_rate
from experiments.training.start import freeze, start_from_weights, weights_hash, with_weights
from roadmap import UserError, WeightsError, build
from tests.experiments.training.runs import BN, LN, SMALL, fingerprint, only_run, result, settings_of, stopping

pytestmark = pytest.mark.numeric
FINE = ("recipe.epochs=2", "data.classes=10")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished run over ten classes."""
    folder = tmp_path_factory.mktemp("trained")
    engine.run(settings_of(folder, "recipe.epochs=1", "recipe.ema=0.9", step=BN))
    return only_run(folder)


def from_weights(runs_dir: Path, source: object, *overrides: str):
    """A run without a step: of the network that the weights are of."""
    typed = [*SMALL, *overrides, f"init_from={source}", f"runs_dir={runs_dir}"]
    typed = list({item.split("=", 1)[0]: item for item in typed}.values())
    return settings_from(compose(typed), typed)


def test_the_network_is_that_of_the_weights(trained, tmp_path) -> None:
    settings = from_weights(tmp_path, trained, "recipe=finetune", "recipe.lr=1e-3", "recipe.warmup_epochs=0")
    assert (settings.regime, settings.label) == ("micro", "kernel_7+finetune")
    assert settings.design == settings_of(tmp_path, step=BN).design
    assert from_weights(tmp_path, trained, "design.drop_path=0.3").design.drop_path == 0.3
    with pytest.raises(ConfigError, match=r"is a network of regime=micro: add regime=micro"):
        from_weights(tmp_path, trained, "regime=base")
    with pytest.raises(ConfigError, match=r"nothing says which network it is; add it, e.g. \+step=resnet50"):
        from_weights(tmp_path, "timm:resnet50.tv_in1k")


def test_training_starts_from_the_weights(trained, tmp_path) -> None:
    settings = with_weights(from_weights(tmp_path, trained))
    model = build(settings.design, num_classes=10)
    start_from_weights(model, settings)
    torch.testing.assert_close(model.state_dict(), load_file(trained / "last.safetensors"))
    torch.manual_seed(1)
    other = build(settings.design, num_classes=5)
    fresh = other.head.fc.weight.clone()
    start_from_weights(other, settings)
    torch.testing.assert_close(other.head.fc.weight, fresh)
    torch.testing.assert_close(other.stem.conv.weight, model.stem.conv.weight)


def test_the_weights_are_part_of_a_runs_identity(trained, tmp_path) -> None:
    plain = settings_of(tmp_path, step=BN)
    started = with_weights(from_weights(tmp_path, trained))
    shutil.copytree(trained, tmp_path / "copy")
    assert run_id(with_weights(from_weights(tmp_path, tmp_path / "copy"))) == run_id(started)  # content, not place
    weights = load_file(trained / "last.safetensors")
    weights["stem.conv.weight"] += 1
    save_file(weights, tmp_path / "copy" / "last.safetensors")
    for sealed in ("model.safetensors", "result.json"):
        (tmp_path / "copy" / sealed).unlink()
    forget_weights()
    changed = with_weights(from_weights(tmp_path, tmp_path / "copy"))
    assert len({run_id(plain), run_id(started), run_id(changed)}) == 3
    with pytest.raises(ConfigError, match="has changed since the study was planned"):
        with_weights(changed.replace(init_weights=started.init_weights))


def forget_weights() -> None:
    """Within one process weights are read once."""
    from experiments.training import start

    start._weights.cache_clear()


def test_a_run_from_weights_is_stopped_and_ends_with_the_same_bytes(trained, tmp_path, monkeypatch) -> None:
    asked = (trained, "recipe.layer_decay=0.5", "recipe.freeze=[stem,stages.0]", "recipe.ema=0.9")
    engine.run(from_weights(tmp_path / "whole", *asked))
    with stopping(monkeypatch, 3), pytest.raises(InterruptedRun):
        engine.run(from_weights(tmp_path / "stopped", *asked))
    record = engine.run(from_weights(tmp_path / "stopped", *asked))
    whole, stopped = only_run(tmp_path / "whole"), only_run(tmp_path / "stopped")
    assert fingerprint(whole) == fingerprint(stopped)
    assert record["init_from"] == result(whole)["init_from"] == weights_hash(str(trained))
    assert str(tmp_path) not in (whole / "config.yaml").read_text() + (whole / "result.json").read_text()
    before, after = load_file(trained / "last.safetensors"), load_file(whole / "last.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in moved if name.startswith(("stem.", "stages.0."))]  # averages of BN stay, too
    assert {"stages.1.blocks.0.spatial.conv.weight", "head.fc.weight"} <= moved


@pytest.mark.parametrize("name, step", [("resnet50", "resnet50"), ("convnext_tiny", LN)])
def test_from_another_librarys_weights_of_a_thousand_classes(name, step, tmp_path) -> None:
    theirs = timm.create_model(name)
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    recipe = [] if step == LN else ["recipe.layer_scale=null"]
    settings = settings_of(tmp_path, f"init_from={tmp_path / 'theirs.safetensors'}", "regime=tiny", *recipe, step=step)
    ours = build(settings.design, num_classes=10)
    start_from_weights(ours, settings)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        features = theirs.eval().forward_head(theirs.forward_features(x), pre_logits=True)
        torch.testing.assert_close(ours.eval().forward_head(ours.forward_features(x), pre_logits=True), features)


def test_weights_that_do_not_fit_are_refused_before_training(trained, tmp_path) -> None:
    with pytest.raises(WeightsError, match=r"must be built with layer_scale="):
        engine.run(settings_of(tmp_path, f"init_from={trained}", "recipe.layer_scale=null", step=BN))
    with pytest.raises(UserError, match="of another network"):
        engine.run(settings_of(tmp_path, f"init_from={trained}", "design.width=16", step=BN))
    with pytest.raises(WeightsError, match="does not exist"):
        engine.run(settings_of(tmp_path, "init_from=nowhere", step=BN))


def test_each_layer_has_its_share_of_the_rate(tmp_path) -> None:
    settings = settings_of(tmp_path, "recipe.layer_decay=0.5", step=LN)
    model = build(settings.design, num_classes=10)
    optimizer = build_optimizer(model, settings.recipe, settings.lr)
    set_learning_rate(optimizer, 1.0)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    found = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    depth = sum(settings.design.depths) + 1
    assert found["head.fc.weight"] == found["head.norm.bias"] == 1
    assert found["stages.3.blocks.0.gamma"] == found["stages.3.downsample.conv.weight"] == 0.5
    assert found["stem.conv.weight"] == 0.5**depth
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays[id(model.stem.conv.weight)] == 0.05 and decays[id(model.stem.conv.bias)] == 0


def test_names_that_are_no_parts(tmp_path) -> None:
    model = build("kernel_7", regime="micro")
    with pytest.raises(ConfigError, match=r"recipe.freeze='neck' is no part of the network; there are: stem, stages"):
        freeze(model, ["neck"])
    with pytest.raises(ConfigError, match=r"recipe.freeze=\[stem,stages,head\] leaves nothing to train"):
        freeze(model, ["stem", "stages", "head"])
