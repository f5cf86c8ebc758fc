"""Kernel sizes side by side on several sets of other changes."""

import numpy as np
import pandas as pd
import pytest

from analysis.attribution.game import game_of
from analysis.attribution.kernels import KERNELS, kernel_curves

BEFORE = ("depthwise", "width")
GAINS = {3: 0.0, 5: 0.5, 7: 0.9, 9: 1.0, 11: 0.7}


def runs(contexts: dict[tuple[str, ...], float], sizes: tuple[int, ...], seeds: int = 3) -> pd.DataFrame:
    """Runs whose top-1 is a context's level plus GAINS, with a little noise that is the same for every set."""
    names = {size: name for name, size in KERNELS.items()}
    rows = []
    for context, level in contexts.items():
        for size in sizes:
            changes = [*context, *([names[size]] if size in names else [])]
            for seed in range(seeds):
                rows.append((" + ".join(changes).replace(" ", ""), seed, level + GAINS[size] + 0.1 * seed, "finished"))
    return pd.DataFrame(rows, columns=["changes", "seed", "top1", "status"])


def curves(frame: pd.DataFrame) -> list:
    game = game_of(frame)
    assert game is not None
    return kernel_curves(game)


def test_a_curve_per_context_with_the_gains_over_the_smallest_kernel() -> None:
    contexts = {BEFORE: 70.0, (*BEFORE, "move_up_depthwise"): 71.0, (*BEFORE, "inverted_bottleneck"): 69.0}
    found = curves(runs(contexts, tuple(GAINS)))
    assert [curve.name for curve in found] == ["neither", "inverted_bottleneck", "move_up_depthwise"]
    for curve, level in zip(found, (70.0, 69.0, 71.0), strict=True):
        assert curve.sizes == tuple(GAINS)
        assert np.subtract(curve.top1, level + 0.1) == pytest.approx(list(GAINS.values()))
        assert curve.gains.estimate == pytest.approx(list(GAINS.values())[1:])


def test_two_sizes_or_one_context_make_no_comparison() -> None:
    assert curves(runs({BEFORE: 70.0}, tuple(GAINS))) == []
    assert curves(runs({BEFORE: 70.0, (*BEFORE, "move_up_depthwise"): 71.0}, (3, 7))) == []
    assert curves(runs({BEFORE: 70.0, (*BEFORE, "move_up_depthwise"): 71.0}, (5, 7, 9))) == []


def test_a_diverged_set_has_no_mean_and_no_gain() -> None:
    frame = runs({BEFORE: 70.0, (*BEFORE, "move_up_depthwise"): 71.0}, (3, 5, 7))
    frame.loc[frame["changes"] == "+".join((*BEFORE, "kernel_7")), "status"] = "diverged"
    lost = curves(frame)[0]
    assert np.isnan(lost.top1[2])
    assert lost.gains.lost == (False, True)
    assert np.isnan(lost.gains.estimate).tolist() == [False, True]
