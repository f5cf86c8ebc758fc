"""Images per second of the published networks, measured on one device by `python -m experiments bench step --rows all`.

The paper gives accuracies and GFLOPs, but no speeds that hold on another machine.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import ConfigError
from roadmap.steps import ROADMAPS

REGIME = "tiny"  # which `bench step` measures
SIZE = 224  # px, at which the paper's accuracies hold
SWIN = "timm swin_tiny"
_NAME = re.compile(rf"step {SIZE}px (\w+ \w+)")


@dataclass(frozen=True)
class Speeds:
    """Training speeds: `of` maps a step's name, or SWIN, to images per second; `where` says on what."""

    where: str
    of: dict[str, float]


NO_SPEEDS = Speeds("", {})


def read_speeds(path: Path) -> Speeds:
    """The benchmark at 224 px with the most rows of the ladder in a file of results/bench. Raises ConfigError."""
    try:
        content = json.loads(path.read_text())
        found = [_speeds(content["device"], name, bench) for name, bench in content["benchmarks"].items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"--speeds {path} is no file of `python -m experiments bench` ({error!r:.80})") from None
    usable = [speeds for speeds in found if speeds is not None and len(speeds.of) > 1]
    if not usable:
        command = f"python -m experiments bench step --rows all --size {SIZE}"
        raise ConfigError(f"--speeds {path} has no steps at {SIZE} px; measure them: {command}")
    return max(usable, key=lambda speeds: len(speeds.of))


def _speeds(device: str, name: str, bench: dict[str, Any]) -> Speeds | None:
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    known = {SWIN, *(step.name for road in ROADMAPS.values() for step in road.steps)}
    of = {row["network"]: float(row["images_per_second"]) for row in bench["rows"] if row["network"] in known}
    return Speeds(f"{match[1]}, {device}", of)
