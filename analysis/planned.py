"""What the frozen studies beside the runs tell: the command behind each run, and the orders that were drawn."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from analysis.commands import command
from experiments.strict_json import MEBIBYTE, read_object

Pair = tuple[tuple[str, ...], tuple[str, ...]]  # an order of the changes, and the same backwards

_LIMIT = 256 * MEBIBYTE  # a study of thousands of runs
_NOT_OF_ONE_RUN = ("+study=", "study=", "hydra", "launcher", "runs_dir=", "data.root=")


def plans_in(source: Path) -> list[dict[str, Any]]:
    """The content of every frozen study in source/studies; unreadable ones are passed over."""
    found = []
    for path in sorted(source.glob("studies/*.json")):
        try:
            found.append(read_object(path, _LIMIT))
        except ValueError:
            continue
    return found


def commands_in(plans: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """run_id -> command of every run that a study names."""
    commands: dict[str, str] = {}
    for plan in plans:
        try:
            for overrides, run in zip(plan["jobs"], plan["runs"], strict=True):
                own = [word for word in overrides if not word.startswith(_NOT_OF_ONE_RUN)]
                commands.setdefault(run["run_id"], command(own))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return commands


def orders_in(plans: Iterable[Mapping[str, Any]]) -> tuple[Pair, ...]:
    """The antithetic pairs of orders that studies hold."""
    pairs: list[Pair] = []
    for plan in plans:
        try:
            orders = [tuple(map(str, order)) for order in plan.get("orders", [])]
        except TypeError:
            continue
        pairs += [(a, b) for a, b in zip(orders[::2], orders[1::2], strict=False) if a == b[::-1]]
    return tuple(pairs)
