"""The built network: any flags train, any image size fits, and it behaves as timm's networks do."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import SEModule
from timm.layers.grn import GlobalResponseNorm as TimmResponseNorm
from torch import Tensor, nn
from torch.nn import functional

from roadmap import STEPS, Design, DesignError, build, design_for
from roadmap.layers import DropPath, GlobalResponseNorm, SqueezeExcite
from roadmap.network import RoadmapNet
from roadmap.plan import plan_network
from tests.roadmap.designs import (
    ANY_DEPTHS,
    FLAG_VALUES,
    OTHERS,
    SMALL,
    STRUCTURE,
    all_pairs,
    covering_array,
    name_of,
    output_side,
    pairs_of,
)

pytestmark = pytest.mark.numeric

ANY = FLAG_VALUES | {"depths": ANY_DEPTHS}
COVERING = covering_array(ANY, 320)
STEP_NAMES = [step.name for step in STEPS]
ALL_NAMES = [*STEP_NAMES, *OTHERS]
TINY_STEPS = {"regime": "micro", "depths": (1, 1, 2, 1), "width": 8, "num_classes": 5}


def tiny(name: str, **flags) -> RoadmapNet:
    """A step, or one of the other networks, at a size for tests."""
    return build(OTHERS[name], num_classes=5, **flags) if name in OTHERS else build(name, **TINY_STEPS, **flags)


def images(count: int = 2, size: tuple[int, int] = (32, 32), seed: int = 0) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Give every parameter and statistic a value that shows: no zeros, no ones, layer scale near one."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            if value.ndim > 1:
                value.copy_((noise - 0.5) * (12 / value[0].numel()) ** 0.5)
            elif name.endswith("se.fc1.bias"):
                value.copy_(noise + 1)  # no ReLU is closed for all images
            else:
                value.copy_(noise - 0.5 if name.endswith(("bias", "mean")) else noise + 0.5)


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    labels = torch.arange(len(x)) % 5
    return functional.cross_entropy(model(x), labels)


def test_covering_array_holds_every_pair_of_flag_values() -> None:
    held = set().union(*(pairs_of(flags) for flags in COVERING))
    assert held == all_pairs(ANY)
    assert len({name_of(flags) for flags in COVERING}) >= 300


def make_everything_show(model: nn.Module) -> None:
    """No zeros among the weights, and no branch that noise drops for all images."""
    randomise(model)
    for module in model.modules():
        if isinstance(module, DropPath):
            module.rate = 0.0


@pytest.mark.parametrize("flags", COVERING, ids=name_of)
def test_any_flags_train(flags) -> None:
    """A first step from the initial weights is finite; away from their zeros every parameter gets a gradient."""
    torch.manual_seed(0)
    model = build(Design(width=8, **flags), num_classes=5)
    for prepare in (lambda network: None, make_everything_show):
        prepare(model)
        model.zero_grad()
        loss = loss_of(model, images(4, (40, 33)))
        loss.backward()
        assert loss.isfinite()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


@pytest.mark.parametrize("name", STEP_NAMES)
def test_every_parameter_of_a_step_learns(name) -> None:
    torch.manual_seed(0)
    model = tiny(name, layer_scale=0.1)
    loss_of(model, images(4, (64, 64))).backward()
    unused = [key for key, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert unused == []


@settings(deadline=None, max_examples=60)
@given(
    flags=st.fixed_dictionaries({flag: st.sampled_from(values) for flag, values in STRUCTURE.items()}),
    depths=st.lists(st.integers(1, 2), min_size=1, max_size=5),
    width=st.floats(1, 12),
    kernel_size=st.integers(0, 15).map(lambda half: 2 * half + 1),
    size=st.tuples(st.integers(28, 256), st.integers(28, 256)),
)
def test_any_image_size_gives_a_map_of_the_expected_size(flags, depths, width, kernel_size, size) -> None:
    loose = {"depths": depths, "width": width, "kernel_size": kernel_size, "groups": "depthwise"}
    design = Design(**flags | loose)
    model = build(design, num_classes=3).eval()
    with torch.no_grad():
        features = model.forward_features(images(1, size))
        logits = model.forward_head(features)
    assert features.shape[1:] == (model.num_features, output_side(design, size[0]), output_side(design, size[1]))
    assert logits.shape == (1, 3)
    assert logits.isfinite().all()


@settings(deadline=None, max_examples=20)
@given(
    flags=st.fixed_dictionaries({flag: st.sampled_from(values) for flag, values in STRUCTURE.items()}),
    width=st.integers(1, 24),
    groups=st.integers(1, 24),
)
def test_groups_build_exactly_when_they_divide(flags, width, groups) -> None:
    design = Design(**flags | {"width": width, "groups": groups, "depths": (1, 1, 2, 1)})
    try:
        plan_network(design)
    except DesignError:
        with pytest.raises(DesignError, match=f"^design.groups={groups} does not divide"):
            build(design)
        return
    model = build(design, num_classes=3)
    assert {conv.groups for name, conv in model.named_modules() if name.endswith("spatial.conv")} == {groups}
    assert model(images()).shape == (2, 3)


def test_a_size_that_does_not_divide_is_padded_with_zeros_on_the_right_and_bottom() -> None:
    model = build("separate_downsampling", regime="micro", num_classes=3).eval()
    odd = images(1, (61, 38))
    padded = functional.pad(odd, (0, 2, 0, 3))
    with torch.no_grad():
        torch.testing.assert_close(model.stem(odd), model.stem(padded))


@pytest.mark.parametrize("name", ALL_NAMES)
def test_channels_last_gives_the_same_outputs_and_gradients(name) -> None:
    """Gradients in fp64: a ReLU or a max-pool whose inputs nearly tie makes another gradient of fp32's rounding."""
    plain = tiny(name, layer_scale=1e-6)
    randomise(plain)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    x = images(4, (64, 48))
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(x), last.eval()(x), rtol=1e-4, atol=1e-5)
    x = x.double()
    loss_of(plain.double().train(), x).backward()
    loss_of(last.double().train(), x.to(memory_format=torch.channels_last)).backward()
    for (key, one), other in zip(plain.named_parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(
            one.grad, other.grad, rtol=1e-6, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
@pytest.mark.parametrize("name", ALL_NAMES)
def test_checkpointing_gives_the_same_outputs_gradients_and_statistics(name, drop_path) -> None:
    plain = tiny(name, layer_scale=0.1, drop_path=drop_path)
    randomise(plain)
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing()
    outputs = []
    for model in (plain, saving):
        torch.manual_seed(1)
        out = model(images(4))
        out.square().sum().backward()
        outputs.append(out)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-7)
    for (key, one), other in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(one, other), key
    saving.set_grad_checkpointing(False)
    assert torch.equal(plain.eval()(images()), saving.eval()(images()))


def test_checkpointing_keeps_fewer_activations() -> None:
    def kept(model: nn.Module) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model(images(2, (64, 64)))
        return sum(sizes)

    model = build("separate_downsampling", regime="micro", depths=(2, 2, 4, 2))
    plain = kept(model)
    model.set_grad_checkpointing()
    assert kept(model) < plain / 2


@pytest.mark.parametrize("name", ["resnet50", "kernel_7", "separate_downsampling"])
def test_stochastic_depth_drops_whole_branches_and_keeps_the_mean(name) -> None:
    model = build(name, regime="micro", depths=(1, 1, 1, 1), drop_path=0.6)
    block = model.stages[-1].blocks[0]
    block.act = nn.Identity()  # look at the sum itself
    x = torch.randn(1, block_input(model), 4, 4).expand(4000, -1, -1, -1)
    with torch.no_grad():
        block.eval()
        shortcut = block.shortcut(x[:1])
        branch = block(x[:1]) - shortcut
        freeze_statistics(block.train())
        out = block(x) - shortcut
    dropped = (out.abs().amax((1, 2, 3)) < 1e-5).float().mean()
    assert dropped == pytest.approx(0.6, abs=0.03)
    torch.testing.assert_close(out.mean(0, keepdim=True), branch, rtol=0.1, atol=0.05 * float(branch.abs().max()))


def block_input(model: RoadmapNet) -> int:
    """Channels that the last block receives."""
    first = next(module for module in model.stages[-1].blocks[0].modules() if isinstance(module, nn.Conv2d))
    return first.in_channels


def freeze_statistics(block: nn.Module) -> None:
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def test_without_training_stochastic_depth_does_nothing() -> None:
    one = build("gelu", regime="micro", drop_path=0.5).eval()
    other = build("gelu", regime="micro").eval()
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(images()), other(images()))


