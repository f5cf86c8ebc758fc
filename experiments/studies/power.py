"""What a study will be able to tell: how many distinct sets it needs, the 95 % intervals to expect and the power.

Both follow from the plan (which sets, how many seeds) and the noise of a run; the weights are those with which
the analysis computes the effects. Imports neither torch nor hydra.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from experiments.config.identity import Identity
from experiments.config.settings import Settings
from experiments.errors import ConfigError
from experiments.store.run_dir import RunDir, read_result
from experiments.studies.frozen import FrozenStudy
from roadmap import paper
from roadmap.effects import contrasts
from roadmap.effects.noise import AdditiveModel, Array, joint_df, pooled, quantile, variances
from roadmap.effects.subsets import Set
from roadmap.effects.testing import MARGIN, MOST_SEEDS, detectable, seeds_needed
from roadmap.resolve import canonical
from roadmap.steps import Roadmap, in_order, roadmap_named

PAPER_IMAGES = 50_000  # ImageNet's validation set, on which the paper's seeds were scored
LEAST_DF = 3  # of the finished runs' residuals: below this they say less about the noise than the assumption
GAIN = "gain (difference of two configurations)"
SHARED = ("regime", "data", "budget", "image_size", "precision")  # what runs that are compared have in common


@dataclass(frozen=True)
class Game:
    """The runs of a plan that are compared with each other.

    Attributes:
        runs: their settings.
        states: their states.
        cells: the configuration (a network and its recipe) of each run, numbered from 0.
        sets: the set of changes of each configuration.
        orders: the orders that were drawn for them, of the changes that do something.
        road: the roadmap whose changes they are.
    """

    runs: tuple[Settings, ...]
    states: tuple[str, ...]
    cells: tuple[int, ...]
    sets: tuple[Set, ...]
    orders: tuple[Set, ...]
    road: Roadmap

    @property
    def players(self) -> Set:
        """The changes of the last step that occur: a width that is matched anyway is no change."""
        return tuple(name for name in self.road.players if any(name in one for one in self.sets))

    @property
    def model(self) -> AdditiveModel:
        """How the finished runs will be judged: configuration + seed + noise."""
        return AdditiveModel(self.cells, [run.seed for run in self.runs])

    def weights(self, sets: Sequence[Set], weights: Array) -> Array:
        """Weights (..., sets) as weights (..., configurations); KeyError for a set that is not planned."""
        place: dict[Set, int] = {}
        for i, one in enumerate(self.sets):
            place.setdefault(self._same(one), i)
        full = np.zeros((*weights.shape[:-1], len(self.sets)))
        for column, one in enumerate(sets):  # two sets may be one configuration
            full[..., place[self._same(one)]] += weights[..., column]
        return full

    def _same(self, one: Set) -> Set:
        """One set for all that come to the same here."""
        run = self.runs[0]
        changes = [name for name in (*self.road.root.changes, *one) if name not in run.idle]
        return canonical(in_order(changes, self.road), run.regime)


@dataclass(frozen=True)
class Noise:
    """Standard deviation of one run around configuration + seed, in percentage points, and how it is known."""

    sigma: float
    how: str


def games_of(study: FrozenStudy, states: Sequence[str]) -> list[Game]:
    """The runs of a study, those together that may be compared."""
    groups: dict[str, list[int]] = {}
    for i, settings in enumerate(study.runs):
        asked = Identity.of(settings).asked
        shared = [*(asked[key] for key in SHARED), settings.design.stem_stride]
        groups.setdefault(json.dumps(shared, sort_keys=True), []).append(i)
    return [_game(study, [study.runs[i] for i in group], [states[i] for i in group]) for group in groups.values()]


def _game(study: FrozenStudy, runs: Sequence[Settings], states: Sequence[str]) -> Game:
    road = roadmap_named(study.roadmap)
    numbers: dict[str, int] = {}
    cells = tuple(numbers.setdefault(Identity.of(settings).config_id, len(numbers)) for settings in runs)
    own = [tuple(name for name in settings.changes if name not in road.root.changes) for settings in runs]
    sets = dict(zip(reversed(cells), reversed(own), strict=True))
    used = {name for one in sets.values() for name in one}
    return Game(
        runs=tuple(runs),
        states=tuple(states),
        cells=cells,
        sets=tuple(sets[i] for i in range(len(sets))),
        orders=tuple(tuple(name for name in order if name in used) for order in study.orders),
        road=road,
    )


def noise_of(game: Game, given: float | None) -> Noise:
    """The noise of a run: as given, from the game's finished runs, or from the paper's seeds.

    Seeds differ mostly because a test set is finite (Jordan 2023, arXiv 2304.01910), so that the paper's spread is
    scaled by the root of the number of test images.
    """
    if given is not None:
        if not (math.isfinite(given) and given > 0):
            raise ConfigError(f"--noise {given} must be a number of points above 0, e.g. 0.1")
        return Noise(given, "as given by --noise")
    records = [
        (cell, run.seed, read_result(RunDir.locate(run).result))
        for cell, run, state in zip(game.cells, game.runs, game.states, strict=True)
        if state == "finished"
    ]
    if records:
        cells, seeds, results = zip(*records, strict=True)
        means = AdditiveModel(cells, seeds).fit(np.array([result["top1"] for result in results]))
        if means.df >= LEAST_DF and means.sigma > 0:
            return Noise(float(means.sigma), f"pooled over {len(records)} finished runs, {means.df} degrees of freedom")
    rows = [row for row in paper.rows() if row.top1_std is not None and row.seeds is not None]
    sigma, _ = pooled([row.top1_std or 0.0 for row in rows], [row.seeds or 0 for row in rows])
    images = _test_images(game.runs[0])
    how = f"assumed: the paper's seeds, {sigma:.2g} on 50,000 images, scaled to {images:,} test images; --noise PP"
    return Noise(sigma * math.sqrt(PAPER_IMAGES / images), how)


def _test_images(settings: Settings) -> int:
    from experiments.data import evaluation_size

    return settings.data.eval_images or evaluation_size(settings)


# --- the effects that a list of runs is for


class Expected(NamedTuple):
    """Effects of one kind: half widths of their 95 % intervals, each alone, at a noise of 1 point; NaN if unknown."""

    what: str
    widths: Array
    remark: str
    df: float | Array = math.nan  # degrees of freedom of the widths

    def found(self, noise: float) -> Array:
        """The effects that Holm over all of this kind finds with 80 % power at this noise, points; NaN if unknown."""
        df = np.broadcast_to(self.df, self.widths.shape)
        errors = noise * self.widths / quantile(df)
        return np.array([detectable(error, of, len(errors)) for error, of in zip(errors, df, strict=True)])


Widths = Iterator[Expected]


def _plain(game: Game, what: str, weights: Array) -> Expected:
    """Weighted sums of configurations (effects, configurations); NaN where the noise stays unknown."""
    model = game.model
    if model.df < 1:
        return Expected(what, np.full(len(weights), math.nan), "")
    return Expected(what, quantile(model.df) * np.sqrt(variances(weights, model.unscaled)), "", model.df)


def _differences(game: Game) -> Widths:
    count = len(game.sets)
    if count < 2:
        return
    against_first = np.hstack([np.full((count - 1, 1), -1.0), np.eye(count - 1)])
    yield _plain(game, GAIN, against_first)
    pairs = contrasts.second_differences(game.sets)
    if pairs:
        sets = list(dict.fromkeys(game.sets))
        rows = np.array([[dict(pair.terms).get(one, 0) for one in sets] for pair in pairs], dtype=np.float64)
        yield _plain(game, "how much two changes help each other, in one context", game.weights(sets, rows))


def _orders(game: Game) -> Widths:
    pairs = len(game.orders) // 2
    if pairs < 2:
        yield Expected("Shapley value", np.array([math.nan]), "two pairs of orders at least")
        return
    model = game.model
    weights = game.weights(*contrasts.order_weights(game.orders, game.players))
    seen, hidden = contrasts.noise_over_pairs(weights, model.unscaled)
    remark = f"by t over {pairs} pairs of orders; wider by what the order does"
    if model.df < 1:
        hidden, remark = 0 * hidden, remark + " and by noise that one seed does not show"
    df = joint_df(seen, pairs - 1, hidden, max(model.df, 1))
    yield Expected("Shapley value", quantile(df) * np.sqrt(seen + hidden), remark, df)


def _subsets(game: Game) -> Widths:
    yield _plain(game, "exact Shapley value", game.weights(*contrasts.shapley_weights(game.players)))
    if len(game.players) > 1:
        yield _plain(game, "exact interaction", game.weights(*contrasts.interaction_weights(game.players)))


def _factorial(game: Game) -> Widths:
    found = contrasts.factorial_contrasts(game.road.players, game.players)
    weights = game.weights(found.sets, found.main)
    model = game.model
    df, how = (model.df, "") if model.df >= 1 else (len(found.idle), "by the idle columns alone, for want of a seed; ")
    half = quantile(df) * np.sqrt(variances(weights, model.unscaled)) if df else np.full(len(weights), math.nan)
    yield Expected("main effect", half, how + "wider by interactions of three", df or math.nan)


EFFECTS: Mapping[str | None, Callable[[Game], Widths]] = {
    "orders": _orders,
    "subsets": _subsets,
    "factorial": _factorial,
}


def outlook(study: FrozenStudy, states: Sequence[str], noise: float | None) -> list[str]:
    """Lines on the sets that a study needs, how many are done, and the intervals to expect once all are.

    Args:
        study: the study.
        states: of its runs, see `studies.states`.
        noise: standard deviation of a run in points; None: from finished runs, else assumed.

    Raises:
        ConfigError: a noise that is no positive number.
    """
    lines = []
    for game in games_of(study, states):
        known = noise_of(game, noise)
        lines += [_counts(study, game), f"noise of a run: {known.sigma:.3g} points ({known.how})"]
        for kind in EFFECTS.get(study.generator, _differences)(game):
            remark = kind.remark and f" ({kind.remark})"
            lines.append(f"95 % interval to expect: {kind.what} {_shown(kind.widths * known.sigma)}{remark}")
            lines += _power(game, kind, known.sigma)
    return lines


def _power(game: Game, kind: Expected, noise: float) -> list[str]:
    """What gets a verdict with 80 % power, and for gains how many seeds a stated one needs; none if unknown."""
    found = kind.found(noise)
    if not np.isfinite(found).any():
        return []
    line = f"found with 80 % power (Holm over {len(found)}, 5 %): {_range(found)} points or more"
    if kind.what == GAIN:
        needed = seeds_needed(MARGIN, noise, len(game.sets), len(found))
        seeds = f"more than {MOST_SEEDS}" if math.isinf(needed) else f"{needed:.0f}"
        line += f"; a gain of {MARGIN} points needs {seeds} seeds"
    return [line]


def _counts(study: FrozenStudy, game: Game) -> str:
    """How many distinct configurations there are, and how many of them have all, some or none of their seeds."""
    finished: dict[int, list[bool]] = {}
    for cell, state in zip(game.cells, game.states, strict=True):
        finished.setdefault(cell, []).append(state == "finished")
    done = sum(all(runs) for runs in finished.values())
    part = sum(any(runs) for runs in finished.values()) - done
    what = f"{len(game.sets)} distinct configurations"
    if study.orders:
        orders = f"{len(study.orders)} orders in {len(study.orders) // 2} antithetic pairs"
        what = f"{orders} pass {len(game.sets)} distinct sets of {len(game.players)} changes"
    elif study.generator in EFFECTS:
        what = f"{len(game.sets)} distinct sets of {len(game.players)} changes"
    seeds = len({run.seed for run in game.runs})
    rest = f"{done} done, {part} in part, {len(finished) - done - part} to do"
    return f"{what}, {seeds} seed{'s' * (seeds > 1)}: {len(game.runs)} runs; {rest}"


def _shown(widths: Array) -> str:
    """Half widths in points, as a range where they differ."""
    known = widths[np.isfinite(widths)]
    if not len(known):
        return "none: one seed does not show the noise of a run"
    return f"±{_range(known).replace(' to ', ' to ±')} points"


def _range(values: Array) -> str:
    low, high = (f"{value:.2g}" for value in (np.nanmin(values), np.nanmax(values)))
    return low if low == high else f"{low} to {high}"
