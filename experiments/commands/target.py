"""The trained network that a command is about: `evaluate`, `predict`, `export`, `push` take the same words."""

import argparse
from pathlib import Path
from typing import Any

from roadmap.network import RoadmapNet
from roadmap.regimes import REGIMES
from roadmap.steps import DEFAULT, ROADMAPS
from roadmap.weights import FILES, load

IMAGENET_CLASSES = 1000


def add_target(parser: argparse.ArgumentParser) -> None:
    """Declare what names a network."""
    parser.add_argument(
        "target",
        help="a finished run's folder, a folder or file of weights with config.json, hf-hub:USER/NAME, timm:NAME,"
        " or a .safetensors file of other libraries with --step",
    )
    parser.add_argument("--weights", choices=tuple(FILES), default="last", help="of a run: last, or averaged (ema)")
    parser.add_argument("--step", help="the network of weights that nothing describes")
    parser.add_argument(
        "--roadmap", choices=tuple(ROADMAPS), default=DEFAULT.name, help=f"whose step it is (default: {DEFAULT.name})"
    )
    parser.add_argument("--regime", choices=REGIMES, default="tiny", help="its size (default: tiny)")


def network_of(options: argparse.Namespace) -> RoadmapNet:
    """The network, as `roadmap.load` gives it. Raises WeightsError, InteropError, DesignError or SealError."""
    return load(
        options.target, weights=options.weights, step=options.step, regime=options.regime, roadmap=options.roadmap
    )


def folder_of(options: argparse.Namespace) -> Path:
    """Where what describes the target would lie."""
    path = Path(options.target)
    return path if path.is_dir() else path.parent


def class_names(model: RoadmapNet) -> tuple[str, ...]:
    """The names of its outputs; ImageNet's WordNet ids for a thousand without names; else empty."""
    known = (model.pretrained_cfg or {}).get("label_names")
    if known:
        return tuple(known)
    if model.num_classes != IMAGENET_CLASSES:
        return ()
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo().label_names())


def shown_names(model: RoadmapNet) -> tuple[str, ...]:
    """The names as a reader wants them: ImageNet's in words, numbers where there are none."""
    names = class_names(model) or tuple(map(str, range(model.num_classes)))
    if model.num_classes != IMAGENET_CLASSES:
        return names
    from timm.data import ImageNetInfo

    words: Any = ImageNetInfo().label_descriptions(as_dict=True)
    return tuple(words.get(name, name).split(",")[0] for name in names)
