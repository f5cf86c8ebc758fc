"""The Gaussian process over sets against exact Shapley values, dense algebra and games of which the answer is known."""

import numpy as np
import pytest

from roadmap.effects import contrasts, subsets
from roadmap.effects.games import KINDS, DrawnGame
from roadmap.effects.paired import paired_sets
from roadmap.effects.proposals import candidates, propose
from roadmap.effects.surrogate import Space, Surrogate, corners, shapley_values, values_at
from roadmap.errors import DesignError

pytestmark = pytest.mark.numeric

PLAYERS = tuple("abcdef")


def space_of(players):
    return Space(tuple((name,) for name in players))


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_corners_are_alike_and_add_up_to_nothing(levels):
    found = corners(levels)
    assert found.sum(axis=0) == pytest.approx(0, abs=1e-12)
    assert found @ found.T == pytest.approx((levels * np.eye(levels) - 1) / (levels - 1))


def test_a_degree_is_the_mean_over_all_teams():
    space = Space((("a",), ("b",), ("c", "d")))
    points = space.points([("a",), ("b", "d"), ("c",)])
    product = np.einsum("isw,jsw->sij", points, points)
    pairs = (product[0] * product[1] + product[0] * product[2] + product[1] * product[2]) / 3
    assert space.degree_kernels(points, points)[2] == pytest.approx(pairs)


def test_shapley_question_is_the_mean_over_all_orders():
    """The few points between corners against the 2**k weights, on every kernel function."""
    space = space_of(PLAYERS[:5])
    sets, weights = contrasts.shapley_weights(PLAYERS[:5])
    question = shapley_values(space)
    some = space.points([(), ("a", "c"), PLAYERS[:5]])
    whole = weights @ space.degree_kernels(space.points(sets), some)
    assert question.weights @ space.degree_kernels(question.points, some) == pytest.approx(whole)


def test_an_alternative_is_asked_about_as_the_choice_of_its_slot():
    space = Space((("a",), ("small", "large"), ("b",)))
    question = shapley_values(space, end=("a", "large", "b"))
    assert question.names == ("a", "small", "large", "b")
    some = space.points([("small",), ("a", "large")])
    for name, others in (("small", ("a", "b", "small")), ("a", ("a", "b", "large"))):
        sets, weights = contrasts.shapley_weights(others)
        row = weights[others.index(name)] @ space.degree_kernels(space.points(sets), some)
        own = question.weights[question.names.index(name)] @ space.degree_kernels(question.points, some)
        assert own == pytest.approx(row)


def test_the_gradient_is_that_of_the_loss():
    game = DrawnGame("strong interactions", 0)
    sets = paired_sets(game.players, 30)
    model = Surrogate(space_of(game.players), sets, game.trained(sets))
    at = np.array([-0.5, -1.0, -2.0, -3.0, -3.5])
    for i, step in enumerate(1e-5 * np.eye(5)):
        difference = (model._loss(at + step)[0] - model._loss(at - step)[0]) / 2e-5
        assert model._loss(at)[1][i] == pytest.approx(difference, rel=1e-4)


def test_all_sets_without_noise_give_the_exact_values():
    sets, weights = contrasts.shapley_weights(PLAYERS[:4])
    values = np.random.default_rng(0).standard_normal(len(sets))
    found = Surrogate(space_of(PLAYERS[:4]), sets, values, sigma=1e-3).answer(shapley_values(space_of(PLAYERS[:4])))
    assert found.mean == pytest.approx(weights @ values, abs=0.01)


def test_left_out_is_what_the_other_sets_predict():
    game = DrawnGame("pairwise", 1)
    sets = paired_sets(game.players, 40)
    values = game.trained(sets)
    space = space_of(game.players)
    whole = Surrogate(space, sets, values, sigma=0.2)
    at = whole.mode
    inside = whole.inside(at)
    rest = np.arange(40) != 3
    value = inside[3, rest] @ np.linalg.solve(inside[np.ix_(rest, rest)], whole.values[rest])
    whole.draws = (at[None], np.ones(1))  # one draw: the mode
    assert whole.left_out().mean[3] == pytest.approx(value * whole.scale + whole.centre)


