"""The network of `init_from`: a run that starts from weights and names no step is of the network that they are of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.errors import ConfigError
from roadmap.changes import FILES
from roadmap.pretrained import HUB, TIMM, Pretrained
from roadmap.regimes import REGIMES


def network_of(config: Mapping[str, Any]) -> Pretrained | None:
    """What lies beside the weights that a run starts from; None where it starts from none or says itself what it is.

    Raises:
        ConfigError: nothing says which network the weights are of, or they are of another regime than the config.
        WeightsError: there are no such weights.
    """
    place = config["init_from"]
    if place is None or config["step"] or config["add"] or config["drop"] or config["match_gmacs"] is not None:
        return None
    found = _described(place)
    if found is None:
        raise ConfigError(f"init_from={place}: nothing says which network it is; add it, e.g. +step=resnet50")
    regime = found.about.get("regime")
    if regime in REGIMES and regime != config["regime"]["name"]:  # the recipe's stochastic depth follows the regime
        raise ConfigError(f"init_from={place} is a network of regime={regime}: add regime={regime}")
    return found


def network_changes(found: Pretrained) -> tuple[str, ...]:
    """The changes of the network that weights come from, as far as they are known here; how it was trained is past."""
    names = found.about.get("changes") or ()
    return tuple(name for name in names if name in FILES and not FILES[name].trains_otherwise)


def _described(place: str) -> Pretrained | None:
    if place.startswith(TIMM):
        return None
    if place.startswith(HUB):
        from roadmap.weights import find_weights  # imports torch, and may download

        return find_weights(place).pretrained
    path = Path(place)
    if not path.exists():
        raise ConfigError(
            f"init_from={place} does not exist: it is a run's folder, a .safetensors file, {HUB}USER/NAME or {TIMM}NAME"
        )
    return Pretrained.beside(path if path.is_dir() else path.parent)
