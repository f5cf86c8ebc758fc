"""Networks that others have too: torchvision's, timm's and the authors' counts, weights and outputs are ours."""

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from roadmap import STEPS, Design, build, complexity_of, design_for
from roadmap.interop import InteropError, load_reference, to_reference
from tests.roadmap.designs import measured

pytestmark = pytest.mark.numeric

ENDS = {"resnet": ("resnet50", None), "convnext": ("separate_downsampling", 1e-6)}
# case -> (end, regime, source, parameters, the other library's network)
CASES: dict[str, tuple[str, str, str, int, Callable[[], nn.Module]]] = {
    "torchvision resnet50": ("resnet", "tiny", "torchvision", 25_557_032, lambda: torchvision.models.resnet50()),
    "timm resnet50": ("resnet", "tiny", "timm", 25_557_032, lambda: timm.create_model("resnet50")),
    "timm resnet200": ("resnet", "base", "timm", 64_673_832, lambda: timm.create_model("resnet200")),
    "timm convnext_tiny": ("convnext", "tiny", "timm", 28_589_128, lambda: timm.create_model("convnext_tiny")),
    "torchvision convnext_tiny": (
        "convnext",
        "tiny",
        "torchvision",
        28_589_128,
        lambda: torchvision.models.convnext_tiny(),
    ),
    "timm convnext_base": ("convnext", "base", "timm", 88_591_464, lambda: timm.create_model("convnext_base")),
    "torchvision convnext_base": (
        "convnext",
        "base",
        "torchvision",
        88_591_464,
        lambda: torchvision.models.convnext_base(),
    ),
}
SIZES = [(224, 224), (96, 160)]


def empty(create: Callable[[], nn.Module]) -> nn.Module:
    """A network without the cost of initial weights: every value is to be set."""
    with torch.device("meta"):
        model = create()
    return model.to_empty(device="cpu").eval()


def randomise(model: nn.Module, seed: int) -> None:
    """Random weights, norms and BatchNorm buffers that keep the signal's size, so that each of them matters."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            value.fill_(7)
        elif value.ndim in (2, 4):
            value.normal_(std=value[0].numel() ** -0.5, generator=generator)
        elif name.endswith(("bias", "running_mean")):
            value.normal_(std=0.1, generator=generator)
        else:  # scales, variances and layer scale
            value.uniform_(0.5, 1.5, generator=generator)


def ours(case: str) -> nn.Module:
    step, layer_scale = ENDS[CASES[case][0]]
    return empty(lambda: build(step, regime=CASES[case][1], layer_scale=layer_scale))


def assert_same_outputs(one: nn.Module, other: nn.Module, size: tuple[int, int]) -> None:
    """Outputs within 1e-5, relative to the largest."""
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected, found = other(x), one(x)
    assert expected.std() > 1e-3  # the signal arrived
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_weights_and_outputs_agree_in_both_directions(case) -> None:
    _, _, source, params, create = CASES[case]
    reference, model = empty(create), ours(case)
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    assert sum(parameter.numel() for parameter in reference.parameters()) == params

    randomise(reference, seed=0)
    load_reference(model, reference.state_dict())
    for size in SIZES:
        assert_same_outputs(model, reference, size)

    randomise(model, seed=1)
    exported = to_reference(model, source)
    assert list(exported) == list(reference.state_dict()) or set(exported) == set(reference.state_dict())
    reference.load_state_dict(exported, strict=True)
    assert_same_outputs(model, reference, SIZES[1])


class AuthorsBlock(nn.Module):
    """Timm's ConvNeXt block under the names that the authors' release has."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        block = ConvNeXtBlock(channels, ls_init_value=None)
        self.dwconv, self.norm = block.conv_dw, block.norm
        self.pwconv1, self.pwconv2 = block.mlp.fc1, block.mlp.fc2
        self.block = (block,)  # in a tuple, so that its own names are none of the weights'

    def forward(self, x: Tensor) -> Tensor:
        return self.block[0](x)


class AuthorsIsotropic(nn.Module):
    """The paper's isotropic network (Table 2): a 16x16 convolution, equal blocks, mean, norm, classifier."""

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 16, 16)
        self.blocks = nn.Sequential(*(AuthorsBlock(channels) for _ in range(depth)))
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.head = nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(x)).mean((2, 3))))


