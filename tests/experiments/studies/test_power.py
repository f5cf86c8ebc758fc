"""What `plan` says that a study will tell: counts of its sets, the noise of a run, and the intervals to expect."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from analysis.attribution import factorial, shapley
from analysis.collect import collect
from experiments.__main__ import main
from experiments.config.identity import Identity
from experiments.config.settings import Settings
from experiments.store.run_dir import RunDir
from experiments.studies import frozen, launch, lists, power
from roadmap.effects import contrasts, subsets
from roadmap.effects.noise import quantile
from roadmap.effects.testing import detectable, seeds_needed
from roadmap.steps import BY_NAME, END
from tests.analysis import factory

pytestmark = pytest.mark.numeric

PLAYERS = END.changes
SMALL = ("regime=micro", "device=cpu", "recipe.epochs=1", "data.train_images=64", "data.eval_images=50")


def study_in(folder: Path, name: str, *typed: str, seeds: int = 3, **params: object) -> frozen.FrozenStudy:
    """A generated study as `run.py` would freeze it."""
    own = [*SMALL, *typed, f"runs_dir={folder}"]
    entries = lists.runs_of(name, params, lambda entry: launch.settings_of([*own, *entry]).recipe)
    jobs = [[*own, f"seed={seed}", *entry] for seed in range(seeds) for entry in entries]
    path = frozen.study_path(name, jobs, folder)
    orders = lists.orders_of(name, params)
    return frozen.freeze(name, path, jobs, launch._settings_of_many(), generator=name, orders=orders)


def finish(settings: Settings, top1: float) -> None:
    """Leave the sealed record of a run that was never trained."""
    identity = Identity.of(settings)
    own = {"run_id": identity.run_id, "config_id": identity.config_id, "changes": list(settings.changes)}
    record = factory.record("kernel_7", settings.seed, top1, eval_size=50) | own | {"step": None}
    place = RunDir.locate(settings).result
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(record))


def test_orders_are_counted_set_by_set(tmp_path: Path) -> None:
    plan = study_in(tmp_path, "orders", orders=4, seed=1)
    drawn = subsets.orders(PLAYERS, 4, 1)
    sets = subsets.sets_of_orders(drawn, PLAYERS)
    assert [run.changes for run in plan.runs] == sets * 3
    for run in [*plan.runs[:3], plan.runs[len(sets)]]:  # three sets with one seed, the first of them with a second one
        finish(run, 50.0)
    lines = power.outlook(plan, frozen.states(plan), noise=None)
    assert lines[0] == (
        f"4 orders in 2 antithetic pairs pass {len(sets)} distinct sets of 12 changes, 3 seeds: {3 * len(sets)} runs; "
        f"0 done, 3 in part, {len(sets) - 3} to do"
    )
    finish(plan.runs[2 * len(sets)], 50.0)
    assert "1 done, 2 in part" in power.outlook(plan, frozen.states(plan), noise=None)[0]


def test_the_first_pair_of_orders_is_planned_first() -> None:
    few, many = lists.Lists().orders(2, 0), lists.Lists().orders(10, 0)
    assert many[: len(few)] == few


def test_the_analysis_takes_the_orders_from_the_plan(tmp_path: Path) -> None:
    plan = study_in(tmp_path, "orders", seeds=1, orders=4, seed=123_456)
    assert frozen.read_study(plan.path).orders == plan.orders == tuple(subsets.orders(PLAYERS, 4, 123_456))
    pairs = collect(tmp_path).orders
    assert [order for pair in pairs for order in pair] == list(plan.orders)
    plan.path.write_text('{"orders": [["gelu"], 3]}')
    assert collect(tmp_path).orders == ()


SIMULATIONS = 2000


def simulated(game: power.Game, noise: float) -> np.ndarray:
    """Top-1s (simulations, runs) of additive games: nothing but the noise of runs is in the intervals."""
    random = np.random.default_rng(0)
    worth = np.array([[name in one for name in PLAYERS] for one in game.sets]) @ random.standard_normal(len(PLAYERS))
    shape = (SIMULATIONS, len(game.runs))
    return 80 + worth[list(game.cells)] + noise * random.standard_normal(shape)


PARAMS = {"orders": {"orders": 8}, "factorial": {}, "subsets": {"changes": ["gelu", "depthwise", "layer_norm"]}}


@pytest.fixture(scope="module", params=PARAMS)
def plan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> frozen.FrozenStudy:
    return study_in(tmp_path_factory.mktemp("plans"), request.param, **PARAMS[request.param])


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_intervals_are_those_that_the_analysis_finds(plan: frozen.FrozenStudy, seeds: int) -> None:
    plan = dataclasses.replace(plan, runs=tuple(run for run in plan.runs if run.seed < seeds))
    name, (game,) = plan.name, power.games_of(plan, ["missing"] * len(plan.runs))
    widths = next(power.EFFECTS[name](game))[1] * 0.3
    means = game.model.fit(simulated(game, 0.3))
    if name == "orders":
        weights = game.weights(*contrasts.order_weights(plan.orders, game.players))
        _, low, high = shapley.over_pairs(weights, means)
    elif name == "factorial":
        found = contrasts.factorial_contrasts(PLAYERS)
        own = means.mean[:, [game.sets.index(one) for one in found.sets]]
        main = game.weights(found.sets, found.main)
        _, low, high = factorial.effects_from(own, found, means.contrast(main)[1][:, 0] ** 2, means.df)
    else:
        sets, weights = contrasts.shapley_weights(game.players)
        _, low, high, _ = means.intervals(game.weights(sets, weights))
    if seeds == 1 and name == "subsets":
        assert np.isnan(widths).all() and np.isnan(low).all()
        return
    # the root mean square is what to expect; in the idle columns noise passes for interactions of three now and then
    measured = np.sqrt(np.mean(((high - low) / 2) ** 2, axis=0))
    tolerance = 0.15 if name == "factorial" else 0.05
    assert measured == pytest.approx(np.broadcast_to(widths, measured.shape), rel=tolerance)


def test_differences_and_pairs_in_context(tmp_path: Path) -> None:
    base = [name for name in BY_NAME["gelu"].changes if name != "move_up_depthwise"]
    plan = study_in(tmp_path, "crossed", base=base, factors=[["move_up_depthwise"], ["fewer_activations"]])
    lines = power.outlook(plan, ["missing"] * len(plan.runs), noise=0.3)
    gain, pair = 0.3 * quantile(6) * np.sqrt([2 / 3, 4 / 3])
    found = 0.3 * np.array([detectable(math.sqrt(2 / 3), 6, 3), detectable(math.sqrt(4 / 3), 6, 1)])
    seeds = seeds_needed(0.5, 0.3, 4, 3)
    assert lines == [
        "4 distinct configurations, 3 seeds: 12 runs; 0 done, 0 in part, 4 to do",
        "noise of a run: 0.3 points (as given by --noise)",
        f"95 % interval to expect: gain (difference of two configurations) ±{gain:.2g} points",
        f"found with 80 % power (Holm over 3, 5 %): {found[0]:.2g} points or more; "
        f"a gain of 0.5 points needs {seeds:.0f} seeds",
        f"95 % interval to expect: how much two changes help each other, in one context ±{pair:.2g} points",
        f"found with 80 % power (Holm over 1, 5 %): {found[1]:.2g} points or more",
    ]


@pytest.mark.parametrize("name, sets", [("orders", 42), ("factorial", 32), ("leave_one_out", 12)])
def test_with_matched_widths_the_change_of_width_is_left_out(name: str, sets: int, tmp_path: Path) -> None:
    plan = study_in(tmp_path, name, "match_gmacs=1.0", seeds=2, **({"orders": 4} if name == "orders" else {}))
    lines = power.outlook(plan, ["missing"] * len(plan.runs), noise=0.3)
    (game,) = power.games_of(plan, ["missing"] * len(plan.runs))
    assert game.players == tuple(player for player in PLAYERS if player != "width")
    assert len(game.sets) == sets
    assert "±" in lines[2]


def test_the_noise_is_taken_from_finished_runs_else_from_the_paper(tmp_path: Path) -> None:
    plan = study_in(tmp_path, "add_one_in")
    assumed = power.outlook(plan, frozen.states(plan), None)[1]
    assert "noise of a run: 2.97 points (assumed: the paper's seeds, 0.094 on 50,000 images" in assumed
    assert "scaled to 50 test images" in assumed
    random = np.random.default_rng(1)
    for run in plan.runs:
        finish(run, round(80 + run.seed + 0.5 * random.standard_normal(), 4))
    (game,) = power.games_of(plan, frozen.states(plan))
    noise = power.noise_of(game, None)
    assert noise.sigma == pytest.approx(0.5, rel=0.3)
    assert noise.how == "pooled over 39 finished runs, 24 degrees of freedom"


@pytest.mark.parametrize("noise", ["0", "-1", "nan"])
def test_a_noise_that_is_none(
    noise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--speed", "none", "--noise", noise, "+study=macro", *SMALL]) == 2
    assert "--noise" in capsys.readouterr().err
