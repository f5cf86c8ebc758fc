"""Options that several benchmarks share, and the refusals that go with them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.bench.timing import MIN_ROUNDS
from experiments.errors import ConfigError
from roadmap.steps import END, START, STEPS

ENDS = (START.name, END.name)
PRECISIONS = ("fp32", "bf16", "fp16")


def add_place(parser: argparse.ArgumentParser) -> None:
    """Where to measure and where to record: --device, --threads, --out."""
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="folder of <device>.json")


def add_rounds(parser: argparse.ArgumentParser) -> None:
    """How often contenders take turns."""
    parser.add_argument("--rounds", type=int, default=MIN_ROUNDS, help=f"at least {MIN_ROUNDS}")


def check_rounds(rounds: int) -> None:
    """Refuse a ratio from too few rounds."""
    if rounds < MIN_ROUNDS:
        raise ConfigError(f"--rounds={rounds} must be at least {MIN_ROUNDS}: fewer do not tell 13 % from nothing")


def chosen(option: str, text: str, allowed: Sequence[str]) -> list[str]:
    """A comma-separated choice, `all` included; ConfigError names what is allowed."""
    names = list(allowed) if text == "all" else [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in allowed:
            raise ConfigError(f"{option}: {name!r} is not one of: {', '.join(allowed)}")
    if not names:
        raise ConfigError(f"{option} is empty; name one or more of: {', '.join(allowed)}")
    return names


def chosen_rows(text: str) -> list[str]:
    """Steps of the ladder, comma-separated, or `all`."""
    return chosen("--rows", text, [step.name for step in STEPS])


def at_least(option: str, value: int, low: int = 1) -> None:
    """ConfigError where a count is too small."""
    if value < low:
        raise ConfigError(f"{option}={value} must be at least {low}")
