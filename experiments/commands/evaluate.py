"""`python -m experiments evaluate TARGET`: a trained network on its own data set or any other."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.commands.target import add_target, class_names, folder_of, network_of
from experiments.config.settings import PRECISIONS, Batch, Budget, Data, Recipe, Settings
from experiments.data import DataSource, open_data
from experiments.data.damage import EVALUATION
from experiments.data.from_files import FileSource
from experiments.data.patience import read_or_refuse
from experiments.data.readers import folder
from experiments.data.source import Pipeline
from experiments.errors import ConfigError, DataError
from experiments.runtime.device import autocast, pick_device, process_switches
from experiments.runtime.distributed import Ranks
from experiments.strict_json import MEBIBYTE, parse, read_bytes
from experiments.strict_yaml import read_mapping
from experiments.training.validate import Validation, validate
from roadmap.files import found, read
from roadmap.network import RoadmapNet
from roadmap.seals import check

REAL_LIMIT = 64 * MEBIBYTE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_target(parser)
    parser.add_argument("--data", help="a file of conf/data (default: that of the run; imagenet for other weights)")
    parser.add_argument(
        "--root", type=Path, help="the data set's folder: train/ and val/, val/ alone, or class folders alone"
    )
    parser.add_argument("--real", type=Path, help="ReaL labels of ImageNet's validation images (real.json)")
    parser.add_argument("--image-size", type=int, help="side in pixels (default: the network's)")
    parser.add_argument("--batch", type=int, default=64, help="images per forward pass")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=2)


def run(options: argparse.Namespace) -> int:
    """Evaluate and print one line; returns the exit code."""
    model = network_of(options)
    settings = _settings(options, model)
    device = pick_device(settings.device)
    with process_switches(device, settings.threads, settings.precision, settings.deterministic):
        source = _source(options, settings, device)
        try:
            model.to(device).to(memory_format=torch.channels_last)
            print(_scored(options, model, source, device))
        finally:
            source.close()
    return 0


def _scored(options: argparse.Namespace, model: RoadmapNet, source: DataSource, device: torch.device) -> str:
    if options.real:
        return _by_real_labels(options, model, source, device)
    columns = columns_of(class_names(model), model.num_classes, source.class_names)
    chosen = None if columns is None else torch.tensor(columns, device=device)
    score = validate(model, source, Ranks(), device=device, precision=options.precision, columns=chosen)
    return _line(score, source.damage.count)


def _line(score: Validation, replaced: int) -> str:
    """The scores; images of the same class have stood in for those that cannot be read."""
    line = f"top1 {score.top1:.2f}  top5 {score.top5:.2f}  loss {score.loss:.4f}  {score.images} images"
    return line + (f", {replaced} of them unreadable and replaced by others of their class" if replaced else "")


def columns_of(outputs: Sequence[str], count: int, classes: Sequence[str]) -> list[int] | None:
    """The outputs of a network that a data set is about, in the order of its classes; None for all as they are.

    Args:
        outputs: the names of its outputs, empty where they are not known.
        count: how many outputs it has.
        classes: the data set's class names; numbers (ImageNet-V2's folders) are outputs themselves.

    Raises:
        ConfigError: the network does not know a class.
    """
    place = {name: index for index, name in enumerate(outputs)}
    if set(classes) <= set(place):
        chosen = [place[name] for name in classes]
    elif all(name.isdecimal() and int(name) < count for name in classes):
        chosen = [int(name) for name in classes]
    elif not outputs and len(classes) == count:
        return None
    else:
        missing = [name for name in classes if name not in place]
        raise ConfigError(
            f"--data, --root: {len(missing)} of {len(classes)} classes are not among the network's {count}: "
            f"{', '.join(missing[:5])}"
        )
    return None if chosen == list(range(count)) else chosen


def _settings(options: argparse.Namespace, model: RoadmapNet) -> Settings:
    """Settings that say what evaluation needs: the data, and how the network wants its images."""
    data, limits = _data(options)
    wants: dict[str, Any] = model.pretrained_cfg or {}
    described = options.step is None and bool(wants)
    if described:
        limits = {"eval_crop": wants["crop_pct"], "interpolation": wants["interpolation"]}
        if data.channels == model.in_chans:
            data = dataclasses.replace(data, mean=tuple(wants["mean"]), std=tuple(wants["std"]))
    size = options.image_size or (wants["input_size"][-1] if described else data.image_size)
    root = str(options.root) if options.root else None
    return Settings(
        model.design,
        options.regime,
        Recipe(**limits),
        Budget("paper"),
        Batch(options.batch, options.batch),
        dataclasses.replace(data, root=root, checksum=None),
        image_size=size,
        precision=options.precision,
        device=options.device,
        workers=options.workers,
    )


def _data(options: argparse.Namespace) -> tuple[Data, dict[str, Any]]:
    """The data set that is asked for, else the run's own, and how its file wants evaluation images cropped."""
    if options.data is None:
        own = folder_of(options) / "config.yaml"
        if own.is_file():
            return _data_of_run(own), {}
        options.data = "imagenet"
    names = found("data")
    if options.data not in names:
        raise ConfigError(f"--data={options.data} is not one of: {', '.join(names)}")
    content = read(names[options.data])
    crop = {key: value for key, value in content.get("recipe", {}).items() if key in ("eval_crop", "interpolation")}
    return Data(**content["data"]), crop


