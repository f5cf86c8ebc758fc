"""Trained networks from disk, from the Hub or from a state dict: `roadmap.load`."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from roadmap import seals
from roadmap.design import Design
from roadmap.fit import WeightsError, check_fit
from roadmap.interop import from_reference, sizes_in
from roadmap.network import RoadmapNet
from roadmap.pretrained import CLASSIFIER, FIRST_CONV, HUB, TIMM, Pretrained
from roadmap.resolve import design_for
from roadmap.steps import DEFAULT

HUB_FILES = ("config.json", "model.safetensors")
# what `weights` may ask for -> the files that hold it, the first that exists: in a run, in a folder of the Hub
FILES = {"last": ("last.safetensors", "model.safetensors"), "ema": ("ema.safetensors",)}
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl")
CONVERT = (
    'python -c "import sys, torch; from safetensors.torch import save_file; d = torch.load(sys.argv[1], '
    "weights_only=True); d = d.get('model', d.get('state_dict', d)); save_file({k: v.contiguous() for k, v in "
    'd.items()}, sys.argv[2])"'
)

Source = str | Path | Mapping[str, Tensor]


class Weights(NamedTuple):
    """A state dict as it was found, and what lay beside it; `pretrained` is None where nothing did."""

    state_dict: Mapping[str, Tensor]
    pretrained: Pretrained | None


def load(
    source: Source,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    weights: str = "last",
    step: str | None = None,
    regime: str = "tiny",
    roadmap: str = DEFAULT.name,
    **flags: Any,
) -> RoadmapNet:
    """A trained network in evaluation mode, on the CPU.

    Args:
        source: the folder of a finished run; a folder with `config.json` and `model.safetensors`; a `.safetensors`
            file, with `config.json` beside it unless `step` says what it is; "hf-hub:USER/NAME", downloaded;
            "timm:NAME" as "timm:resnet50.tv_in1k", downloaded; or a state dict, of ours or of torchvision, timm or
            the authors' release.
        num_classes: another number than the weights have gives a fresh classifier, 0 none.
        in_chans: another number sums or repeats the first convolution's weights, as timm does.
        weights: "last", or "ema" for the averaged weights of a run with recipe.ema.
        step: the network, where nothing beside the weights says it.
        regime: its size.
        roadmap: whose step it is.
        **flags: fields of `Design` that differ.

    Raises:
        WeightsError: there are no weights, or they do not fit the network; the message names the flag that differs.
        SealError: they, or what describes them, are not what the run's record sealed.
        InteropError: likewise for another library's.
        DesignError: an unknown step or flag.
    """
    found = find_weights(source, weights)
    pretrained = _described(found, source, step, regime, roadmap, flags)
    classes = pretrained.num_classes if num_classes is None else num_classes
    channels = pretrained.in_chans if in_chans is None else in_chans
    model = RoadmapNet(pretrained.design, classes, channels)
    model.load_state_dict({**model.state_dict(), **fitted(found.state_dict, pretrained, classes, channels)})
    if classes == pretrained.num_classes:
        model.pretrained_cfg = model.default_cfg = {
            **pretrained.pretrained_cfg(),
            "label_names": pretrained.label_names or None,
        }
    return model.eval()


def find_weights(source: Source, weights: str = "last") -> Weights:
    """The state dict that `load` takes, on the CPU, and what describes it. Raises WeightsError or SealError."""
    if isinstance(source, Mapping):
        return Weights(source, None)
    if str(source).startswith(TIMM):
        return Weights(_downloaded_of_timm(str(source).removeprefix(TIMM)), None)
    path = _downloaded(str(source).removeprefix(HUB)) if str(source).startswith(HUB) else Path(source)
    if not path.exists():
        raise WeightsError(
            f"{source} does not exist: it must be a run's folder, a folder with model.safetensors, "
            f"a .safetensors file, {HUB}USER/NAME or {TIMM}NAME"
        )
    file = weights_file(path, weights) if path.is_dir() else path
    seals.check(file)
    beside = path if path.is_dir() else file.parent
    return Weights(read_weights(file), Pretrained.beside(beside) or Pretrained.beside(file.parent))


def weights_file(folder: Path, weights: str = "last") -> Path:
    """The file of a run's folder, or of one for the Hub, that holds the last or the averaged weights."""
    if weights not in FILES:
        raise WeightsError(f"weights={weights!r} is not one of: {', '.join(FILES)}")
    for place in (folder, _sealed_start(folder)):
        for name in FILES[weights]:
            if (place / name).is_file():
                return place / name
    reason = "its run had no recipe.ema" if weights == "ema" else "a run has them once it is finished"
    raise WeightsError(f"{folder} holds no {' or '.join(FILES[weights])}: {reason}")


