"""The combinatorics of studies over sets of changes."""

from collections import Counter
from itertools import combinations, pairwise

import pytest

from roadmap import STEPS
from roadmap.effects import subsets
from roadmap.errors import DesignError

PLAYERS = STEPS[-1].changes


def test_orders_are_antithetic_permutations_and_grow_without_changing():
    drawn = subsets.orders(PLAYERS, 10)
    assert len(drawn) == len(set(drawn)) == 10
    assert all(sorted(order) == sorted(PLAYERS) for order in drawn)
    assert all(drawn[i + 1] == drawn[i][::-1] for i in range(0, 10, 2))
    assert subsets.orders(PLAYERS, 20)[:10] == drawn
    assert subsets.orders(PLAYERS, 10, seed=1) != drawn


def test_orders_do_not_depend_on_how_the_players_are_listed():
    assert subsets.orders(PLAYERS[::-1], 4) == subsets.orders(PLAYERS, 4)


def test_every_order_of_three_is_equally_likely():
    counts = Counter(order for seed in range(500) for order in subsets.orders("abc", 2, seed))
    assert len(counts) == 6
    assert max(counts.values()) < 1.4 * min(counts.values())


@pytest.mark.parametrize("count", [0, 1, 7, -2])
def test_orders_come_in_pairs(count):
    with pytest.raises(DesignError, match="even number"):
        subsets.orders(PLAYERS, count)


def test_prefixes_grow_by_one_and_are_in_ladder_order():
    order = subsets.orders(PLAYERS, 2)[0]
    sets = subsets.prefixes(order, PLAYERS)
    assert sets[0] == () and sets[-1] == PLAYERS
    assert [(set(b) - set(a)).pop() for a, b in pairwise(sets)] == list(order)
    assert all(list(one) == sorted(one, key=PLAYERS.index) for one in sets)


def test_sets_of_orders_are_distinct():
    drawn = subsets.orders(PLAYERS, 10)
    sets = subsets.sets_of_orders(drawn, PLAYERS)
    assert len(sets) == len(set(sets)) <= 10 * 11 + 2
    assert {one for order in drawn for one in subsets.prefixes(order, PLAYERS)} == set(sets)


def test_all_subsets():
    assert subsets.all_subsets("ab") == [(), ("a",), ("b",), ("a", "b")]


@pytest.mark.parametrize("count", [2, 5, 6, 8, 12, 16])
def test_factorial_has_resolution_four(count):
    players = [f"p{i}" for i in range(count)]
    runs = subsets.factorial(players)
    assert len(runs) == 32
    assert () in runs and tuple(players) in runs
    sign = {p: [1 if p in run else -1 for run in runs] for p in players}
    for p in players:
        assert sum(sign[p]) == 0
    for size in (2, 3):  # no main effect is aliased with another, nor with an interaction of two
        for chosen in combinations(players, size):
            product = [1] * 32
            for p in chosen:
                product = [a * b for a, b in zip(product, sign[p], strict=True)]
            assert sum(product) == 0


def test_factorial_refuses_too_many():
    with pytest.raises(DesignError, match="at most 16"):
        subsets.factorial([f"p{i}" for i in range(17)])
