"""Which sets to train next: those that take most from the interval of a question, given what finished."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from roadmap.effects.noise import quantile
from roadmap.effects.paired import drawn_sets
from roadmap.effects.subsets import Set, all_subsets, complement
from roadmap.effects.surrogate import Question, Surrogate, first_of_largest

ALL_OF = 10  # players of which every set is a candidate


def candidates(players: Set, seed: int = 0) -> list[Set]:
    """Sets that may be proposed: all of a small game, else drawn ones with their complements, and the smallest."""
    if len(players) <= ALL_OF:
        return all_subsets(players)
    drawn = [one for place in range(4) for one in drawn_sets(players, seed, place)]
    small = [one for size in (0, 1) for one in combinations(players, size)]
    both = [half for one in (*small, *drawn) for half in (one, complement(one, players))]
    return list(dict.fromkeys(both))


def propose(model: Surrogate, question: Question, among: Sequence[Set], count: int) -> tuple[list[Set], float, float]:
    """The sets to train, the first one first, and the question's mean half width before and after them.

    The variance of a sum after a further run does not depend on what the run will give, so that the sets are known
    at once. At the most probable variances, one run per set.
    """
    logs = model.mode
    noise = float(np.exp(logs[-1]))
    left = [one for one in among if one not in set(model.sets)]
    points, inside, rows = model.points, model.inside(logs), model.space.points(left)
    prior = np.diag(model.covariance(logs, rows, rows)) + noise
    own = model.covariance(logs, question.points, question.points)
    start = np.einsum("ij,jk,ik->i", question.weights, own, question.weights)
    chosen: list[int] = []
    widths = []
    for step in range(min(count, len(left)) + 1):
        inverse = np.linalg.inv(inside)
        across = question.weights @ model.covariance(logs, question.points, points)
        variance = start - np.einsum("ij,jk,ik->i", across, inverse, across)
        widths.append(float(quantile(np.inf) * np.sqrt(np.maximum(variance, 0)).mean() * model.scale))
        if step == min(count, len(left)):
            break
        seen = model.covariance(logs, points, rows)
        unknown = question.weights @ model.covariance(logs, question.points, rows) - across @ inverse @ seen
        gain = (unknown**2).sum(axis=0) / (prior - np.einsum("ji,jk,ki->i", seen, inverse, seen))
        gain[chosen] = -1
        best = first_of_largest(gain)
        chosen.append(best)
        points = np.concatenate([points, rows[best : best + 1]])
        inside = np.block([[inside, seen[:, best : best + 1]], [seen[:, best], prior[best]]])
    return [left[i] for i in chosen], widths[0], widths[-1]
