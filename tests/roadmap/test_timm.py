"""The steps as timm models: creation, features, classifier, stochastic depth."""

import pytest
import timm
import torch
import yaml

import roadmap.timm_models  # noqa: F401  (registers the models)
from experiments.config.settings import Recipe
from roadmap import STEPS, design_for
from roadmap.files import CONF
from roadmap.regimes import REGIMES

pytestmark = pytest.mark.numeric

STEP_NAMES = [step.name for step in STEPS]


def test_every_step_in_every_regime_is_listed() -> None:
    names = set(timm.list_models("roadmap_*"))
    assert {f"roadmap_{regime}_{name}" for regime in REGIMES for name in STEP_NAMES} <= names
    assert {"roadmap_base_resnet_rs_resnet_d", "roadmap_tiny_convnext_v2_grn"} <= names
    assert not [name for name in names if name.endswith("torchvision_mixup")]  # it changes no network


@pytest.mark.parametrize("name", STEP_NAMES)
def test_created_by_name(name) -> None:
    model = timm.create_model(f"roadmap_micro_{name}", num_classes=5, in_chans=1).eval()
    assert model.design == design_for(name, "micro")
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 5)
    assert model.default_cfg["classifier"] == "head.fc"
    assert isinstance(model.get_submodule(model.default_cfg["classifier"]), torch.nn.Linear)
    assert isinstance(model.get_submodule(model.default_cfg["first_conv"]), torch.nn.Conv2d)
    model.reset_classifier(3)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 3)
    assert model.get_classifier().out_features == 3


@pytest.mark.parametrize("name", STEP_NAMES)
def test_features_of_each_stage(name) -> None:
    x = torch.randn(1, 3, 64, 96)
    model = timm.create_model(f"roadmap_micro_{name}").eval()
    backbone = timm.create_model(f"roadmap_micro_{name}", features_only=True).eval()
    backbone.load_state_dict(without_head(model), strict=True)
    with torch.no_grad():
        features = backbone(x)
        last = model.forward_features(x)
    reductions, channels = backbone.feature_info.reduction(), backbone.feature_info.channels()
    assert reductions == [4, 8, 16, 32]
    assert [tuple(f.shape) for f in features] == [
        (1, c, 64 // r, 96 // r) for c, r in zip(channels, reductions, strict=True)
    ]
    torch.testing.assert_close(features[-1], last)


def without_head(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights under the names of timm's flattened feature network: stages.0 -> stages_0."""
    return {
        key.replace("stages.", "stages_", 1): value
        for key, value in model.state_dict().items()
        if not key.startswith("head.")
    }


def test_the_default_preprocessing_is_that_of_the_runs() -> None:
    config = timm.get_pretrained_cfg("roadmap_tiny_kernel_7")
    recipe, imagenet = Recipe(), yaml.safe_load((CONF / "data" / "imagenet.yaml").read_text())["data"]
    assert (config.crop_pct, config.interpolation) == (recipe.eval_crop, recipe.interpolation)
    assert (list(config.mean), list(config.std)) == (imagenet["mean"], imagenet["std"])
    assert (config.input_size[1], config.num_classes) == (imagenet["image_size"], imagenet["classes"])


@pytest.mark.parametrize("flags", [{"depths": (2,), "stem_stride": 16}, {"depths": (1, 1, 1, 1, 1)}])
@pytest.mark.parametrize("name", ["resnet50", "separate_downsampling"])
def test_features_of_any_number_of_stages(name, flags) -> None:
    backbone = timm.create_model(f"roadmap_micro_{name}", features_only=True, **flags)
    stride = flags.get("stem_stride", 4)
    reductions = [stride * 2**stage for stage in range(len(flags["depths"]))]
    assert backbone.feature_info.reduction() == reductions
    assert [feature.shape[-1] for feature in backbone(torch.randn(2, 3, 64, 64))] == [64 // r for r in reductions]


@pytest.mark.parametrize("flags", [{"stem": "deep_conv", "early_stride": True, "squeeze_excite": 0.5}, {"grn": True}])
def test_features_with_flags_of_other_ladders(flags) -> None:
    model = timm.create_model("roadmap_micro_resnet50", **flags).eval()
    backbone = timm.create_model("roadmap_micro_resnet50", features_only=True, **flags).eval()
    backbone.load_state_dict(without_head(model), strict=True)
    x = torch.randn(1, 3, 50, 34)
    torch.testing.assert_close(backbone(x)[-1], model.forward_features(x))


def test_some_features() -> None:
    backbone = timm.create_model("roadmap_micro_kernel_7", features_only=True, out_indices=(1, 3), stem_stride=2)
    assert [f.shape[-1] for f in backbone(torch.randn(2, 3, 64, 64))] == [16, 4]
    assert backbone.feature_info.reduction() == [4, 16]


def test_drop_path_rate_and_design_flags() -> None:
    model = timm.create_model("roadmap_tiny_kernel_7", drop_path_rate=0.3, kernel_size=9, depths=(1, 1, 1, 1), width=8)
    assert model.design == design_for("kernel_7", drop_path=0.3, kernel_size=9, depths=(1, 1, 1, 1), width=8)


def test_there_are_no_pretrained_weights() -> None:
    with pytest.raises(RuntimeError, match=r"[Nn]o pretrained weights"):
        timm.create_model("roadmap_micro_gelu", pretrained=True)


def test_without_a_classifier() -> None:
    model = timm.create_model("roadmap_micro_gelu", num_classes=0).eval()
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, model.num_features)
    assert model.head_hidden_size == model.num_features


def test_gradient_checkpointing_by_timms_name() -> None:
    model = timm.create_model("roadmap_micro_separate_downsampling")
    model.set_grad_checkpointing(True)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
