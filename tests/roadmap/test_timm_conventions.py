"""What timm's own tests ask of every network, asked of six of ours; `make timm-suite` runs those on all."""

import copy
import json
import math
import os
import subprocess
import sys
from typing import Any

import pytest
import timm
import torch
from timm.models import group_parameters
from timm.models._features import FeatureGetterNet
from timm.optim import param_groups_layer_decay
from torch import Tensor
from torchvision.models.feature_extraction import create_feature_extractor

import roadmap.timm_models  # noqa: F401  (registers the networks)
from roadmap import design_for

pytestmark = pytest.mark.numeric

ISOTROPIC = "roadmap_isotropic_separate_downsampling"
FLAGS: dict[str, dict[str, Any]] = {  # BatchNorm, both norms' ends, one stage, other roads
    "roadmap_micro_resnet50": {},
    "roadmap_micro_kernel_7": {"layer_scale": 0.5},
    "roadmap_micro_separate_downsampling": {"layer_scale": 0.5, "drop_path": 0.1},
    ISOTROPIC: {"depths": [2], "width": 16},
    "roadmap_micro_convnext_v2_grn": {},
    "roadmap_micro_resnet_rs_resnet_d": {"dropout": 0.2},
}
NAMES = list(FLAGS)
STAGED = [name for name in NAMES if name != ISOTROPIC]


def created(name: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, **FLAGS[name] | arguments)


def images(count: int = 2, size: tuple[int, int] = (64, 64)) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name) -> None:
    model = created(name, num_classes=42)
    outputs = model(images())
    outputs.mean().backward()
    assert outputs.shape == (2, 42) and outputs.isfinite().all()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", NAMES)
