"""`python -m experiments evaluate RUN_OR_WEIGHTS`: a finished run or published weights on any data set."""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from experiments.config.settings import PRECISIONS, Batch, Budget, Data, Recipe, Settings
from experiments.data import DataSource, open_data
from experiments.errors import ConfigError
from experiments.runtime.device import pick_device, process_switches
from experiments.runtime.distributed import Ranks
from experiments.store.checkpoint import load_weights
from experiments.store.run_dir import RunDir
from experiments.training.validate import Validation, validate
from roadmap import build, design_for
from roadmap.files import CONF
from roadmap.interop import load_reference
from roadmap.regimes import REGIMES
from roadmap.steps import DEFAULT, END, ROADMAPS, START

LAYER_SCALE = 1e-6  # what published ConvNeXt weights were trained with; its value is in the weights
CLASSIFIER_BIASES = ("fc.bias", "head.fc.bias", "classifier.2.bias", "head.bias")  # in the layouts of others
WORDNET_ID = re.compile(r"n\d{8}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("target", type=Path, help="a finished run's directory, or a .safetensors file of weights")
    parser.add_argument("--data", help="a file of conf/data (default: the run's own; imagenet for weights)")
    parser.add_argument("--root", help="the data set's folder")
    parser.add_argument("--image-size", type=int, help="side in pixels (default: the run's, or the data set's)")
    parser.add_argument("--step", help="the network of a weights file")
    parser.add_argument(
        "--roadmap", choices=tuple(ROADMAPS), default=DEFAULT.name, help=f"whose step it is (default: {DEFAULT.name})"
    )
    parser.add_argument("--regime", choices=REGIMES, default="tiny", help="its size (default: tiny)")
    parser.add_argument("--batch", type=int, default=64, help="images per forward pass")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: the run's, or fp32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=2)


def run(options: argparse.Namespace) -> int:
    """Evaluate and print one line; returns the exit code."""
    found = validation_of(options)
    print(f"top1 {found.top1:.2f}  loss {found.loss:.4f}  {found.images} images")
    return 0


def validation_of(options: argparse.Namespace) -> Validation:
    """The validation of what `options.target` names. Raises ConfigError, DataError or StorageError."""
    finished = options.target.is_dir()
    settings = _of_run(options) if finished else _of_weights(options)
    device = pick_device(settings.device)
    with process_switches(device, settings.threads, settings.precision, settings.deterministic):
        source = open_data(settings, device=device)
        try:
            model = _load_run(options.target) if finished else _load_reference(options.target, settings)
            model.to(device).to(memory_format=torch.channels_last)
            columns = _columns(model, source, device)
            return validate(model, source, Ranks(), device=device, precision=settings.precision, columns=columns)
        finally:
            source.close()


def _of_run(options: argparse.Namespace) -> Settings:
    """The settings of a finished run, with what the command line says about data and machine."""
    if RunDir(options.target).state() != "finished":
        raise ConfigError(f"{options.target} is not a finished run: it has no sealed result.json")
    settings = _read_settings(options.target)
    own = settings.data if options.data is None else _data(options.data)[0]
    size = options.image_size or (settings.image_size if options.data is None else own.image_size)
    return _here(settings, options, own, size, settings.recipe)


def _of_weights(options: argparse.Namespace) -> Settings:
    """Settings that describe the network of a weights file, as far as evaluation needs them."""
    if not options.target.is_file():
        raise ConfigError(f"{options.target} is neither a run's directory nor a weights file")
    if options.step is None:
        raise ConfigError(f"--step is needed for a weights file: {START.name}, {END.name} or another published network")
    data, limits = _data(options.data or "imagenet")
    scale = LAYER_SCALE if options.step == END.name else None
    design = design_for(options.step, options.regime, roadmap=options.roadmap, layer_scale=scale)
    blank = Settings(design, options.regime, Recipe(), Budget("paper"), Batch(), data, label=options.step)
    return _here(blank, options, data, options.image_size or data.image_size, Recipe(**limits))


def _here(settings: Settings, options: argparse.Namespace, data: Data, size: int, recipe: Recipe) -> Settings:
    return settings.replace(
        data=dataclasses.replace(data, root=options.root, checksum=None),
        recipe=recipe,
        image_size=size,
        batch=Batch(options.batch, options.batch),
        precision=options.precision or settings.precision,
        device=options.device,
        workers=options.workers,
    )


def _data(name: str) -> tuple[Data, dict[str, Any]]:
    """The data set of conf/data/<name>.yaml, and how it wants its evaluation images cropped."""
    names = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))
    if name not in names:
        raise ConfigError(f"--data={name} is not one of: {', '.join(names)}")
    content = yaml.safe_load((CONF / "data" / f"{name}.yaml").read_text())
    crop = {key: value for key, value in content.get("recipe", {}).items() if key in ("eval_crop", "interpolation")}
    return Data(**content["data"]), crop


def _read_settings(folder: Path) -> Settings:
    """The settings in a run's config.yaml."""
    try:
        values = yaml.safe_load(RunDir(folder).config.read_text())
        return Settings.from_dict({key: value for key, value in values.items() if key not in ("run_id", "config_id")})
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise ConfigError(f"{RunDir(folder).config} is unreadable: {error}".splitlines()[0]) from None


def _load_run(folder: Path) -> nn.Module:
    """The network of a finished run with its final weights."""
    settings, weights = _read_settings(folder), load_weights(RunDir(folder).weights)
    classes, channels = weights["head.fc.weight"].shape[0], settings.data.channels
    model = build(settings.design, num_classes=classes, in_chans=channels)
    model.load_state_dict(weights)
    return model


def _load_reference(path: Path, settings: Settings) -> nn.Module:
    """The network that `settings` describe with torchvision's, timm's or the authors' weights."""
    weights = load_weights(path)
    biases: Sequence[Tensor] = [tensor for name, tensor in weights.items() if name in CLASSIFIER_BIASES]
    if len(biases) != 1:
        raise ConfigError(f"{path} holds no classifier of torchvision, timm or the authors ({CLASSIFIER_BIASES})")
    model = build(settings.design, num_classes=len(biases[0]), in_chans=settings.data.channels)
    load_reference(model, weights)
    return model


def _columns(model: nn.Module, source: DataSource, device: torch.device) -> Tensor | None:
    """Which outputs of an ImageNet network a data set of some of its classes (folders named n01440764) is about."""
    known = int(model.get_classifier().out_features)  # type: ignore[operator]
    if known == source.num_classes:
        return None
    names = source.class_names
    if known != 1000 or not all(WORDNET_ID.fullmatch(name) for name in names):
        raise ConfigError(f"the network knows {known} classes, the data set has {source.num_classes}")
    from timm.data import ImageNetInfo

    order = ImageNetInfo().label_names()
    missing = [name for name in names if name not in order]
    if missing:
        raise ConfigError(f"class folders that are not among ImageNet's 1000: {', '.join(missing[:5])}")
    return torch.tensor([order.index(name) for name in names], device=device)