def _data_of_run(path: Path) -> Data:
    check(path)
    try:
        values = read_mapping(path)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return Settings.from_dict({key: value for key, value in values.items() if key not in ("run_id", "config_id")}).data


def _source(options: argparse.Namespace, settings: Settings, device: torch.device) -> DataSource:
    """The open data set; class folders without a train/ beside them are evaluated as they are."""
    root = options.root
    if root is None or settings.data.reader != "folder" or (root / folder.TRAIN).is_dir():
        return open_data(settings, device=device, to_train=False)
    if not root.is_dir():
        raise DataError(f"--root={root} is not a folder")
    return FileSource(Pipeline.of(settings), read_or_refuse("--root", folder.evaluation_only, root), device)


def _by_real_labels(options: argparse.Namespace, model: RoadmapNet, source: DataSource, device: torch.device) -> str:
    """Top-1 by "Are we done with ImageNet?" (arXiv 2006.07159): any label of an image counts, images without none."""
    if options.root is None:
        raise ConfigError("--real needs --root, the folder of ImageNet's validation images")
    try:
        labels = parse(read_bytes(options.real, REAL_LIMIT))
    except (OSError, ValueError) as error:
        raise DataError(f"--real={options.real} is unreadable: {error}") from None
    if not isinstance(labels, list) or len(labels) != source.eval_size:
        raise DataError(f"--real={options.real} must list the labels of all {source.eval_size} images")
    files: Any = folder.evaluation_only(options.root).evaluation
    order = sorted(range(len(files)), key=lambda index: Path(files.names[index]).name)  # theirs is by file name
    predicted = _predicted(model, source, device, options.precision)
    damaged = set(source.damage.images(EVALUATION))  # what replaced them has other labels
    hits = [predicted[i] in own for i, own in zip(order, labels, strict=True) if own and i not in damaged]
    if not hits:
        raise DataError(f"--real={options.real} has no label for a readable image")
    left_out = f", unreadable and left out: {len(damaged)}" if damaged else ""
    return f"ReaL top1 {100 * sum(hits) / len(hits):.2f}  {len(hits)} images{left_out}"


@torch.no_grad()
def _predicted(model: RoadmapNet, source: DataSource, device: torch.device, precision: str) -> list[int]:
    """The likeliest output for each evaluation image, in their order."""
    found: list[int] = []
    for images, _ in source.evaluate():
        with autocast(precision, device):
            found += model(images).argmax(1).tolist()
    return found
