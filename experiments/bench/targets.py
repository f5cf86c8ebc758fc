"""What the project aims at in speed, and which recorded row says how far it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.bench.options import ENDS


@dataclass(frozen=True)
class Target:
    """An aim for one recorded figure: `key` of the row of `benchmark` in which every pair of `where` stands."""

    what: str
    benchmark: str
    where: Mapping[str, str]
    bound: float
    key: str = "ratio"
    at_most: bool = False

    @property
    def aim(self) -> str:
        """The bound as text."""
        return f"{'at most' if self.at_most else 'at least'} {self.bound:g}"

    def covers(self, row: Mapping[str, Any]) -> bool:
        """Whether a recorded row is the one; a value may go on after what is asked for."""
        return self.key in row and all(_begins(str(row.get(key, "")), value) for key, value in self.where.items())

    def measured(self, row: Mapping[str, Any]) -> tuple[str, float]:
        """The figure as text, a ratio with its range, and as a number: the one that the text shows."""
        value = float(row[self.key])
        if self.key == "ratio":
            return f"{value:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})", round(value, 2)
        return f"{value:.3g}", value

    def reached(self, value: float) -> bool:
        """Whether a figure is what was aimed at."""
        return value <= self.bound if self.at_most else value >= self.bound


def _begins(text: str, start: str) -> bool:
    """Whether a text is `start`, or goes on behind it with a new word that is no other form of it."""
    return text == start or text.startswith(f"{start} ") or not start


def _step(size: int, precision: str, mode: str) -> list[Target]:
    """Both ends of the ladder beside the networks that they equal."""
    name = f"step {size}px {precision} {mode}"
    pairs = zip(ENDS, ("torchvision resnet50", "timm convnext_tiny"), strict=True)
    return [
        Target(f"step, {size} px, {precision}, {mode}: `{row}` / {peer}", name, {"network": row, "peer": peer}, 1.0)
        for row, peer in pairs
    ]


def _apart(size: int) -> Target:
    """ConvNeXt-T as it trains in use, beside timm's as it does."""
    where = {"network": ENDS[1], "peer": "timm convnext_tiny"}
    text = f"step, {size} px, fp32, eager, a process each: `{ENDS[1]}` / timm convnext_tiny"
    return Target(text, f"step {size}px fp32 eager, apart", where, 1.25)


def _loop(peer: str, text: str, bound: float) -> Target:
    return Target(f"training loop / {text}", "loop 32px fp32", {"peer": peer}, bound)


def _large(row: str, bound: float) -> Target:
    return Target(f"JPEG folder, 224 px: {row} / timm's loader", "large images 224px", {"large images": row}, bound)


TARGETS: tuple[Target, ...] = (
    *_step(32, "fp32", "eager"),
    *_step(224, "fp32", "eager"),
    _apart(32),
    _apart(224),
    *_step(224, "bf16", "eager"),
    *_step(32, "fp32", "compiled"),
    _loop("a bare loop", "bare forward, backward, optimizer", 0.97),
    _loop("timm's parts, 2 workers", "timm's parts", 1.0),
    Target("host synchronisations per step", "profile 32px fp32", {"part": "host"}, 0, "per_step", at_most=True),
    Target("32 px grey in memory / timm's loader", "small images 32px", {"pipeline": "grey"}, 5),
    Target("32 px RGB in memory / timm's loader", "small images 32px", {"pipeline": "RGB"}, 5),
    _large("images per second", 1.5),
    _large("seconds to the first batch", 2.0),
    Target("start to first step / timm's parts", "start", {"peer": "timm's parts"}, 1.0),
    Target("micro ladder as a study / starts of timm's parts", "many small runs", {"study": ""}, 5),
)
