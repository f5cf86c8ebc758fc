"""Attribution against exact values: random games of up to 8 players, the axioms, and runs that diverged."""

import io
import json
import math
from contextlib import redirect_stdout
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import stats as distributions

from analysis.__main__ import main
from analysis.attribution import factorial, interactions, predicted, shapley, single
from analysis.attribution.game import game_of
from analysis.attribution.page import attribution_sections
from analysis.attribution.study import EXACT, FACTORIAL, FITTED, SHAPLEY
from analysis.collect import collect
from analysis.groups import groups_of
from analysis.simulations import divergence as simulated
from analysis.views import views_of
from experiments.config.fields import before_of
from experiments.config.settings import Recipe
from roadmap import STEPS, step_at
from roadmap.effects import contrasts, subsets
from roadmap.effects.noise import AdditiveModel, Means
from roadmap.steps import DEFAULT, in_order
from tests.analysis import factory

pytestmark = pytest.mark.numeric

GAMES, SEEDS, NOISE = 1000, 3, 0.1


def random_games(k, orders=4, games=GAMES, rng=0):
    """Values (games, 2**k) of random games with interactions of up to `orders` players, sets as in `all_subsets`."""
    random = np.random.default_rng(rng)
    players = tuple(f"p{i}" for i in range(k))
    sets = subsets.all_subsets(players)
    values = np.full((games, len(sets)), 80.0)
    for size in range(1, orders + 1):
        for team in combinations(players, size):
            worth = random.standard_normal((games, 1)) * 0.5**size
            values += worth * np.array([set(team) <= set(one) for one in sets])
    return players, sets, values


def noisy(values, sets, used, rng=1, seeds=SEEDS, noise=NOISE):
    """Means of the sets `used` after training each with `seeds` seeds, for all games at once."""
    random = np.random.default_rng(rng)
    place = {one: i for i, one in enumerate(sets)}
    true = values[:, [place[one] for one in used]]
    cells, blocks = np.repeat(np.arange(len(used)), seeds), np.tile(np.arange(seeds), len(used))
    shift = 0.2 * random.standard_normal((len(values), seeds))
    runs = true[:, cells] + shift[:, blocks] + noise * random.standard_normal((len(values), len(cells)))
    return AdditiveModel(cells, blocks).fit(runs)


def exact(values, players):
    return values @ contrasts.shapley_weights(players)[1].T


@pytest.mark.parametrize("k", [2, 3, 4])
def test_exact_weights_are_the_mean_over_all_orders(k):
    players, sets, values = random_games(k, k, games=5)
    place = {one: i for i, one in enumerate(sets)}
    brute = np.zeros((5, k))
    for order in permutations(players):
        passed = subsets.prefixes(order, players)
        for i, player in enumerate(order):
            brute[:, players.index(player)] += values[:, place[passed[i + 1]]] - values[:, place[passed[i]]]
    assert exact(values, players) == pytest.approx(brute / math.factorial(k))