DEEP, RS = {"stem": "deep"}, {"stem": "deep_conv", "pooled_shortcut": True, "squeeze_excite": 0.25}
CONVNEXT = "separate_downsampling"
# network -> (ours, parameters, theirs)
OF_OTHER_LADDERS: dict[str, tuple[Design, int, Callable[[], nn.Module]]] = {
    "resnet50c": (Design(**DEEP), 25_576_264, lambda: timm.create_model("resnet50c")),
    "resnet50d": (Design(**DEEP, pooled_shortcut=True), 25_576_264, lambda: timm.create_model("resnet50d")),
    "seresnet50": (Design(squeeze_excite=1 / 16), 28_088_024, lambda: timm.create_model("seresnet50")),
    "resnetrs50": (Design(**RS), 35_691_912, lambda: timm.create_model("resnetrs50")),
    "resnetrs101": (Design(**RS, depths=(3, 4, 23, 3)), 63_618_696, lambda: timm.create_model("resnetrs101")),
    "resnetrs200": (Design(**RS, depths=(3, 24, 36, 3)), 93_209_992, lambda: timm.create_model("resnetrs200")),
    "resnet101": (Design(depths=(3, 4, 23, 3)), 44_549_160, lambda: torchvision.models.resnet101()),
    "resnet152": (Design(depths=(3, 8, 36, 3)), 60_192_808, lambda: torchvision.models.resnet152()),
    "convnext_small": (
        design_for(CONVNEXT, depths=(3, 3, 27, 3), layer_scale=1e-6),
        50_223_688,
        lambda: timm.create_model("convnext_small"),
    ),
    "convnextv2_tiny": (design_for(CONVNEXT, grn=True), 28_635_496, lambda: timm.create_model("convnextv2_tiny")),
    "convnextv2_base": (
        design_for(CONVNEXT, "base", grn=True),
        88_717_800,
        lambda: timm.create_model("convnextv2_base"),
    ),
    "isotropic_small": (
        design_for(CONVNEXT, depths=(18,), width=384, stem_stride=16),
        22_308_712,
        lambda: AuthorsIsotropic(18, 384),
    ),
    "isotropic_base": (
        design_for(CONVNEXT, depths=(18,), width=768, stem_stride=16),
        87_083_752,
        lambda: AuthorsIsotropic(18, 768),
    ),
}


@pytest.mark.parametrize("name", OF_OTHER_LADDERS)
def test_networks_of_other_ladders_cost_what_their_counterparts_do(name) -> None:
    design, params, create = OF_OTHER_LADDERS[name]
    cost = complexity_of(design)
    with torch.device("meta"):
        reference = create()
    assert (cost.params, cost.macs, cost.activations) == measured(reference, (224, 224))
    assert cost.params == params


@pytest.mark.parametrize("name", OF_OTHER_LADDERS)
def test_their_weights_have_our_networks_names_and_shapes(name) -> None:
    design, _, create = OF_OTHER_LADDERS[name]
    with torch.device("meta"):
        reference, model = create(), build(design)
        ours = {key: tuple(value.shape) for key, value in to_reference(model).items()}
    assert ours == {key: tuple(value.shape) for key, value in reference.state_dict().items()}


@pytest.mark.parametrize("name", ["resnet50d", "seresnet50", "resnetrs50", "convnextv2_tiny", "isotropic_small"])
def test_outputs_of_networks_of_other_ladders_agree_in_both_directions(name) -> None:
    design, _, create = OF_OTHER_LADDERS[name]
    reference, model = empty(create), empty(lambda: build(design))
    randomise(reference, seed=0)
    load_reference(model, reference.state_dict())
    for size in SIZES:
        assert_same_outputs(model, reference, size)
    randomise(model, seed=1)
    reference.load_state_dict(to_reference(model), strict=True)
    assert_same_outputs(model, reference, SIZES[1])


def small(end: str, **flags) -> nn.Module:
    """A network with an end's structure, of a size that its layouts do not depend on."""
    step, layer_scale = ENDS[end]
    return build(step, regime="micro", num_classes=5, layer_scale=layer_scale, **flags)


@pytest.mark.parametrize(
    "end, source", [("resnet", "torchvision"), ("convnext", "authors"), ("convnext", "torchvision")]
)
def test_there_and_back_changes_no_value(end, source) -> None:
    one, other = small(end), small(end)
    randomise(one, seed=0)
    load_reference(other, to_reference(one, source))
    for key, value in other.state_dict().items():
        assert torch.equal(value, one.state_dict()[key]), key


AUTHORS_SHAPES = {  # of the authors' convnext.py, for the second stage of a small network
    "downsample_layers.0.0.weight": (24, 3, 4, 4),
    "downsample_layers.0.1.weight": (24,),
    "downsample_layers.1.0.weight": (24,),
    "downsample_layers.1.1.weight": (48, 24, 2, 2),
    "stages.1.0.dwconv.weight": (48, 1, 7, 7),
    "stages.1.0.norm.bias": (48,),
    "stages.1.0.pwconv1.weight": (192, 48),
    "stages.1.0.pwconv2.weight": (48, 192),
    "stages.1.0.gamma": (48,),
    "norm.weight": (192,),
    "head.weight": (5, 192),
}


