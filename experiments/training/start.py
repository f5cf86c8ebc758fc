"""What a run starts from beside its seed: weights that exist already, and parts of them that stay as they are."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

from torch import nn

from experiments.config.settings import Settings
from experiments.errors import ConfigError
from experiments.store.tensor_file import entry_of
from roadmap.network import RoadmapNet
from roadmap.pretrained import Pretrained
from roadmap.weights import Weights, find_weights, fitted, sizes_of


def with_weights(settings: Settings) -> Settings:
    """The settings with the hash of the weights that they start from.

    Raises:
        WeightsError: the weights are missing or damaged.
        ConfigError: they are not what they were when the run was planned.
    """
    if settings.init_from is None:
        return settings
    found = weights_hash(settings.init_from)
    if settings.init_weights not in (None, found):
        raise ConfigError(f"init_from={settings.init_from} has changed since the study was planned; use replan=true")
    return settings.replace(init_weights=found)


def weights_hash(source: str) -> str:
    """64 hex digits that stand for the names, types, shapes and values of all weights, however the file is laid out."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_weights(source).state_dict.items()):
        digest.update(f"{name} {entry_of(tensor)}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=1)  # hashed, then put into the network
def _weights(source: str) -> Weights:
    return find_weights(source)


def start_from_weights(model: RoadmapNet, settings: Settings) -> None:
    """Put the weights of `init_from` into a new network; a classifier for other classes stays new, as in timm.

    Raises:
        WeightsError, InteropError: they are of another network; the message names what differs.
    """
    if settings.init_from is None:
        return
    weights = _weights(settings.init_from).state_dict
    classes, channels = sizes_of(settings.design, weights)
    described = Pretrained(settings.design, classes, channels)
    model.load_state_dict({**model.state_dict(), **fitted(weights, described, model.num_classes, model.in_chans)})


def freeze(model: nn.Module, names: Sequence[str]) -> tuple[nn.Module, ...]:
    """Take parts of the network out of training; returns them.

    Raises:
        ConfigError: a name that is no part, or parts that leave nothing to train.
    """
    parts = dict(model.named_modules())
    for name in names:
        if name not in parts or not name:
            known = ", ".join([*dict(model.named_children()), "stages.0"])
            raise ConfigError(f"recipe.freeze={name!r} is no part of the network; there are: {known}, ...")
        parts[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"recipe.freeze=[{','.join(names)}] leaves nothing to train")
    return tuple(parts[name] for name in names)