@pytest.mark.parametrize("init", ["kaiming", "zero_gamma", "trunc_normal"])
def test_initial_weights(init) -> None:
    torch.manual_seed(0)
    model = build("layer_norm", regime="micro", width=64, init=init, layer_scale=1e-6)
    convs = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    for name, conv in convs.items():
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2  # as torch counts it, groups or not
        expected = 0.02 if init == "trunc_normal" else (2 / fan_out) ** 0.5
        assert float(conv.weight.detach().std()) == pytest.approx(expected, rel=0.1), name
        assert conv.bias is None or not conv.bias.any()
    if init == "trunc_normal":
        assert float(model.head.fc.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
        assert not model.head.fc.bias.any()
    assert all(bool((block.gamma == 1e-6).all()) for stage in model.stages for block in stage.blocks)


@pytest.mark.parametrize("flags", covering_array(FLAG_VALUES | {"init": ("zero_gamma",)}, 30, seed=4), ids=name_of)
def test_zero_gamma_makes_blocks_start_as_their_shortcut_where_a_norm_ends_the_branch(flags) -> None:
    model = build(Design(**SMALL, **flags)).eval()
    norms = {name: norm for name, norm in model.named_modules() if isinstance(norm, nn.BatchNorm2d | nn.LayerNorm)}
    zero = {name for name, norm in norms.items() if not norm.weight.any()}
    assert zero == {name for name in norms if name.endswith("pw_out.norm")}
    assert bool(zero) != flags["fewer_norms"]
    block = model.stages[-1].blocks[-1]
    x = torch.randn(2, block_input(model), 5, 5)
    shortcut = block.shortcut(x)
    *_, after = block.items()
    if after[0] == "act":
        shortcut = block.act(shortcut)
    if zero:
        torch.testing.assert_close(block(x), shortcut)


def test_squeeze_excite_and_response_norm_compute_what_timms_do() -> None:
    x = torch.randn(3, 24, 6, 5, dtype=torch.float64)
    pairs = [
        (SqueezeExcite(24, 8), SEModule(24, rd_ratio=0.25)),
        (GlobalResponseNorm(24), TimmResponseNorm(24, channels_last=False)),
    ]
    for ours, theirs in pairs:
        randomise(ours.double())
        theirs.double().load_state_dict(ours.state_dict())
        torch.testing.assert_close(ours(x), theirs(x))
    assert not GlobalResponseNorm(4).weight.any()
    assert not GlobalResponseNorm(4).bias.any()


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_a_pooled_shortcut_averages_what_there_is(side) -> None:
    shortcut = build(Design(**SMALL, pooled_shortcut=True)).eval().stages[1].blocks[0].shortcut
    shortcut.conv, shortcut.norm = nn.Identity(), nn.Identity()
    x = torch.randn(1, 32, side, side)
    expected = [[x[..., i : i + 2, j : j + 2].mean((2, 3)) for j in range(0, side, 2)] for i in range(0, side, 2)]
    torch.testing.assert_close(shortcut(x), torch.stack([torch.stack(row, -1) for row in expected], -2))


def test_dropout_thins_the_classifiers_input_in_training_alone() -> None:
    model = build(Design(**SMALL, dropout=0.6), num_classes=0)
    x = images(32)
    torch.manual_seed(0)
    freeze_statistics(model)
    thinned, whole = model(x), model.eval()(x)
    gone = (thinned == 0) & (whole != 0)
    assert float(gone.sum() / (whole != 0).sum()) == pytest.approx(0.6, abs=0.05)
    torch.testing.assert_close(thinned[~gone], whole[~gone] / 0.4)


def test_per_sample_gradients_by_function_transforms() -> None:
    for name in ("convnext_v2", "convnext_d_se"):  # without BatchNorm, which mixes samples
        model = tiny(name, layer_scale=0.1).double()
        randomise(model)
        x = images(3).double()

        def loss(weights: dict[str, Tensor], image: Tensor, model: nn.Module = model) -> Tensor:
            return torch.func.functional_call(model, weights, (image[None],)).square().sum()

        weights = {key: value.detach() for key, value in model.named_parameters()}
        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
        model(x).square().sum().backward()
        for key, value in model.named_parameters():
            torch.testing.assert_close(each[key].sum(0), value.grad, msg=lambda text, key=key: f"{key}: {text}")


def test_norms_start_as_the_identity() -> None:
    model = build("separate_downsampling", regime="micro")
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 6 + 1 + 3 + 1  # blocks, stem, downsampling, head
    assert all(norm.eps == 1e-6 and bool((norm.weight == 1).all()) and not norm.bias.any() for norm in norms)


def test_layer_norm_normalises_each_location_over_channels() -> None:
    model = build("layer_norm", regime="micro").eval()
    norm = model.stages[0].blocks[0].spatial.norm
    x = torch.randn(2, norm.normalized_shape[0], 5, 3) * 3 + 1
    out = norm(x)
    torch.testing.assert_close(out.mean(1), torch.zeros(2, 5, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.var(1, unbiased=False), torch.ones(2, 5, 3), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16])
@pytest.mark.parametrize("name", ["resnet50", "layer_norm", "separate_downsampling", *OTHERS])
def test_autocast_trains_and_stays_near_full_precision(name, dtype) -> None:
    torch.manual_seed(0)
    model = tiny(name)
    x = images(4, (64, 64))
    full = model.eval()(x)
    with torch.autocast("cpu", dtype=dtype):
        half = model(x)
        loss_of(model.train(), x).backward()
    torch.testing.assert_close(half.float(), full, rtol=0.1, atol=0.1 * float(full.detach().abs().max()))
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", ALL_NAMES)
def test_built_on_the_meta_device(name) -> None:
    with torch.device("meta"):
        model = build(OTHERS.get(name, name))
        assert model(torch.empty(2, 3, 64, 64)).shape == (2, 1000)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_a_squeeze_excite_network_keeps_its_type_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for name in ("resnet_rs", "convnext_v2", "convnext_d_se"):
            assert tiny(name, layer_scale=0.1).forward_features(images()).dtype == torch.bfloat16, name


PARAMETER_NAMES = {
    "resnet50": {
        "stem.conv.weight",
        "stem.norm.weight",
        "stem.norm.bias",
        *(
            f"stages.0.blocks.0.{role}.{part}"
            for role in ("pw_in", "spatial", "pw_out", "shortcut")
            for part in ("conv.weight", "norm.weight", "norm.bias")
        ),
        "head.fc.weight",
        "head.fc.bias",
    },
    "resnet_rs": {
        *(
            f"stem.{kind}{number}.{part}"
            for number in ("", "_2", "_3", "_4")
            for kind, part in (("conv", "weight"), ("norm", "weight"), ("norm", "bias"))
        ),
        *(
            f"stages.0.blocks.0.{role}.{part}"
            for role in ("pw_in", "spatial", "pw_out", "shortcut")
            for part in ("conv.weight", "norm.weight", "norm.bias")
        ),
        *(f"stages.0.blocks.0.se.{fc}.{kind}" for fc in ("fc1", "fc2") for kind in ("weight", "bias")),
        "head.fc.weight",
        "head.fc.bias",
    },
    "separate_downsampling": {
        *(f"{part}.{kind}" for part in ("stem.conv", "stem.norm") for kind in ("weight", "bias")),
        *(f"stages.1.downsample.{part}.{kind}" for part in ("norm", "conv") for kind in ("weight", "bias")),
        *(
            f"stages.0.blocks.0.{part}.{kind}"
            for part in ("spatial.conv", "spatial.norm", "pw_in.conv", "pw_out.conv")
            for kind in ("weight", "bias")
        ),
        "stages.0.blocks.0.gamma",
        *(f"{part}.{kind}" for part in ("head.norm", "head.fc") for kind in ("weight", "bias")),
    },
}


@pytest.mark.parametrize("name", PARAMETER_NAMES)
def test_parameter_names_are_the_documented_ones(name) -> None:
    layer_scale = 1e-6 if name == "separate_downsampling" else None
    model = build(OTHERS.get(name, name), regime="micro", layer_scale=layer_scale)
    kept = {
        key
        for key, _ in model.named_parameters()
        if key.startswith(("stem.", "head.", "stages.0.blocks.0.", "stages.1.downsample."))
    }
    assert kept == PARAMETER_NAMES[name]
    pointwise = [p for key, p in model.named_parameters() if "pw_" in key and key.endswith("conv.weight")]
    assert all(parameter.ndim == 4 for parameter in pointwise)


def test_head_and_classifier() -> None:
    model = build("kernel_7", regime="micro", num_classes=5).eval()
    x = images()
    features = model.forward_features(x)
    assert torch.equal(model(x), model.forward_head(features))
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean((2, 3)))
    assert model.get_classifier() is model.head.fc
    assert build("kernel_7", regime="micro", num_classes=0)(x).shape == pooled.shape
    model.reset_classifier(7)
    assert (model.num_classes, model(x).shape) == (7, (2, 7))
    model.reset_classifier(0)
    torch.testing.assert_close(model(x), pooled)
    for pooling in ("max", "catavgmax"):
        with pytest.raises(ValueError, match=f"global_pool='{pooling}' is not one of: avg, '' "):
            model.reset_classifier(3, pooling)


