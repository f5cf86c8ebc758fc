"""How often an interval of the rank correlation holds it, and how often it sees agreement where there is none."""

import math
from collections.abc import Iterator

import numpy as np

from analysis.ladder import recipe_steps
from roadmap.effects.agreement import Reading, over_noise, over_steps, rank_correlation
from roadmap.effects.noise import Array
from roadmap.steps import DEFAULT

HEAD = ("case", "published noise", "own noise", "interval", "holds the truth", "excludes 0")
SPREAD = 0.8  # points: standard deviation of gains, about that of the published ones
SEEDS = 3
PUBLISHED_NOISE = 0.094  # points: the paper's seeds, pooled
CASES = {"unrelated": 0.0, "half alike": 0.5, "alike": 0.9, "the same order": 1.0}
NOISES = (0.1, 0.25, 0.6)


def rows(count: int) -> Iterator[tuple[str, ...]]:
    """A row per case, noise and kind of interval."""
    random = np.random.default_rng(0)
    weights = gains_of_levels()
    root = np.linalg.cholesky(weights @ weights.T / SEEDS)
    steps = len(weights)
    for case, alike in CASES.items():
        for noise in NOISES:
            held, excluded = [], []
            for i in range(count):
                theirs, other = SPREAD * random.standard_normal((2, steps))
                ours = alike * theirs + math.sqrt(1 - alike**2) * other
                own, published = (
                    Reading(truth + sigma * root @ random.standard_normal(steps), sigma**2 * root @ root.T)
                    for truth, sigma in ((ours, noise), (theirs, PUBLISHED_NOISE))
                )
                low, high = over_noise(own, published, seed=i)
                held.append(low - 1e-9 <= float(rank_correlation(ours, theirs)) <= high + 1e-9)
                low, high = over_steps(float(rank_correlation(own.gains, published.gains)), steps)
                excluded.append(low > 0 or high < 0)
            figures = (case, f"{PUBLISHED_NOISE}", f"{noise}")
            yield (*figures, "over noise", f"{np.mean(held):.1%}", "–")
            yield (*figures, "over steps", "–", f"{np.mean(excluded):.1%}")
    for case, drift in (("unrelated levels", 0.0), ("unrelated rising levels", 0.4)):
        levels = np.cumsum(drift + SPREAD * random.standard_normal((2, count, steps)), axis=-1)
        found = [over_steps(float(rho), steps) for rho in rank_correlation(levels[0], levels[1])]
        share = np.mean([low > 0 or high < 0 for low, high in found])
        yield case, "0", "0", "over steps, of top-1 instead of gains", "–", f"{share:.1%}"


def gains_of_levels() -> Array:
    """Weights (gains, steps) of the ConvNeXt roadmap's gains over the parents, the recipe's apart."""
    names = [step.name for step in DEFAULT.steps]
    apart = recipe_steps(DEFAULT)
    found = []
    for step in DEFAULT.steps:
        if step.parent is not None and step.name not in apart:
            row = np.zeros(len(names))
            row[names.index(step.name)], row[names.index(step.parent)] = 1, -1
            found.append(row)
    return np.array(found)
