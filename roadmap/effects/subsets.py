"""Which sets of changes answer which question: random orders, all subsets, a fractional factorial. Pure combinatorics.

A set is a tuple of names in the order of `players` (for the ladder: ladder order). Everything is a function of the
arguments alone, so that a study planned today and one planned next year ask for the same runs.
"""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import combinations

from roadmap.errors import DesignError

Set = tuple[str, ...]
RUNS = 32  # of the fractional factorial: 2**5
_BASE = 5


def orders(players: Sequence[str], count: int, seed: int = 0) -> list[Set]:
    """`count` random orders in antithetic pairs: each second order is the one before it, backwards.

    Pair i depends on the seed and i only: more orders add runs and keep those that there are.

    Raises:
        DesignError: `count` is not even and at least 2.
    """
    if count < 2 or count % 2:
        raise DesignError(f"orders={count} must be an even number of at least 2: orders come in pairs")
    drawn: list[Set] = []
    for pair in range(count // 2):
        order = tuple(sorted(players, key=lambda name: hashlib.sha256(f"{seed}/{pair}/{name}".encode()).digest()))
        drawn += [order, order[::-1]]
    return drawn


def prefixes(order: Sequence[str], players: Sequence[str]) -> list[Set]:
    """The sets that are passed when the players are added in this order, from the empty to the full one."""
    return [_in_order(order[:size], players) for size in range(len(order) + 1)]


def sets_of_orders(drawn: Iterable[Sequence[str]], players: Sequence[str]) -> list[Set]:
    """The distinct sets that these orders pass, each once, in the order in which they are first met."""
    return list(dict.fromkeys(one for order in drawn for one in prefixes(order, players)))


def restricted(drawn: Iterable[Sequence[str]], players: Sequence[str]) -> list[Set]:
    """The same orders, or sets, of fewer players: where the others do nothing (a width that is matched anyway)."""
    return [tuple(name for name in one if name in players) for one in drawn]


def all_subsets(players: Sequence[str]) -> list[Set]:
    """All 2**k subsets, by size, then in the players' order."""
    return [one for size in range(len(players) + 1) for one in combinations(players, size)]


def complement(one: Iterable[str], players: Iterable[str]) -> Set:
    """The players that a set lacks, in their order."""
    inside = set(one)
    return tuple(player for player in players if player not in inside)


def factorial_words(players: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Each player's column of the factorial as a product of base columns, e.g. (0, 2, 3).

    All words have odd length: the product of three of them is odd again and never constant, so no main effect is
    aliased with another or with the interaction of two players (resolution IV). Up to 16 players fit.

    Raises:
        DesignError: too many players.
    """
    words = [word for size in (1, 5, 3) for word in combinations(range(_BASE), size)]
    if len(players) > len(words):
        raise DesignError(f"a factorial of {RUNS} runs holds at most {len(words)} changes, not {len(players)}")
    return dict(zip(players, words, strict=False))


def factorial(players: Sequence[str]) -> list[Set]:
    """The 32 sets of a two-level fractional factorial of resolution IV; the empty and the full set are among them."""
    words = factorial_words(players)
    runs = []
    for run in range(RUNS):
        # a player is in the set when the number of base factors of its word that are off is even
        off = [not run >> factor & 1 for factor in range(_BASE)]
        runs.append(tuple(player for player, word in words.items() if sum(off[factor] for factor in word) % 2 == 0))
    return runs


def _in_order(names: Iterable[str], players: Sequence[str]) -> Set:
    chosen = set(names)
    return tuple(player for player in players if player in chosen)