def test_a_new_classifier_is_initialised_as_the_first_was() -> None:
    model = build("kernel_7", regime="micro", num_classes=5, init="trunc_normal")
    model.reset_classifier(700)
    assert not model.head.fc.bias.any()
    assert model.head.fc.weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_build_takes_a_step_a_set_or_a_design() -> None:
    by_name = build("separate_downsampling", regime="micro", drop=["kernel_7"], add=["kernel_9"], layer_scale=0.5)
    assert by_name.design == design_for("separate_downsampling", "micro", ["kernel_9"], ["kernel_7"], layer_scale=0.5)
    assert build(by_name.design, act="relu").design == by_name.design.replace(act="relu")
    with pytest.raises(TypeError, match="add and drop"):
        build(by_name.design, drop=["gelu"])
    with pytest.raises(DesignError, match="step='resnet51'"):
        build("resnet51")
    assert build("gelu", regime="micro", in_chans=1)(torch.randn(2, 1, 32, 32)).shape == (2, 1000)


def test_equal_seeds_give_equal_weights() -> None:
    def weights() -> list[Tensor]:
        torch.manual_seed(3)
        return list(build("kernel_7", regime="micro", init="trunc_normal").parameters())

    assert all(torch.equal(one, other) for one, other in zip(weights(), weights(), strict=True))
