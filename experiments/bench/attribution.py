"""Shapley values from a budget of trained sets: ours beside random orders and shapiq's paired KernelSHAP.

Games whose values are known (roadmap.effects.games), one run per set, the noise of a run unknown to all. No network is
trained, so that the figures are the same on every device.
"""

import argparse
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from experiments.bench.options import at_least, chosen
from roadmap.effects import subsets
from roadmap.effects.contrasts import order_weights
from roadmap.effects.games import KINDS, DrawnGame
from roadmap.effects.noise import Array
from roadmap.effects.paired import paired_sets
from roadmap.effects.subsets import Set
from roadmap.effects.surrogate import Answer, Space, Surrogate, shapley_values, values_at

HELP = "Shapley values from few sets: error and coverage beside random orders and shapiq's paired KernelSHAP"
DESIGNS = 5  # different lists of paired sets, by the game's seed
UNTRAINED = 60  # sets per game that are predicted
NAME = "attribution"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--games", default="all", help=f"of: {', '.join(KINDS)}")
    parser.add_argument("--sets", type=int, default=105, help="that are trained, once each")
    parser.add_argument("--draws", type=int, default=50, help="games of each kind")


def run(options: argparse.Namespace, device: torch.device) -> tuple[str, list[dict[str, Any]]]:
    """A row per kind of game."""
    at_least("--sets", options.sets, 40)  # two pairs of orders of 15 players pass more
    at_least("--draws", options.draws)
    kinds = chosen("--games", options.games, list(KINDS))
    return NAME, [_row(kind, options.sets, options.draws) for kind in kinds]


def _row(kind: str, sets: int, draws: int) -> dict[str, Any]:
    """Mean absolute errors in points, and how often 95 % intervals hold what they should, in per cent."""
    found: dict[str, list[float]] = {}
    for seed in range(draws):
        for name, value in _measured(DrawnGame(kind, seed), sets, seed).items():
            found.setdefault(name, []).append(value)
    mean = {name: float(np.mean(values)) for name, values in found.items()}
    row: dict[str, Any] = {"game": kind, "players": KINDS[kind].players, "noise": KINDS[kind].noise}
    row |= {"error": mean.pop("error"), "error_of_orders": mean.pop("error_of_orders")}
    if "error_of_KernelSHAP" in mean:
        row["error_of_KernelSHAP"] = mean.pop("error_of_KernelSHAP")
        row["below_KernelSHAP"] = f"{100 * (1 - row['error'] / row['error_of_KernelSHAP']):.0f} %"
    return row | mean


def _measured(game: DrawnGame, sets: int, seed: int) -> dict[str, float]:
    true = game.shapley()
    model, answer = fitted(game, list(_paired(game.players, sets, seed % DESIGNS)))
    few = subsets.sets_of_orders(subsets.orders(game.players, 4, seed), game.players)
    _, answer_few = fitted(game, few)
    left_out = model.left_out()
    new = _untrained(game, model.sets, seed)
    return {
        "error": float(np.abs(answer.mean - true).mean()),
        "error_of_orders": float(np.abs(_by_orders(game, sets, seed) - true).mean()),
        **({"error_of_KernelSHAP": float(np.abs(kernel_shap(game, sets, seed) - true).mean())} if has_peer() else {}),
        "half_width": _half(answer),
        "covered": _covered(answer, true),
        "half_width_of_2_pairs_of_orders": _half(answer_few),
        "covered_by_2_pairs_of_orders": _covered(answer_few, true),
        "left_out_covered": _covered(left_out, game.trained(list(model.sets))),
        "untrained_covered": _covered(model.answer(values_at(model.space, new)), game.worth(game.member(new))),
    }


def fitted(game: DrawnGame, sets: list[Set]) -> tuple[Surrogate, Answer]:
    """The process over these sets, one run each, and its Shapley values."""
    space = Space(tuple((name,) for name in game.players))
    model = Surrogate(space, sets, game.trained(sets))
    return model, model.answer(shapley_values(space))


@cache
def _paired(players: Set, sets: int, seed: int) -> tuple[Set, ...]:
    return tuple(paired_sets(players, sets, seed))


def _untrained(game: DrawnGame, trained: tuple[Set, ...], seed: int) -> list[Set]:
    """Sets of all sizes alike that were not trained."""
    random = np.random.default_rng(seed)
    drawn = random.random((UNTRAINED, len(game.players))) < random.random((UNTRAINED, 1))
    found = [tuple(name for name, on in zip(game.players, row, strict=True) if on) for row in drawn.tolist()]
    return [one for one in found if one not in trained]


def _half(answer: Answer) -> float:
    low, high = answer.interval()
    return float((high - low).mean() / 2)


def _covered(answer: Answer, true: Array) -> float:
    low, high = answer.interval()
    return float(100 * ((low <= true) & (true <= high)).mean())


def _by_orders(game: DrawnGame, sets: int, seed: int) -> Array:
    """The mean gain over as many antithetic pairs of orders as pass no more sets."""
    pairs = 1
    while len(subsets.sets_of_orders(subsets.orders(game.players, 2 * pairs + 2, seed), game.players)) <= sets:
        pairs += 1
    used, weights = order_weights(subsets.orders(game.players, 2 * pairs, seed), game.players)
    found: Array = weights.mean(axis=0) @ game.trained(used)
    return found


def has_peer() -> bool:
    """Whether shapiq is installed; it is no dependency."""
    return find_spec("shapiq") is not None


def kernel_shap(game: DrawnGame, sets: int, seed: int) -> Array:
    """The same from shapiq's KernelSHAP with its pairing trick, for as many sets."""
    from shapiq.approximator import KernelSHAP

    players = game.players

    def worth(rows: Array) -> Array:
        return game.trained([tuple(name for name, on in zip(players, row, strict=True) if on) for row in rows])

    found = KernelSHAP(n=len(players), pairing_trick=True, random_state=seed).approximate(sets, worth)
    return np.array([found[(i,)] for i in range(len(players))])
