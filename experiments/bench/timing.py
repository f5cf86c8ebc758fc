"""Interleaved timing: contenders take turns, so that a drifting machine slows all of them alike."""

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from experiments.runtime.device import synchronize

MIN_ROUNDS = 9  # identical modules differ by up to 13 % over five rounds


def ratio(ours: Sequence[float], peer: Sequence[float]) -> dict[str, float]:
    """How many times as fast as its peer a contender is, from the seconds of each round: median and range.

    Above 1 we are faster.
    """
    ratios = [theirs / mine for mine, theirs in zip(ours, peer, strict=True)]
    return {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}


def turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Every name once per round, in an order shuffled for each round.

    A fixed or mirrored order would favour whoever runs behind a like contender, whose memory is still in the caches.
    """
    order = random.Random(0)
    for _ in range(rounds):
        yield from order.sample(list(names), len(names))


def interleave(
    contenders: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds per call of each contender in each round: warm-up first, then turns.

    On a GPU the clock is read after the device has finished.
    """
    for call in contenders.values():
        for _ in range(warmup):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for name in turns(list(contenders), rounds):
        seconds[name].append(_timed(contenders[name], device))
    return seconds


def _timed(call: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - began