def _sealed_start(folder: Path) -> Path:
    """Where the files of a run lie that was killed while its start's files moved to the run's folder."""
    try:
        return folder / "starts" / Path(json.loads((folder / "result.json").read_bytes())["starts"][-1]["start"]).name
    except (OSError, ValueError, LookupError, TypeError):
        return folder


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file. Raises WeightsError; a pickle is refused with the line that converts it."""
    if path.name.lower().endswith(PICKLES):
        converted = path.with_suffix(".safetensors").name
        raise WeightsError(
            f"{path} is a pickle, which can run code when it is read; where you trust it, convert it once: "
            f"{CONVERT} {path.name} {converted}"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a safetensors file ({str(error).splitlines()[0][:200]})") from None


def fitted(
    state_dict: Mapping[str, Tensor], pretrained: Pretrained, num_classes: int, in_chans: int
) -> dict[str, Tensor]:
    """Weights under our names, for another number of classes or channels: without a classifier that does not fit.

    Raises:
        WeightsError, InteropError: they are not of the network that `pretrained` says they are.
    """
    with torch.device("meta"):
        own = RoadmapNet(pretrained.design, pretrained.num_classes, pretrained.in_chans).state_dict()
    ours = dict(state_dict if is_ours(state_dict) else from_reference(own, pretrained.design, state_dict))
    check_fit(own, ours)
    if num_classes != pretrained.num_classes:
        ours = {key: value for key, value in ours.items() if not key.startswith(f"{CLASSIFIER}.")}
    if in_chans != pretrained.in_chans:
        from timm.models import adapt_input_conv  # takes seconds

        first = f"{FIRST_CONV}.weight"
        ours[first] = adapt_input_conv(in_chans, ours[first], pretrained.in_chans)
    return ours


def is_ours(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has our names; torchvision, timm and the authors call no convolution so."""
    return f"{FIRST_CONV}.weight" in state_dict


def _described(
    found: Weights, source: Source, step: str | None, regime: str, roadmap: str, flags: Mapping[str, Any]
) -> Pretrained:
    """What the weights are of: as it stands beside them, or as the caller says."""
    if step is not None:
        scaled = {"layer_scale": 1e-6} if any(n.endswith(("gamma", "layer_scale")) for n in found.state_dict) else {}
        known = Pretrained(design_for(step, regime, roadmap=roadmap, **{**scaled, **flags}))
    elif found.pretrained is not None:
        known = dataclasses.replace(found.pretrained, design=found.pretrained.design.replace(**flags))
    else:
        named = "a state dict" if isinstance(source, Mapping) else str(source)
        raise WeightsError(f"nothing says which network {named} is of: add step=NAME, e.g. step=resnet50")
    classes, channels = sizes_of(known.design, found.state_dict)
    return dataclasses.replace(known, num_classes=classes, in_chans=channels)


def sizes_of(design: Design, state_dict: Mapping[str, Tensor]) -> tuple[int, int]:
    """Classes (0: no classifier) and channels of a state dict."""
    if not is_ours(state_dict):
        return sizes_in(design, state_dict)
    classifier = state_dict.get(f"{CLASSIFIER}.weight")
    return 0 if classifier is None else len(classifier), state_dict[f"{FIRST_CONV}.weight"].shape[1]


def _downloaded(name: str) -> Path:
    """The folder of a model of the Hub, fetched unless it is there already."""
    from huggingface_hub import snapshot_download

    with _hub_errors(f"{HUB}{name}"):
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))


def _downloaded_of_timm(name: str) -> dict[str, Tensor]:
    """Timm's or, as timm keeps them, torchvision's weights of a name with its tag: resnet50.tv_in1k."""
    from huggingface_hub import hf_hub_download
    from timm.models import get_pretrained_cfg

    try:
        place = getattr(get_pretrained_cfg(name), "hf_hub_id", None)
    except RuntimeError:
        place = None
    if place is None:
        raise WeightsError(f"{TIMM}{name}: timm knows no weights of that name; timm.list_pretrained() lists them")
    with _hub_errors(f"{TIMM}{name}"):
        return read_weights(Path(hf_hub_download(place, "model.safetensors")))


@contextmanager
def _hub_errors(source: str) -> Iterator[None]:
    """What the Hub's library refuses or cannot reach, as one line."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise WeightsError(f"{source} cannot be downloaded ({reason[:200]})") from None