@pytest.mark.parametrize("orders", [10, 20, 40])
@pytest.mark.parametrize("k", [4, 8])
def test_sampled_shapley_covers_exact_values(k, orders):
    off, widths, covered = [], [], []
    for seed in range(25):  # other orders for every 40 of the 1,000 games
        players, sets, values = random_games(k, games=GAMES // 25, rng=100 * k + seed)
        used, weights = contrasts.order_weights(subsets.orders(players, orders, seed), players)
        value, low, high = shapley.over_pairs(weights, noisy(values, sets, used, rng=seed))
        true = exact(values, players)
        covered.append((low <= true) & (true <= high))
        off.append(value - true)
        widths.append(high - low)
    assert np.mean(covered) >= 0.93
    # what the sampling allows: t over the pairs with the standard error that the estimates really have
    allowed = 2 * distributions.t.ppf(0.975, orders // 2 - 1) * np.sqrt(np.mean(np.square(off)))
    assert np.median(widths) <= 1.3 * allowed


def test_noise_shared_by_all_pairs_is_in_the_interval():
    players, sets, values = random_games(6, orders=1)  # additive: all orders agree, only the noise is left
    used, weights = contrasts.order_weights(subsets.orders(players, 20), players)
    means = noisy(values, sets, used, noise=0.5)
    _, low, high = shapley.over_pairs(weights, means)
    true = exact(values, players)
    assert ((low <= true) & (true <= high)).mean() >= 0.93
    without = Means(means.mean, means.unscaled, means.sigma, 0)
    _, low, high = shapley.over_pairs(weights, without)
    assert ((low <= true) & (true <= high)).mean() < 0.93


@pytest.mark.parametrize("k", [3, 6, 8])
def test_exact_games_cover_with_seed_noise(k):
    players, sets, values = random_games(k, rng=k + 10)
    means = noisy(values, sets, sets)
    weights = contrasts.shapley_weights(players)[1]
    _, low, high, _ = means.intervals(weights)
    true = exact(values, players)
    assert ((low <= true) & (true <= high)).mean() >= 0.93
    known = 2 * 1.96 * NOISE * np.sqrt((weights**2).sum(axis=1) / SEEDS)
    assert (np.median(high - low, axis=0) <= 1.3 * known).all()


@pytest.mark.parametrize("k", [3, 6, 8])
def test_exact_interactions_cover(k):
    players, sets, values = random_games(k, rng=k + 20)
    weights = contrasts.interaction_weights(players)[1]
    _, low, high, _ = noisy(values, sets, sets).intervals(weights)
    true = values @ weights.T
    assert ((low <= true) & (true <= high)).mean() >= 0.93
    assert (np.median(high - low, axis=0) <= 1.3 * 2 * 1.96 * NOISE * np.sqrt((weights**2).sum(axis=1) / SEEDS)).all()


def test_exact_interaction_of_two_is_the_second_difference():
    players, sets, values = random_games(2, 2, games=3)
    weights = contrasts.interaction_weights(players)[1]
    place = {one: values[:, i] for i, one in enumerate(sets)}
    expected = place[players] - place[("p0",)] - place[("p1",)] + place[()]
    assert (values @ weights.T)[:, 0] == pytest.approx(expected)


def test_interaction_index_weighs_the_pairs_worth_alone_in_a_game_of_pairs():
    players, sets, values = random_games(6, 2, games=20, rng=5)
    place = {one: values[:, i] for i, one in enumerate(sets)}
    weights = contrasts.interaction_weights(players)[1]
    for row, (a, b) in enumerate(combinations(players, 2)):
        worth = place[(a, b)] - place[(a,)] - place[(b,)] + place[()]
        assert values @ weights[row] == pytest.approx(worth)


def fit_matrix(players, used):
    pairs = list(combinations(players, 2))
    columns = [[True] * len(used), *([p in one for one in used] for p in players)]
    columns += [[a in one and b in one for one in used] for a, b in pairs]
    design = np.array(columns, dtype=float).T
    return design, np.linalg.pinv(design), len(used) - np.linalg.matrix_rank(design), len(pairs)


@pytest.mark.parametrize("k, orders", [(6, 40), (8, 40)])
def test_fitted_interactions_cover_in_games_of_pairs(k, orders):
    players, sets, values = random_games(k, 2, rng=k + 30)
    used = subsets.sets_of_orders(subsets.orders(players, orders), players)
    design, inverse, df, pairs = fit_matrix(players, used)
    means = noisy(values, sets, used)
    estimate, low, high, _ = interactions.fit_pairs(means.mean, design, inverse, df, pairs)
    true = values @ contrasts.interaction_weights(players)[1].T
    found = ~np.isnan(estimate)
    assert found.all()
    assert ((low <= true) & (true <= high)).mean() >= 0.93
    allowed = 2 * distributions.t.ppf(0.975, df) * np.sqrt(((estimate - true) ** 2).mean(axis=0))
    assert (np.median(high - low, axis=0) <= 1.3 * allowed).all()


@pytest.mark.parametrize("k", [6, 7, 8])
def test_factorial_effects_cover(k):
    players, sets, values = random_games(k, 3, rng=k + 40)
    design = contrasts.factorial_contrasts(players)
    means = noisy(values, sets, design.sets)
    noise = means.contrast(design.main[:1])[1][..., 0] ** 2
    effect, low, high = factorial.effects_from(means.mean, design, noise, means.df)
    member = np.array([[p in one for one in sets] for p in players])
    true = np.stack([values[:, m].mean(axis=1) - values[:, ~m].mean(axis=1) for m in member], axis=1)
    assert ((low <= true) & (true <= high)).mean() >= 0.93
    df = len(design.idle) if design.triples.any() else means.df
    allowed = 2 * distributions.t.ppf(0.975, df) * np.sqrt(((effect - true) ** 2).mean())
    assert np.median(high - low) <= 1.3 * allowed
    _, low, high = factorial.effects_from(means.mean, design, noise, 0)  # one seed: wider, still covering
    assert ((low <= true) & (true <= high)).mean() >= 0.93


def test_factorial_is_exact_in_games_of_pairs():
    players, sets, values = random_games(8, 2, games=10, rng=3)
    design = contrasts.factorial_contrasts(players)
    place = {one: i for i, one in enumerate(sets)}
    own = values[:, [place[one] for one in design.sets]]
    effect, low, high = factorial.effects_from(own, design, np.full(10, 1e-12), 10)
    member = np.array([[p in one for one in sets] for p in players])
    true = np.stack([values[:, m].mean(axis=1) - values[:, ~m].mean(axis=1) for m in member], axis=1)
    assert effect == pytest.approx(true)
    assert (high - low).max() < 1e-4


# --- axioms ---


def sampled(values, sets, players, orders=10):
    used, weights = contrasts.order_weights(subsets.orders(players, orders), players)
    place = {one: i for i, one in enumerate(sets)}
    mean = values[:, [place[one] for one in used]]
    return shapley.over_pairs(weights, Means(mean, np.eye(len(used)), np.zeros(len(values)), 10))[0]


@pytest.mark.parametrize("method", ["exact", "sampled"])
def test_efficiency_symmetry_null_player_and_linearity(method):
    players, sets, values = random_games(6, rng=7, games=50)

    def value(v):
        return exact(v, players) if method == "exact" else sampled(v, sets, players)

    assert value(values).sum(axis=1) == pytest.approx(values[:, -1] - values[:, 0])
    place = {one: i for i, one in enumerate(sets)}
    without_last = [place[tuple(p for p in one if p != "p5")] for one in sets]
    assert value(values[:, without_last])[:, 5] == pytest.approx(0, abs=1e-9)  # p5 never changes anything
    assert value(values + values[::-1]) == pytest.approx(value(values) + value(values[::-1]))
    if method == "exact":
        swap = {"p0": "p1", "p1": "p0"}
        swapped = [place[tuple(sorted(swap.get(p, p) for p in one))] for one in sets]
        alike = exact(values + values[:, swapped], players)
        assert alike[:, 0] == pytest.approx(alike[:, 1])


def test_antithetic_pairs_are_exact_in_games_of_pairs():
    players, sets, values = random_games(7, 2, rng=9, games=20)
    assert sampled(values, sets, players, orders=4) == pytest.approx(exact(values, players))


# --- from runs ---

PLAYERS = ("stage_ratio", "gelu", "layer_norm")
WORTH = {"stage_ratio": 1.0, "gelu": 0.5, "layer_norm": -0.5}


def worth(changes):
    return 80 + sum(WORTH.get(c, 0.1) for c in changes) + 0.6 * ({"gelu", "layer_norm"} <= set(changes))


def write_sets(folder, sets, seeds=(0, 1, 2), noise=0.02, rng=0):
    random = np.random.default_rng(rng)
    for one in sets:
        for seed in seeds:
            step = "enhanced_recipe" if not one else step_at(one)
            top1 = round(worth(one) + 0.05 * seed + noise * random.standard_normal(), 4)
            factory.write(folder, factory.record(step, seed, top1, changes=one, recipe="enhanced"))
    return folder


def game_in(folder, players=None):
    group = groups_of(collect(folder))[0][0]
    return game_of(group.runs[group.runs["recipe"] == "enhanced"], players)


def test_a_game_of_all_subsets_from_runs(tmp_path):
    game = game_in(write_sets(tmp_path, subsets.all_subsets(PLAYERS)))
    assert game.players == PLAYERS
    assert shapley.complete_games(game) == [PLAYERS]
    values = shapley.exact_shapley(game)
    assert values.estimate == pytest.approx([1.0, 0.8, -0.2], abs=0.05)
    assert (values.n, values.lost) == (3, (False,) * 3)
    pairs = interactions.interactions_of(game).frame().set_index("name")["estimate"]
    assert pairs["gelu × layer_norm"] == pytest.approx(0.6, abs=0.1)
    assert pairs["stage_ratio × gelu"] == pytest.approx(0, abs=0.1)


def test_second_differences_in_their_context(tmp_path):
    sets = [(), ("gelu",), ("layer_norm",), ("gelu", "layer_norm")]
    found = interactions.second_differences(game_in(write_sets(tmp_path, sets)))
    assert found.names == ("gelu × layer_norm on ResNet",)
    assert found.estimate == pytest.approx([0.6], abs=0.1)
    assert found.low[0] < 0.6 < found.high[0]
    assert interactions.second_differences(game_in(write_sets(tmp_path / "b", [(), ("gelu",)]))) is None


def test_leave_one_out_and_add_one_in(tmp_path):
    players = STEPS[-1].changes
    less = [tuple(p for p in players if p != out) for out in players]
    game = game_in(write_sets(tmp_path, [players, *less, (), *((p,) for p in players)]), players)
    out, alone = single.leave_one_out(game), single.add_one_in(game)
    assert out.names == alone.names == players
    assert dict(zip(alone.names, alone.estimate, strict=True))["layer_norm"] == pytest.approx(-0.5, abs=0.06)
    assert dict(zip(out.names, out.estimate, strict=True))["layer_norm"] == pytest.approx(0.1, abs=0.06)


def test_orders_and_factorial_are_found_in_the_runs(tmp_path):
    players = STEPS[-1].changes
    drawn = subsets.orders(players, 6, seed=2)
    sets = dict.fromkeys([*subsets.sets_of_orders(drawn, players), *subsets.factorial(players)])
    game = game_in(write_sets(tmp_path, sets, seeds=(0, 1)), players)
    absent = subsets.orders(players, 2, seed=3)
    planned = [(drawn[0], drawn[1]), (absent[0], absent[1]), *zip(drawn[::2], drawn[1::2], strict=True)]
    found = shapley.complete_pairs(game, planned)
    assert found == drawn  # what was not trained is left out, what two studies drew counts once
    assert shapley.complete_pairs(game, planned[:2]) == []
    values = shapley.sampled_shapley(game, found)
    assert values.estimate.sum() == pytest.approx(game.means.mean[game.columns([players])] - game.means.mean[0])
    assert dict(zip(values.names, values.estimate, strict=True))["gelu"] == pytest.approx(0.8, abs=0.05)
    main = factorial.factorial_of(game, factorial.find_factorial(game, players))
    assert dict(zip(main.names, main.estimate, strict=True))["gelu"] == pytest.approx(0.8, abs=0.05)
    positions = shapley.gains_by_position(game, found)
    assert len(positions) == 6 * 12
    gelu = positions[positions["name"] == "gelu"]
    assert set(gelu["gain"].round(1)) == {0.5, 1.1}


def diverge(folder, one):
    """Put records of two runs and a diverged third in the place of a set."""
    for seed, status in enumerate(("finished", "finished", "diverged")):
        top1 = worth(one) if status == "finished" else 10.0
        record = factory.record(None, seed, top1, changes=one, recipe="enhanced", status=status, top1_best=top1)
        factory.write(folder, record)


def test_a_diverged_run_gives_no_number(tmp_path):
    write_sets(tmp_path, [one for one in subsets.all_subsets(PLAYERS) if one != ("gelu",)])
    diverge(tmp_path, ("gelu",))
    game = game_in(tmp_path)
    assert game.diverged == (("gelu",),)
    values = shapley.exact_shapley(game)
    assert values.lost == (True, True, True)
    assert np.isnan([values.estimate, values.low, values.high, values.p]).all()
    assert np.isnan(values.mde)  # nothing would be found
    assert collect(tmp_path).runs.query("status == 'diverged'")["top1"].isna().all()


def test_a_diverged_whole_leaves_no_gains_without_a_change_and_those_of_one_alone(tmp_path):
    players = STEPS[-1].changes
    less = [tuple(p for p in players if p != out) for out in players]
    write_sets(tmp_path, [*less, (), *((p,) for p in players)])
    diverge(tmp_path, players)
    game = game_in(tmp_path, players)
    out, alone = single.leave_one_out(game), single.add_one_in(game)
    assert out.lost == (True,) * 12
    assert np.isnan([out.estimate, out.low, out.high]).all() and np.isnan(out.mde)
    assert alone.lost == (False,) * 12
    assert np.isfinite([alone.low, alone.high]).all() and alone.mde > 0


def test_a_diverged_set_does_not_narrow_the_other_shapley_values():
    """Their intervals hold what the order does, as they do without it: coverage of games with strong teams of three."""
    found = {row[0]: [float(cell.rstrip("%")) for cell in row[1:4]] for row in simulated.rows(150)}
    none, one = found["no set diverged"], found["one set diverged"]
    assert one[0] == pytest.approx(none[0], abs=3)
    assert one[0] > 90 > one[2]  # the last: by the noise of runs alone


def test_one_seed_gives_no_noise_and_says_so(tmp_path):
    game = game_in(write_sets(tmp_path, subsets.all_subsets(PLAYERS), seeds=[0]))
    values = shapley.exact_shapley(game)
    assert values.n == 1
    assert np.isnan(values.low).all()


def test_techniques_one_by_one(tmp_path):
    full = factory.RECIPES["enhanced"] | {"mixup": 0.8, "erasing": 0.25}
    plain = factory.RECIPES["original"] | {"mixup": 0.0, "erasing": 0.0}
    last, first = STEPS[-1].name, "resnet50"
    arms = [
        (last, 82.0, full),
        (last, 81.0, full | {"mixup": 0.0, "without": ["mixup"]}),
        (last, 82.3, full | {"erasing": 0.0, "without": ["erasing"]}),
        (first, 76.0, plain),
        (first, 76.5, plain | {"mixup": 0.8}),
    ]
    for seed in range(3):
        for number, (name, top1, recipe) in enumerate(arms):
            changes = factory.BY_NAME[name].changes
            step = None if recipe["without"] else name
            record = factory.record(step, seed, top1 + 0.01 * seed, changes=changes, recipe=recipe["name"])
            own = {"recipe": recipe, "config_id": f"{number:x}" * 64, "run_id": f"{number:x}{seed:x}" * 32}
            factory.write(tmp_path, record | own)
    collection = collect(tmp_path)
    groups, aside = groups_of(collection)
    assert len(groups) == 1 and not aside
    group = groups[0]
    found = single.technique_effects(group.runs, group.other, collection.settings_of)
    assert set(found) == {"enhanced, separate_downsampling", "original, no change"}
    enhanced = found["enhanced, separate_downsampling"]
    assert dict(zip(enhanced.names, enhanced.estimate.round(2), strict=True)) == {"mixup": 1.0, "erasing": -0.3}
    assert found["original, no change"].estimate == pytest.approx([0.5])


def test_a_technique_that_older_records_cannot_name_is_off_in_them():
    older = factory.RECIPES["enhanced"]
    younger = older | json.loads(json.dumps(before_of(Recipe)))
    assert single.technique_between(older, younger) is None
    assert single.techniques_off(older) == single.techniques_off(younger)
    for one, other in ((older, younger), (younger, older)):
        assert single.technique_between(one, other | {"trivial_augment": True}) == ("trivial_augment", -1)
        assert single.technique_between(one | {"repeats": 4}, other) == ("repeats", 1)


# --- from a folder: which studies lie in it ---


def attribution_in(folder):
    collection = collect(folder)
    return views_of(collection, groups_of(collection)[0])[0].attribution


def test_exact_values_beside_a_ladder(tmp_path):
    """The game of all subsets is found among the ladder's sets, and its pairs are the exact ones."""
    write_sets(tmp_path, dict.fromkeys([*subsets.all_subsets(PLAYERS), *(step.changes for step in STEPS)]))
    found = attribution_in(tmp_path)
    assert found.effects[EXACT].names == found.paired == PLAYERS
    assert found.effects[EXACT].estimate == pytest.approx([1.0, 0.8, -0.2], abs=0.05)
    assert "all 8 sets of stage_ratio, gelu, layer_norm" in found.how[EXACT]
    assert found.pairs.names == ("stage_ratio × gelu", "stage_ratio × layer_norm", "gelu × layer_norm")


def test_two_changes_are_a_game_only_where_they_are_all(tmp_path):
    pair = subsets.all_subsets(("gelu", "layer_norm"))
    assert EXACT in attribution_in(write_sets(tmp_path / "alone", pair)).effects
    among = write_sets(tmp_path / "among", [*pair, ("depthwise",), ("width",)])
    assert EXACT not in attribution_in(among).effects


def test_shapley_values_need_the_plan_that_drew_the_orders(tmp_path):
    players = STEPS[-1].changes
    drawn = subsets.orders(players, 6, seed=99)
    write_sets(tmp_path, subsets.sets_of_orders(drawn, players), seeds=(0, 1))
    assert SHAPLEY not in attribution_in(tmp_path).effects
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "orders-00000000.json").write_text(json.dumps({"orders": drawn}))
    found = attribution_in(tmp_path)
    assert found.how[SHAPLEY] == "mean gain over 6 random orders in 3 antithetic pairs"
    assert len(found.positions) == 6 * len(players)


@pytest.mark.parametrize("study", ["orders", "factorial"])
def test_with_matched_widths_the_change_of_width_is_no_player(tmp_path, study):
    """Sets that differ in it alone are one network and one run; every method goes on with the other changes."""
    players = STEPS[-1].changes
    acting = tuple(name for name in players if name != "width")
    drawn = subsets.orders(players, 6)
    planned = subsets.sets_of_orders(drawn, players) if study == "orders" else subsets.factorial(players)
    sets = dict.fromkeys(tuple(name for name in one if name != "width") for one in planned)
    for number, one in enumerate(sets):
        for seed in range(2):
            record = factory.record(None, seed, worth(one), changes=one, recipe="enhanced", flags={"width": 30.5})
            factory.write(tmp_path, record | {"run_id": f"{number:060x}{seed:04x}"})
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "orders-00000000.json").write_text(json.dumps({"orders": drawn}))
    found = attribution_in(tmp_path).effects[SHAPLEY if study == "orders" else FACTORIAL]
    assert found.names == acting
    assert dict(zip(acting, found.estimate, strict=True))["gelu"] == pytest.approx(0.8, abs=0.05)


