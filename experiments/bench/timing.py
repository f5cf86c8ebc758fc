"""Interleaved timing: contenders take turns, so that a drifting machine slows all of them alike."""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

MIN_ROUNDS = 9  # identical modules differ by up to 13 % over five rounds


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as its peer a contender is: round by round, then the median and the range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float], peer_seconds: Sequence[float]) -> "Ratio":
        """Ratios of the peer's time to ours in each round; above 1 we are faster."""
        ratios = [peer / ours for ours, peer in zip(seconds, peer_seconds, strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios))


def interleave(
    contenders: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds per call of each contender in each round: warm-up first, then turns in an order shuffled for each round.

    A fixed or mirrored order would favour whoever runs behind a like contender, whose memory is still in the caches.
    On a GPU the clock is read after the device has finished.
    """
    for call in contenders.values():
        for _ in range(warmup):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(contenders), len(contenders)):
            seconds[name].append(_timed(contenders[name], device))
    return seconds


def _timed(call: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
