"""Weights of other libraries in the two ends of our ladder, and back.

ResNet: torchvision and timm share one layout. ConvNeXt: timm, torchvision and the authors' release each have their own.
Only names and trailing unit axes differ; no value changes.
"""

import re
from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from roadmap.design import Design, flags_asked_by
from roadmap.errors import UserError
from roadmap.network import RoadmapNet
from roadmap.resolve import design_for
from roadmap.steps import END, START

# Our module -> theirs. {i}, {j}: stage and block; {i1} = i + 1, {even} = 2i, {odd} = 2i + 1.
_RESNET = {
    "stem.conv": "conv1",
    "stem.norm": "bn1",
    "stages.{i}.blocks.{j}.pw_in.conv": "layer{i1}.{j}.conv1",
    "stages.{i}.blocks.{j}.pw_in.norm": "layer{i1}.{j}.bn1",
    "stages.{i}.blocks.{j}.spatial.conv": "layer{i1}.{j}.conv2",
    "stages.{i}.blocks.{j}.spatial.norm": "layer{i1}.{j}.bn2",
    "stages.{i}.blocks.{j}.pw_out.conv": "layer{i1}.{j}.conv3",
    "stages.{i}.blocks.{j}.pw_out.norm": "layer{i1}.{j}.bn3",
    "stages.{i}.blocks.{j}.shortcut.conv": "layer{i1}.{j}.downsample.0",
    "stages.{i}.blocks.{j}.shortcut.norm": "layer{i1}.{j}.downsample.1",
    "head.fc": "fc",
}
_TIMM_CONVNEXT = {
    "stem.conv": "stem.0",
    "stem.norm": "stem.1",
    "stages.{i}.downsample.norm": "stages.{i}.downsample.0",
    "stages.{i}.downsample.conv": "stages.{i}.downsample.1",
    "stages.{i}.blocks.{j}.spatial.conv": "stages.{i}.blocks.{j}.conv_dw",
    "stages.{i}.blocks.{j}.spatial.norm": "stages.{i}.blocks.{j}.norm",
    "stages.{i}.blocks.{j}.pw_in.conv": "stages.{i}.blocks.{j}.mlp.fc1",
    "stages.{i}.blocks.{j}.pw_out.conv": "stages.{i}.blocks.{j}.mlp.fc2",
    "stages.{i}.blocks.{j}.gamma": "stages.{i}.blocks.{j}.gamma",
    "head.norm": "head.norm",
    "head.fc": "head.fc",
}
_TORCHVISION_CONVNEXT = {
    "stem.conv": "features.0.0",
    "stem.norm": "features.0.1",
    "stages.{i}.downsample.norm": "features.{even}.0",
    "stages.{i}.downsample.conv": "features.{even}.1",
    "stages.{i}.blocks.{j}.spatial.conv": "features.{odd}.{j}.block.0",
    "stages.{i}.blocks.{j}.spatial.norm": "features.{odd}.{j}.block.2",
    "stages.{i}.blocks.{j}.pw_in.conv": "features.{odd}.{j}.block.3",
    "stages.{i}.blocks.{j}.pw_out.conv": "features.{odd}.{j}.block.5",
    "stages.{i}.blocks.{j}.gamma": "features.{odd}.{j}.layer_scale",
    "head.norm": "classifier.0",
    "head.fc": "classifier.2",
}
_AUTHORS_CONVNEXT = {
    "stem.conv": "downsample_layers.0.0",
    "stem.norm": "downsample_layers.0.1",
    "stages.{i}.downsample.norm": "downsample_layers.{i}.0",
    "stages.{i}.downsample.conv": "downsample_layers.{i}.1",
    "stages.{i}.blocks.{j}.spatial.conv": "stages.{i}.{j}.dwconv",
    "stages.{i}.blocks.{j}.spatial.norm": "stages.{i}.{j}.norm",
    "stages.{i}.blocks.{j}.pw_in.conv": "stages.{i}.{j}.pwconv1",
    "stages.{i}.blocks.{j}.pw_out.conv": "stages.{i}.{j}.pwconv2",
    "stages.{i}.blocks.{j}.gamma": "stages.{i}.{j}.gamma",
    "head.norm": "norm",
    "head.fc": "head",
}
LAYOUTS: dict[str, dict[str, dict[str, str]]] = {
    "resnet": {"torchvision": _RESNET, "timm": _RESNET},
    "convnext": {"timm": _TIMM_CONVNEXT, "torchvision": _TORCHVISION_CONVNEXT, "authors": _AUTHORS_CONVNEXT},
}
_ANY_SIZE = ("depths", "width", "kernel_size", *flags_asked_by("recipe"))  # do not move a design off its end