# --- all finished sets together ---


def predicted_in(folder):
    return predicted.predicted_of(game_in(folder), DEFAULT)


def test_sets_without_their_pair_give_shapley_values(tmp_path):
    """Thirteen of sixteen sets: no whole game, and one pair of complements is broken."""
    players = (*PLAYERS, "width")
    sets = [one for one in subsets.all_subsets(players) if one not in (("gelu",), ("width",), ("stage_ratio", "gelu"))]
    found = predicted_in(write_sets(tmp_path, sets))
    assert (found.trained, found.effects.names) == (13, ("stage_ratio", "width", "gelu", "layer_norm"))
    assert found.effects.estimate == pytest.approx([1.0, 0.1, 0.8, -0.2], abs=0.06)
    true = np.array([1.0, 0.1, 0.8, -0.2])
    assert (found.effects.low <= true).all() and (true <= found.effects.high).all()
    assert found.covered >= 11
    expected = {one.changes: one for one in found.best}
    assert set(expected) == {("gelu",), ("width",), ("stage_ratio", "gelu")}
    for changes, one in expected.items():
        assert one.low < worth(changes) + 0.05 < one.high
    assert found.best[0].changes == ("stage_ratio", "gelu")


def test_alternatives_of_a_slot_are_in_one_game(tmp_path):
    kernels = ("kernel_5", "kernel_7", "kernel_9")
    sets = [in_order((*one, *kernel)) for one in subsets.all_subsets(PLAYERS) for kernel in ((), *zip(kernels))]
    game = game_in(write_sets(tmp_path, [one for one in sets if one != ("kernel_5",)]))
    slots = predicted.slots_of(game.sets, DEFAULT)
    assert kernels in slots and len(slots) == 4
    found = predicted.predicted_of(game, DEFAULT)
    assert set(kernels) <= set(found.effects.names)
    values = dict(zip(found.effects.names, found.effects.estimate, strict=True))
    assert values["kernel_9"] == pytest.approx(0.1, abs=0.06)
    assert [one.changes for one in found.best] == [("kernel_5",)]


def test_too_few_sets_say_nothing(tmp_path):
    assert predicted_in(write_sets(tmp_path, subsets.all_subsets(PLAYERS)[:6])) is None


def page_of(folder):
    with redirect_stdout(io.StringIO()):
        assert main([str(folder), "--out", str(folder / "page")]) == 0
    return (folder / "page" / "report.html").read_text()


def test_the_page_shows_fitted_values_and_how_far_predictions_hold(tmp_path):
    write_sets(tmp_path, [one for one in subsets.all_subsets((*PLAYERS, "width")) if one != ("width",)])
    write_sets(tmp_path, [STEPS[0].changes])
    collection = collect(tmp_path)
    found = views_of(collection, groups_of(collection)[0])[0].attribution
    assert FITTED in found.effects
    sections = attribution_sections(found, {}, {})
    assert "Sets that nobody trained" in page_of(tmp_path)
    (untrained,) = [section for section in sections if section.title == "Sets that nobody trained"]
    assert "of 15" in untrained.words[0]