def test_pairs_are_complementary_and_a_set_without_its_pair_counts_alone():
    space = space_of("abc")
    model = Surrogate(space, [(), ("a",), ("b", "c"), ("b",), ("a", "b", "c")], np.arange(5.0))
    assert model.pairs == [[0, 4], [1, 2], [3]]


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_errors_than_random_orders_for_the_same_sets(kind):
    ours, orders = [], []
    for seed in range(8):
        game = DrawnGame(kind, seed)
        drawn = subsets.orders(game.players, 6, seed)
        used, weights = contrasts.order_weights(drawn, game.players)
        sets = paired_sets(game.players, len(used))
        found = Surrogate(space_of(game.players), sets, game.trained(sets)).answer(
            shapley_values(space_of(game.players))
        )
        ours.append(np.abs(found.mean - game.shapley()).mean())
        orders.append(np.abs(weights.mean(axis=0) @ game.trained(used) - game.shapley()).mean())
    assert np.mean(ours) < 0.9 * np.mean(orders)


@pytest.mark.parametrize("kind, least", [("additive", 0.93), ("strong interactions", 0.93), ("ladder-like", 0.93)])
def test_intervals_cover_after_two_pairs_of_orders_with_one_seed(kind, least):
    covered = []
    for seed in range(12):
        game = DrawnGame(kind, 100 + seed)
        sets = subsets.sets_of_orders(subsets.orders(game.players, 4, seed), game.players)
        found = Surrogate(space_of(game.players), sets, game.trained(sets)).answer(
            shapley_values(space_of(game.players))
        )
        low, high = found.interval()
        covered.append(((low <= game.shapley()) & (game.shapley() <= high)).mean())
    assert np.mean(covered) >= least


def test_a_jump_widens_the_intervals_beyond_the_process_own():
    game = DrawnGame("threshold", 0)
    sets = paired_sets(game.players, 60)
    found = Surrogate(space_of(game.players), sets, game.trained(sets)).answer(shapley_values(space_of(game.players)))
    assert (found.stretch >= 1).all() and found.stretch.max() > 1.1


def test_predictions_of_untrained_sets_cover():
    game = DrawnGame("strong interactions", 5)
    sets = paired_sets(game.players, 80)
    model = Surrogate(space_of(game.players), sets, game.trained(sets), sigma=0.2)
    new = [one for one in subsets.sets_of_orders(subsets.orders(game.players, 20, 9), game.players) if one not in sets]
    found = model.answer(values_at(model.space, new))
    low, high = found.interval()
    true = game.worth(game.member(new))
    assert ((low <= true) & (true <= high)).mean() > 0.85
    assert np.corrcoef(found.mean, true)[0, 1] > 0.95


def test_paired_sets_are_pairs_and_grow_without_changing():
    sets = paired_sets(PLAYERS, 20, seed=1)
    assert len(set(sets)) == 20 and sets[:2] == [(), PLAYERS]
    assert all(
        set(one) | set(other) == set(PLAYERS) and not set(one) & set(other)
        for one, other in zip(*[iter(sets)] * 2, strict=True)
    )
    assert paired_sets(PLAYERS, 12, seed=1) == sets[:12]
    assert paired_sets(PLAYERS, 20, seed=2) != sets
    assert set(paired_sets("abc", 8)) == set(subsets.all_subsets("abc"))


@pytest.mark.parametrize("count", [3, 9])
def test_a_number_of_sets_that_there_is_not_is_refused(count):
    with pytest.raises(DesignError, match=r"sets=\d must be 4 to 8"):
        paired_sets("abc", count)


def test_proposed_sets_take_more_from_the_interval_than_others():
    game = DrawnGame("strong interactions", 2)
    sets = paired_sets(game.players, 40)
    model = Surrogate(space_of(game.players), sets, game.trained(sets), sigma=0.2)
    question = shapley_values(model.space, ["p03"])
    chosen, before, after = propose(model, question, candidates(game.players), 6)
    assert len(set(chosen)) == 6 and not set(chosen) & set(sets)
    assert after < before
    others = [one for one in candidates(game.players, 1) if one not in sets][-6:]
    assert after < propose(model, question, others, 6)[2]


def test_to_know_a_set_it_is_trained_itself():
    game = DrawnGame("pairwise", 2)
    sets = paired_sets(game.players, 40)
    model = Surrogate(space_of(game.players), sets, game.trained(sets), sigma=0.01)
    wanted = ("p02", "p05", "p07")
    chosen, _, after = propose(model, values_at(model.space, [wanted]), [*candidates(game.players), wanted], 1)
    assert chosen == [wanted]
    assert after == pytest.approx(1.96 * 0.01, rel=0.5)


def test_true_shapley_values_of_a_drawn_game():
    game = DrawnGame("additive", 3)
    alone = game.worth(game.member([(name,) for name in game.players]))
    assert game.shapley() == pytest.approx(alone)
