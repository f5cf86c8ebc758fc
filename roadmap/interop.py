"""Weights of other libraries in our networks, and back, for every network that both have (`layouts.LAYOUTS`).

Only names and trailing unit axes differ; no value changes.
"""

import re
from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from roadmap.design import Design
from roadmap.errors import UserError
from roadmap.layouts import LAYOUTS, Layout, Names
from roadmap.network import RoadmapNet


class InteropError(UserError, ValueError):
    """Weights that do not fit a network; the message lists every key that is missing, extra or of another shape."""


def load_reference(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load weights of torchvision, timm or the authors' release into a network that they have too.

    Args:
        model: a ResNet (also -C, -D, SE- or -RS), a ConvNeXt (also V2 or isotropic), of any depths and width.
        state_dict: their state dict; which library it comes from is recognised by its names.

    Raises:
        InteropError: no library has the network, or a key is missing, extra or of another shape. Nothing is loaded
            then. (Only BatchNorm's `num_batches_tracked`, absent from old files, may be missing.)
    """
    own = model.state_dict()
    model.load_state_dict({**own, **from_reference(own, cast(RoadmapNet, model).design, state_dict)})


def from_reference(own: Mapping[str, Tensor], design: Design, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of another library under our names and in our shapes.

    Args:
        own: our state dict of the network; only shapes matter.
        design: the network.
        state_dict: theirs.

    Raises:
        InteropError: as in `load_reference`.
    """
    family, layouts = _counterparts(design)
    renames = [_renaming(own, layout.names_for(design)) for layout in layouts.values()]
    best = max(renames, key=lambda names: len(set(names.values()) & set(state_dict)))
    problems = _problems(own, best, state_dict)
    if problems:
        raise InteropError(f"weights do not fit {family} ({', '.join(layouts)}): {'; '.join(problems)}")
    return {key: state_dict[name].reshape(own[key].shape) for key, name in best.items() if name in state_dict}


def sizes_in(design: Design, state_dict: Mapping[str, Tensor]) -> tuple[int, int]:
    """How many classes and channels another library's weights of a network are for.

    Raises:
        InteropError: no library has the network, or the weights have none of its names.
    """
    family, layouts = _counterparts(design)
    for layout in layouts.values():
        names = layout.names_for(design)
        ends = f"{names['head.fc']}.bias", f"{names['stem.conv']}.weight"
        if all(name in state_dict for name in ends):
            return state_dict[ends[0]].shape[0], state_dict[ends[1]].shape[1]
    raise InteropError(
        f"weights do not fit {family} ({', '.join(layouts)}): the names of its stem and head are missing"
    )


def to_reference(model: nn.Module, source: str | None = None) -> dict[str, Tensor]:
    """The weights of a network under the names and shapes of another library that has it too.

    Args:
        model: as in `load_reference`.
        source: "torchvision", "timm" or "authors"; the first of `LAYOUTS` that has the network unless given.

    Raises:
        InteropError: no library has the network, or the source is none of those that have it.
    """
    own, design = model.state_dict(), cast(RoadmapNet, model).design
    _, layouts = _counterparts(design)
    source = source or next(iter(layouts))
    if source not in layouts:
        raise InteropError(f"source={source!r} is not one of: {', '.join(layouts)}")
    names = _renaming(own, layouts[source].names_for(design))
    return {name: _shaped(key, own[key], layouts[source]) for key, name in names.items()}


def _counterparts(design: Design) -> tuple[str, dict[str, Layout]]:
    """The family that a design belongs to, and the layouts of the libraries that have it.

    Raises:
        InteropError: there is none.
    """
    misfits = {}
    for family, layouts in LAYOUTS.items():
        wrong = {source: layout.misfits(design) for source, layout in layouts.items()}
        fitting = {source: layouts[source] for source, flags in wrong.items() if not flags}
        if fitting:
            return family, fitting
        misfits[family] = min(wrong.values(), key=len)
    nearest = min(misfits, key=lambda family: len(misfits[family]))
    raise InteropError(
        f"no other library has this network; it would be a {nearest}, but for {', '.join(misfits[nearest])}"
    )


def _renaming(own: Mapping[str, Tensor], layout: Names) -> dict[str, str]:
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


def _shaped(key: str, value: Tensor, layout: Layout) -> Tensor:
    """Our tensor with as many axes as theirs has."""
    axes = next((count for end, count in layout.axes.items() if key.endswith(end)), value.ndim)
    shape = _squeezed(value)
    return value.reshape((*shape, *[1] * (axes - len(shape))))


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