class InteropError(UserError, ValueError):
    """Weights that do not fit a network; the message lists every key that is missing, extra or of another shape."""


def load_reference(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load weights of torchvision, timm or the authors' release into a network at an end of the ladder.

    Args:
        model: a network whose structure is that of `resnet50` or `separate_downsampling`, of any depths and width.
        state_dict: their state dict; which library it comes from is recognised by its names.

    Raises:
        InteropError: the network is no end of the ladder, or a key is missing, extra or of another shape. Nothing is
            loaded then. (Only BatchNorm's `num_batches_tracked`, absent from old files, may be missing.)
    """
    own = model.state_dict()
    end = _end_of(model)
    renames = {source: _renaming(own, layout) for source, layout in LAYOUTS[end].items()}
    best = max(renames.values(), key=lambda names: len(set(names.values()) & set(state_dict)))
    problems = _problems(own, best, state_dict)
    if problems:
        raise InteropError(f"weights do not fit {end} ({', '.join(LAYOUTS[end])}): {'; '.join(problems)}")
    found = {key: state_dict[name].reshape(own[key].shape) for key, name in best.items() if name in state_dict}
    model.load_state_dict({**own, **found})


def to_reference(model: nn.Module, source: str | None = None) -> dict[str, Tensor]:
    """The weights of a network at an end of the ladder, under the names and shapes of another library.

    Args:
        model: a network whose structure is that of `resnet50` or `separate_downsampling`.
        source: "torchvision" or "timm"; for ConvNeXt also "authors". Default: torchvision (ResNet), timm (ConvNeXt).

    Raises:
        InteropError: the network is no end of the ladder, or the source is unknown.
    """
    end = _end_of(model)
    layouts = LAYOUTS[end]
    source = source or next(iter(layouts))
    if source not in layouts:
        raise InteropError(f"source={source!r} is not one of: {', '.join(layouts)}")
    own = model.state_dict()
    return {name: _shaped(key, own[key], end, source) for key, name in _renaming(own, layouts[source]).items()}


def _end_of(model: nn.Module) -> str:
    """The end of the ladder, "resnet" or "convnext", that end of the ladder the network's structure is."""
    design = cast(RoadmapNet, model).design
    ends = {"resnet": Design(), "convnext": design_for(END.name)}
    for name, end in ends.items():
        if design.replace(**{flag: getattr(end, flag) for flag in _ANY_SIZE}) == end:
            return name
    raise InteropError(f"only the ends of the ladder have counterparts elsewhere: {START.name} and {END.name}")


def _renaming(own: Mapping[str, Tensor], layout: Mapping[str, str]) -> dict[str, str]:
    """Our key -> their key, for every entry of our state dict."""
    rules: list[tuple[re.Pattern[str], str]] = []
    for ours, theirs in layout.items():
        pattern = re.escape(ours).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{j\}", r"(?P<j>\d+)")
        rules.append((re.compile(pattern + r"(?P<rest>\.\w+)?"), theirs))
    return {key: _rename(key, rules) for key in own}


def _rename(key: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, template in rules:
        match = pattern.fullmatch(key)
        if match:
            groups = match.groupdict()
            i = int(groups.get("i") or 0)
            name = template.format(i=i, j=groups.get("j"), i1=i + 1, even=2 * i, odd=2 * i + 1)
            return name + (groups["rest"] or "")
    raise InteropError(f"{key} has no counterpart in the other library")


def _shaped(key: str, value: Tensor, end: str, source: str) -> Tensor:
    """Our tensor in their shape: ConvNeXt's pointwise weights as matrices, torchvision's layer scale as a map."""
    if end == "convnext" and re.search(r"\.pw_(in|out)\.conv\.weight$", key):
        return value.flatten(1)
    if source == "torchvision" and key.endswith(".gamma"):
        return value.view(-1, 1, 1)
    return value


def _problems(own: Mapping[str, Tensor], names: Mapping[str, str], theirs: Mapping[str, Tensor]) -> list[str]:
    """What keeps `theirs` from being loaded, one clause per kind."""
    missing = [n for n in names.values() if n not in theirs and not n.endswith("num_batches_tracked")]
    extra = sorted(set(theirs) - set(names.values()))
    wrong = [
        f"{name} {tuple(theirs[name].shape)} instead of {tuple(own[key].shape)}"
        for key, name in names.items()
        if name in theirs and _squeezed(theirs[name]) != _squeezed(own[key])
    ]
    kinds = {"missing": missing, "extra": extra, "of another shape": wrong}
    return [f"{kind}: {', '.join(keys)}" for kind, keys in kinds.items() if keys]


def _squeezed(value: Tensor) -> tuple[int, ...]:
    """The shape without trailing unit axes beyond what names a matrix or a vector."""
    shape = tuple(value.shape)
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
