"""`python -m experiments export TARGET --format FORMAT --out PATH`: a trained network for other programs."""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.commands.model_card import card
from experiments.commands.target import add_target, folder_of, network_of
from experiments.errors import ConfigError, MissingExtraError
from experiments.store import atomic
from experiments.store.result import read_result
from experiments.store.tensor_file import save_weights
from experiments.strict_json import dump
from roadmap.network import RoadmapNet
from roadmap.pretrained import CONFIG, Pretrained
from roadmap.seals import RECORD
from roadmap.weights import HUB_FILES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_target(parser)
    parser.add_argument("--format", choices=tuple(FORMATS), required=True, help="what is written")
    parser.add_argument("--out", type=Path, required=True, help="the file, or for hub the folder, to write")


def run(options: argparse.Namespace) -> int:
    """Write the export and say where it is. Raises ConfigError where that is a finished run's own folder."""
    place = options.out if options.format == "hub" else options.out.parent
    if (place / RECORD).exists():
        raise ConfigError(f"--out={options.out} lies in the folder of a finished run, whose files are sealed")
    model = network_of(options)
    FORMATS[options.format](model, options)
    print(options.out)
    return 0


def hub_folder(model: RoadmapNet, options: argparse.Namespace) -> None:
    """model.safetensors, config.json and a model card: what timm, the Hub and `roadmap.load` take."""
    folder: Path = options.out
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out={folder} is a file; --format hub writes a folder")
    atomic.make_folder(folder)
    config = described(model, options).config()
    record = folder_of(options) / RECORD
    text = card(config, read_result(record) if record.is_file() else None)
    save_weights(folder / HUB_FILES[1], model.state_dict())
    atomic.replace(folder / CONFIG, [dump(config, indent=1)])
    atomic.replace(folder / "README.md", [text.encode()])


def described(model: RoadmapNet, options: argparse.Namespace) -> Pretrained:
    """What lies beside the target's weights; for weights that nothing describes, what is known of them."""
    beside = Pretrained.beside(folder_of(options)) if options.step is None else None
    known = beside or Pretrained(model.design, about={"regime": options.regime, "step": options.step})
    return known.of(model)


def _safetensors(model: RoadmapNet, options: argparse.Namespace) -> None:
    """Weights, and beside them the config.json that describes them."""
    save_weights(options.out, model.state_dict())
    atomic.replace(options.out.with_name(CONFIG), [dump(described(model, options).config(), indent=1)])


def _torch_export(model: RoadmapNet, options: argparse.Namespace) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (_example(model),), dynamic_shapes={"x": {0: batch}})
    torch.export.save(program, options.out)


def _onnx(model: RoadmapNet, options: argparse.Namespace) -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise MissingExtraError("--format onnx needs onnx and onnxscript: pip install onnx onnxscript") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (_example(model),),
            options.out,
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"x": {0: "batch"}},
        )


def _example(model: RoadmapNet) -> Tensor:
    size: Any = (model.pretrained_cfg or {}).get("input_size") or (model.in_chans, 224, 224)
    return torch.zeros(2, *size)


FORMATS: dict[str, Callable[[RoadmapNet, argparse.Namespace], None]] = {
    "hub": hub_folder,
    "safetensors": _safetensors,
    "onnx": _onnx,
    "torch-export": _torch_export,
}