def test_config_map_and_head_agree_on_whatever_device_and_type(name) -> None:
    where = {"device": "meta", "dtype": torch.float64}
    model = created(name, **where).eval()
    config, x = model.default_cfg, torch.empty(2, 3, 224, 224, **where)
    assert {value.device.type for value in model.state_dict().values()} == {"meta"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert model.in_chans == config["input_size"][0]
    assert {f"{config[key]}.weight" for key in ("first_conv", "classifier")} <= model.state_dict().keys()
    features = model.forward_features(x)
    assert features.shape == (2, model.num_features, *config["pool_size"])
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    for altered in (model, created(name, num_classes=0, global_pool="", **where)):
        altered.reset_classifier(0, "avg")
        assert altered(x).shape == (2, model.num_features)
        altered.reset_classifier(0, "")
        assert altered(x).shape == features.shape
        altered.reset_classifier(3)
        assert altered(x).shape == (2, 3, *config["pool_size"])  # pooling stays as it is: off
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert not any(module.training for module in model.modules())


def test_without_pooling_the_classifier_works_at_each_location() -> None:
    model = created("roadmap_micro_kernel_7", num_classes=5).eval()
    pooled = model(images())
    model.head.set_pool("")
    torch.testing.assert_close(model(images()).mean((2, 3)), pooled)


def test_half_precision_stays_half_after_a_pass_in_full() -> None:
    for name in NAMES:
        model = created(name).eval()
        model(images())
        assert model.to(torch.bfloat16)(images().bfloat16()).dtype == torch.bfloat16, name


@pytest.mark.parametrize("name", NAMES)
def test_intermediates_are_the_stages_maps(name) -> None:
    model, x = created(name).eval(), images(2, (96, 64))
    last, maps = model.forward_intermediates(x)
    assert torch.equal(last, model.forward_features(x))
    assert [(*found.shape[1:],) for found in maps] == [
        (info["num_chs"], 96 // info["reduction"], 64 // info["reduction"]) for info in model.feature_info
    ]
    for index in range(len(maps)):
        for wanted in ([index], [index - len(maps)]):
            first, only = model.forward_intermediates(x, indices=wanted, stop_early=True)
            assert torch.equal(first, maps[index]) and torch.equal(only[0], maps[index])
    alone = model.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)
    assert len(alone) == 1 and torch.equal(alone[0], maps[-1])


@pytest.mark.parametrize("name", NAMES)
def test_what_is_cut_off_leaves_the_maps_and_nothing_unused(name) -> None:
    model, x = created(name).eval(), images()
    expected, maps = model(x), model.forward_intermediates(x, intermediates_only=True)
    for index in range(len(maps)):
        pruned = copy.deepcopy(model)
        assert pruned.prune_intermediate_layers([index - len(maps)]) == [index]
        assert len(pruned.stages) == index + 1
        assert torch.equal(pruned(x), maps[index])
        assert not any(module.training for module in pruned.modules())
        pruned.train()(x).sum().backward()
        assert [key for key, parameter in pruned.named_parameters() if parameter.grad is None] == []
        pruned.eval().reset_classifier(7, "avg")
        assert pruned(x).shape == (2, 7) and pruned.head_hidden_size == maps[index].shape[1]
    whole = copy.deepcopy(model)
    whole.prune_intermediate_layers([-1], prune_head=False)
    assert torch.equal(whole(x), expected)


@pytest.mark.parametrize("name", NAMES)
def test_every_extractor_of_timms_gives_the_same_maps(name) -> None:
    stages = len(created(name).stages)
    for wanted in ((0,), (-1,), tuple(range(stages)), 1):
        found = []
        for extractor in ("list", "dict", "hook", "fx", "getter"):
            model = created(name, features_only=True, out_indices=wanted, feature_cls=extractor).eval()
            maps = model(images())
            found.append(list(maps.values()) if isinstance(maps, dict) else maps)
            assert model.feature_info.channels() == [each.shape[1] for each in found[-1]], extractor
            assert model.feature_info.reduction() == [64 // each.shape[-1] for each in found[-1]], extractor
        for others in found[1:]:
            torch.testing.assert_close(others, found[0], rtol=1e-4, atol=1e-5)


def test_features_can_be_scripted() -> None:
    for name in STAGED:
        model = created(name, features_only=True, out_indices=(1, 3)).eval()
        torch.testing.assert_close(torch.jit.script(model)(images()), model(images()), rtol=1e-4, atol=1e-5)


def test_features_train_with_checkpointing() -> None:
    gradients = []
    for saving in (False, True):
        model = created("roadmap_micro_separate_downsampling", features_only=True, drop_path=0.0)
        model.set_grad_checkpointing(saving)
        sum(each.square().mean() for each in model(images())).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", NAMES)
def test_scripts_traces_and_graphs_compute_the_same(name, layout) -> None:
    model = created(name, num_classes=5).eval().to(memory_format=layout)
    x = images(2, (61, 45)).to(memory_format=layout)  # sides that no patch divides
    expected, first = model(x), model.forward_intermediates(x, [0], intermediates_only=True)[0]
    graph = create_feature_extractor(model, {"stages.0": "first", "head": "last"})
    torch.testing.assert_close(graph(x), {"first": first, "last": expected}, rtol=1e-4, atol=1e-5)
    scripted = torch.jit.script(model)
    for other in (scripted, torch.jit.trace(model, x, check_trace=False)):
        torch.testing.assert_close(other(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.jit.script(graph)(x)["last"], expected, rtol=1e-4, atol=1e-5)
    assert list(scripted.state_dict()) == list(model.state_dict())


def test_a_graph_keeps_the_cpus_own_ways() -> None:
    model = created("roadmap_micro_separate_downsampling")
    graph = create_feature_extractor(model, ["head"])
    calls = [node.target.__name__ for node in graph.graph.nodes if node.op == "call_function"]
    blocks = sum(model.design.depths)
    assert calls.count("depthwise_conv") == blocks and calls.count("pointwise_conv") == 2 * blocks
    assert calls.count("padded") == 4


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_and_a_script_train(name) -> None:
    for traced in (lambda model: create_feature_extractor(model, {"head": "out"}), torch.jit.script):
        model = traced(created(name, num_classes=5))
        out = model(images())
        (out["out"] if isinstance(out, dict) else out).square().mean().backward()
        assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", NAMES)
def test_layers_in_groups_from_stem_to_head(name) -> None:
    model = created(name)
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    blocks = sum(model.design.depths)
    assert set(layers) == {key for key, _ in model.named_parameters()}
    assert {layer for key, layer in layers.items() if key.startswith("stem.")} == {0}
    assert {layer for key, layer in layers.items() if key.startswith("head.")} == {blocks + 1}
    order = [layers[key] for key in layers if ".blocks." in key]
    assert set(order) == set(range(1, blocks + 1))
    for stage in range(1, len(model.stages)):
        start = layers[next(key for key in layers if key.startswith(f"stages.{stage}.blocks.0."))]
        assert {layers[key] for key in layers if key.startswith(f"stages.{stage}.downsample.")} <= {start}
    coarse = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    assert set(coarse.values()) == set(range(len(model.stages) + 2))


def test_a_rate_that_falls_by_layer_and_no_decay_of_norms() -> None:
    model = created("roadmap_micro_separate_downsampling")
    groups = param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.5)
    scales = {id(each): group["lr_scale"] for group in groups for each in group["params"]}
    blocks = sum(model.design.depths)
    assert scales[id(model.head.fc.weight)] == 1
    assert scales[id(model.stages[-1].blocks[-1].gamma)] == 0.5
    assert scales[id(model.stem.conv.weight)] == pytest.approx(0.5 ** (blocks + 1))
    assert {each.ndim for group in groups if not group["weight_decay"] for each in group["params"]} == {1}
    assert {each.ndim for group in groups if group["weight_decay"] for each in group["params"]} == {2, 4}


REFUSED = [
    ({"output_stride": 16}, ValueError, r"^output_stride=16 is not one of: 32$"),
    ({"global_pool": "max"}, ValueError, r"^global_pool='max' is not one of: avg, '' \(none\)$"),
    ({"bn_momentum": 0.1}, TypeError, r"^unknown argument 'bn_momentum'; beside timm's there are: depths, width"),
    ({"drop_rate": 1.0}, ValueError, r"^design\.dropout=1\.0 must be at least 0 and below 1$"),
]


@pytest.mark.parametrize("arguments, kind, message", REFUSED)
def test_refused_in_one_line_with_what_is_allowed(arguments, kind, message) -> None:
    with pytest.raises(kind, match=message) as caught:
        timm.create_model("roadmap_micro_kernel_7", **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("indices", [0, 5, [4], [-5], []])
def test_stages_that_there_are_not_are_refused(indices) -> None:
    model = created("roadmap_micro_kernel_7")
    with pytest.raises(ValueError, match="must be stages from -4 to 3, a number of last ones or None"):
        model.forward_intermediates(images(), indices)
    with pytest.raises(ValueError, match="must be stages from -4 to 3, a number of last ones or None"):
        model.prune_intermediate_layers(indices)
    assert len(model.stages) == 4
    with pytest.raises(ValueError, match="output_fmt='NHWC' is not one of: NCHW"):
        model.forward_intermediates(images(), output_fmt="NHWC")


def test_arguments_of_timm_and_flags_from_json() -> None:
    flags = {"layer_scale": 1e-6, "stem_stride": 2, "depths": [1, 1, 3, 1], "squeeze_excite": None, "drop_path": 0.4}
    arguments = json.loads(json.dumps(flags))
    model = timm.create_model("roadmap_tiny_kernel_7", width=8, drop_rate=0.2, output_stride=16, **arguments)
    assert model.design == design_for("kernel_7", width=8, dropout=0.2, **flags)
    again = timm.create_model("roadmap_tiny_kernel_7", width=8, drop_rate=0.0, drop_path_rate=0.1, **arguments)
    assert again.design == model.design.replace(dropout=0.0, drop_path=0.1)  # what is asked by timm's name counts
    assert math.prod(model(images()).shape) == 2 * 1000


def test_a_getter_counts_the_stages_that_it_keeps() -> None:
    model = created("roadmap_micro_kernel_7").eval()
    expected = model.forward_intermediates(images(), [1], intermediates_only=True)
    getter = FeatureGetterNet(model, out_indices=(-3,))
    assert len(getter.model.stages) == 2
    assert torch.equal(getter(images())[0], expected[0])


SUITE = """
import pytest, timm
from timm import list_models

@pytest.mark.parametrize("model_name", list_models(module=["convnext"], exclude_filters=["*base*"]))
def test_listed(model_name):
    assert timm.is_model(model_name)

@pytest.mark.parametrize("model_name", ["convnext_atto"])
def test_of_one_network(model_name):
    raise AssertionError("not ours")

def test_of_none():
    raise AssertionError("not ours")
"""


def test_the_suite_of_a_checkout_runs_on_our_names_alone(tmp_path, repo_root) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    (tmp_path / "tests" / "test_models.py").write_text(SUITE)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    command = [sys.executable, "-m", "pytest", "-p", "timm_suite", "-q", tmp_path / "tests" / "test_models.py"]
    env = os.environ | {"PYTHONPATH": f"{repo_root / 'tests'}{os.pathsep}{repo_root}"}
    done = subprocess.run(command, cwd=repo_root, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert "38 passed, 2 deselected" in done.stdout, done.stdout + done.stderr  # 17 in tiny and micro, 4 ends
