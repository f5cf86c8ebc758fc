"""Which networks other libraries have and how they name the parts: data for `interop`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from roadmap.design import FLAGS, Design, flags_asked_by

Names = Mapping[str, str]  # our module -> theirs; {i}, {j}: stage and block; {i1} = i + 1, {even} = 2i, {odd} = 2i + 1


@dataclass(frozen=True)
class Layout:
    """One library's names for one family of networks.

    Attributes:
        stages: how many stages its networks have.
        fixed: the flags that are not ResNet-50's, with their values.
        free: flags that may have any value.
        names: what it calls our modules.
        variants: (flag, value) -> other names in networks that have this value instead.
        axes: end of our key -> number of axes of its tensor there, where it is not ours.
    """

    stages: int
    fixed: Mapping[str, Any]
    free: tuple[str, ...]
    names: Names
    variants: Mapping[tuple[str, Any], Names] = field(default_factory=dict)
    axes: Mapping[str, int] = field(default_factory=dict)

    def misfits(self, design: Design) -> list[str]:
        """What keeps a design from being one of its networks, e.g. ["norm=ln"]; empty where nothing does."""
        start = Design()
        flags = [flag for flag in FLAGS if flag not in ("depths", "width", *self.free, *flags_asked_by("recipe"))]
        wrong = [
            f"{flag}={getattr(design, flag)}"
            for flag in flags
            if getattr(design, flag) != self.fixed.get(flag, getattr(start, flag))
            and (flag, getattr(design, flag)) not in self.variants
        ]
        return wrong + [f"depths={list(design.depths)}"] * (len(design.depths) != self.stages)

    def names_for(self, design: Design) -> dict[str, str]:
        """What it calls the modules of a design that fits."""
        names = dict(self.names)
        for (flag, value), others in self.variants.items():
            if getattr(design, flag) == value:
                names |= others
        return names


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
_SQUEEZE_EXCITE = {
    "stages.{i}.blocks.{j}.se.fc1": "layer{i1}.{j}.se.fc1",
    "stages.{i}.blocks.{j}.se.fc2": "layer{i1}.{j}.se.fc2",
}
_DEEP_STEM = {
    "stem.conv": "conv1.0",
    "stem.norm": "conv1.1",
    "stem.conv_2": "conv1.3",
    "stem.norm_2": "conv1.4",
    "stem.conv_3": "conv1.6",
    "stem.norm_3": "bn1",
    "stem.conv_4": "maxpool.0",
    "stem.norm_4": "maxpool.1",
}
_POOLED_SHORTCUT = {
    "stages.{i}.blocks.{j}.shortcut.conv": "layer{i1}.{j}.downsample.1",
    "stages.{i}.blocks.{j}.shortcut.norm": "layer{i1}.{j}.downsample.2",
}
_TIMM_CONVNEXT = {
    "stem.conv": "stem.0",
    "stem.norm": "stem.1",
    "stages.{i}.downsample.norm": "stages.{i}.downsample.0",
    "stages.{i}.downsample.conv": "stages.{i}.downsample.1",
    "stages.{i}.blocks.{j}.spatial.conv": "stages.{i}.blocks.{j}.conv_dw",
    "stages.{i}.blocks.{j}.spatial.norm": "stages.{i}.blocks.{j}.norm",
    "stages.{i}.blocks.{j}.pw_in.conv": "stages.{i}.blocks.{j}.mlp.fc1",
    "stages.{i}.blocks.{j}.pw_out.grn": "stages.{i}.blocks.{j}.mlp.grn",
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
_AUTHORS_ISOTROPIC = {
    "stem.conv": "stem",
    "stages.0.blocks.{j}.spatial.conv": "blocks.{j}.dwconv",
    "stages.0.blocks.{j}.spatial.norm": "blocks.{j}.norm",
    "stages.0.blocks.{j}.pw_in.conv": "blocks.{j}.pwconv1",
    "stages.0.blocks.{j}.pw_out.conv": "blocks.{j}.pwconv2",
    "stages.0.blocks.{j}.gamma": "blocks.{j}.gamma",
    "head.norm": "norm",
    "head.fc": "head",
}

_CONVNEXT_FLAGS = {
    "stem": "patchify",
    "groups": "depthwise",
    "inverted": True,
    "spatial_first": True,
    "act": "gelu",
    "fewer_acts": True,
    "fewer_norms": True,
    "norm": "ln",
    "separate_downsample": True,
    "boundary_norms": True,
}
_KERNEL = ("kernel_size",)
_CONVNEXT_FREE = (*_KERNEL, "early_stride", "pooled_shortcut")  # these two have no effect there
_MATRICES = {"pw_in.conv.weight": 2, "pw_out.conv.weight": 2}  # 1x1 convolutions as linear layers
_TIMM_RESNET_VARIANTS = {
    ("stem", "deep"): _DEEP_STEM,
    ("stem", "deep_conv"): _DEEP_STEM,
    ("pooled_shortcut", True): _POOLED_SHORTCUT,
}

# Family -> library -> its layout; the first that fits a design is what it is exported to unless asked otherwise.
LAYOUTS: dict[str, dict[str, Layout]] = {
    "resnet": {
        "torchvision": Layout(4, {}, _KERNEL, _RESNET),
        "timm": Layout(4, {}, (*_KERNEL, "squeeze_excite"), _RESNET | _SQUEEZE_EXCITE, _TIMM_RESNET_VARIANTS),
    },
    "convnext": {
        "timm": Layout(4, _CONVNEXT_FLAGS, (*_CONVNEXT_FREE, "grn"), _TIMM_CONVNEXT, axes=_MATRICES),
        "torchvision": Layout(4, _CONVNEXT_FLAGS, _CONVNEXT_FREE, _TORCHVISION_CONVNEXT, axes=_MATRICES | {"gamma": 3}),
        "authors": Layout(4, _CONVNEXT_FLAGS, _CONVNEXT_FREE, _AUTHORS_CONVNEXT, axes=_MATRICES),
    },
    "isotropic convnext": {
        "authors": Layout(1, _CONVNEXT_FLAGS, (*_CONVNEXT_FREE, "stem_stride"), _AUTHORS_ISOTROPIC, axes=_MATRICES),
    },
}