def test_the_authors_names_and_shapes() -> None:
    exported = to_reference(small("convnext"), "authors")
    assert {key: tuple(exported[key].shape) for key in AUTHORS_SHAPES} == AUTHORS_SHAPES
    roots = {key.split(".")[0] for key in exported}
    assert roots == {"downsample_layers", "stages", "norm", "head"}
    assert len(exported) == 8 * 2 + 6 * 9 + 2 + 2


def test_weights_without_the_batch_counter_load() -> None:
    model = small("resnet")
    old = {k: v for k, v in to_reference(model).items() if not k.endswith("num_batches_tracked")}
    load_reference(model, old)


def damaged(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """One key gone, one that is foreign, one of another shape."""
    weights = dict(weights)
    del weights["layer1.0.conv2.weight"]
    weights["layer9.extra"] = torch.zeros(1)
    weights["fc.bias"] = torch.zeros(6)
    return weights


def test_every_misfit_is_listed_and_nothing_is_loaded() -> None:
    model, other = small("resnet"), small("resnet")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InteropError) as caught:
        load_reference(model, damaged(to_reference(other)))
    message = str(caught.value)
    assert "\n" not in message
    assert "missing: layer1.0.conv2.weight" in message
    assert "extra: layer9.extra" in message
    assert "of another shape: fc.bias (6,) instead of (5,)" in message
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_weights_of_the_wrong_end_are_refused() -> None:
    with pytest.raises(InteropError, match=r"missing: .*extra: "):
        load_reference(small("resnet"), to_reference(small("convnext")))


def test_another_depth_is_refused_with_the_keys() -> None:
    with pytest.raises(InteropError, match=r"missing: layer1\.1\.conv1\.weight"):
        load_reference(small("resnet", depths=(2, 1, 2, 1)), to_reference(small("resnet")))


@pytest.mark.parametrize("name", [step.name for step in STEPS[3:-1]])
def test_steps_in_between_have_no_counterpart(name) -> None:
    model = build(name, regime="micro", num_classes=5)
    for call in (to_reference, lambda network: load_reference(network, {})):
        with pytest.raises(InteropError, match=r"^no other library has this network; it would be a \w+, but for \w+="):
            call(model)


def test_a_resnet_of_other_depths_has_its_counterpart() -> None:
    reference = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [3, 3, 9, 3])
    model = build("stage_ratio")
    load_reference(model, reference.state_dict())
    assert_same_outputs(model.eval(), reference.eval(), (96, 64))


REFUSED = [
    ("resnet", {"norm": "ln"}, "resnet, but for norm=ln"),
    ("resnet", {"stem_stride": 2}, "resnet, but for stem_stride=2"),
    ("resnet", {"groups": "depthwise"}, "resnet, but for groups=depthwise"),
    ("resnet", {"fewer_acts": True, "stem": "patchify"}, "resnet, but for stem=patchify, fewer_acts=True"),
    ("resnet", {"early_stride": True}, "resnet, but for early_stride=True"),
    ("resnet", {"grn": True}, "resnet, but for grn=True"),
    ("resnet", {"depths": (1, 1, 1)}, r"resnet, but for depths=\[1, 1, 1\]"),
    ("convnext", {"squeeze_excite": 0.5}, "convnext, but for squeeze_excite=0.5"),
    ("convnext", {"depths": (2,), "stem_stride": 16, "grn": True}, "isotropic convnext, but for grn=True"),
]


@pytest.mark.parametrize("end, flags, message", REFUSED)
def test_an_end_with_another_structure_is_refused(end, flags, message) -> None:
    with pytest.raises(InteropError, match=f"^no other library has this network; it would be a {message}$"):
        to_reference(small(end, **flags))


@pytest.mark.parametrize("flags", [DEEP, RS, {"pooled_shortcut": True}, {"squeeze_excite": 1.0}, {"dropout": 0.3}])
def test_only_the_library_that_has_a_variant_is_a_source(flags) -> None:
    model = small("resnet", **flags)
    other = small("resnet", **flags)
    randomise(model, seed=0)
    load_reference(other, to_reference(model, "timm"))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
    if "dropout" not in flags:
        with pytest.raises(InteropError, match=r"source='torchvision' is not one of: timm$"):
            to_reference(model, "torchvision")


def test_flags_without_effect_on_a_convnext_keep_its_counterparts() -> None:
    model = small("convnext", early_stride=True, pooled_shortcut=True)
    assert set(to_reference(model, "torchvision")) == set(to_reference(small("convnext"), "torchvision"))


def test_unknown_sources_are_refused() -> None:
    with pytest.raises(InteropError, match="source='keras' is not one of: timm, torchvision, authors"):
        to_reference(small("convnext"), "keras")


def test_convnext_without_layer_scale_loads_no_gamma() -> None:
    plain = build("separate_downsampling", regime="micro", num_classes=5)
    assert not [key for key in to_reference(plain) if "gamma" in key]
    with pytest.raises(InteropError, match=r"extra: stages\.0\.blocks\.0\.gamma"):
        load_reference(plain, to_reference(small("convnext")))
