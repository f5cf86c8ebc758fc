"""Configurations, whatever they belong to: what tells them apart, and each one's gain over a reference."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.collect import Collection
from analysis.gains import DIVERGED, FINISHED, means_of, with_gains
from analysis.records import whole
from analysis.tables import csv_text, gain_text, interval_text, plain, top1_text
from roadmap.escape import visible

MOST_DIFFERENCES = 6  # that a table names
_COMPARED = ("design", "recipe", "batch")
# Follow from others: the rate from the batch, what a name switches off, the recipe's share of the design.
_FOLLOW = (
    "recipe.without",
    "recipe.base_lr",
    "recipe.lr_batch",
    "recipe.drop_path",
    "recipe.layer_scale",
    "recipe.init",
)
NOTE = (
    "Top-1 is modelled as configuration + seed + noise by least squares, with one noise level; where seeds agree, that "
    "pairs the runs. Verdicts follow Holm's correction over the gains of this table at 5 %; the interval beside a gain "
    "is one of all of them at once (Bonferroni), the other of each gain alone."
)


@dataclass(frozen=True)
class Gains:
    """Configurations with their gains over a reference each.

    Attributes:
        table: a row per configuration; see `COLUMNS`.
        blocked: whether the model holds an effect per seed.
    """

    table: pd.DataFrame
    blocked: bool


COLUMNS = (
    *("name", "config_id", "regime", "over", "differs", "n", "diverged", "seeds", "top1", "std", "gain", "gain_low"),
    *("gain_high", "joint_low", "joint_high", "p", "p_holm", "verdict", "params", "gmacs", "averaged"),
)


def settings_of(run: Any, collection: Collection) -> dict[str, Any]:
    """What a run was asked for as dotted keys, without what follows from other keys: what two runs may differ in."""
    nested = collection.settings_of(run.settings)
    flat = {"regime": run.regime}
    for section in _COMPARED:
        values = whole(nested.get(section) or {}, section)
        flat |= {f"{section}.{key}": value for key, value in values.items()}
    return {key: value for key, value in flat.items() if key not in _FOLLOW}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The keys in which two configurations differ."""
    return [key for key in {**one, **other} if one.get(key) != other.get(key)]


def in_words(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What `one` has otherwise than `other`, as keys to type: "design.kernel_size=13 (7)"."""
    keys = differences(one, other)
    shown = [f"{key}={_text(one.get(key))} ({_text(other.get(key))})" for key in keys[:MOST_DIFFERENCES]]
    more = f" and {len(keys) - MOST_DIFFERENCES} more" if len(keys) > MOST_DIFFERENCES else ""
    return ", ".join(shown) + more


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def gains_of(runs: pd.DataFrame, over: Mapping[str, str | None], names: Mapping[str, str]) -> Gains:
    """The gain of each configuration over another.

    Args:
        runs: rows of `Collection.runs`, of all configurations that share the noise.
        over: config_id -> config_id of its reference (None: it has none), in the order of the rows.
        names: config_id -> what it is called.
    """
    runs = runs.drop(columns="step").rename(columns={"config_id": "step"})
    finished = runs[runs["status"] == FINISHED]
    means, cells, blocked = means_of(finished, "step")
    needed = list(dict.fromkeys([*over, *(other for other in over.values() if other is not None)]))
    rows = [_row(one, over.get(one), runs[runs["step"] == one]) for one in needed]
    table = with_gains(pd.DataFrame(rows), means, cells)
    table = table[table["step"].isin(list(over))].reset_index(drop=True)
    table["over"] = [names.get(other, "") if isinstance(other, str) else "" for other in table["parent"]]
    table["name"] = [names[one] for one in table["step"]]
    return Gains(table.rename(columns={"step": "config_id"}).reindex(columns=list(COLUMNS)), blocked)


def _row(config: str, over: str | None, runs: pd.DataFrame) -> dict[str, Any]:
    finished = runs[runs["status"] == FINISHED]
    first = runs.iloc[0]
    return {
        "step": config,
        "parent": over,
        "status": FINISHED,
        "regime": first["regime"],
        "n": len(finished),
        "diverged": int((runs["status"] == DIVERGED).sum()),
        "seeds": " ".join(str(seed) for seed in sorted(finished["seed"])),
        "top1": finished["top1"].mean() if len(finished) else math.nan,
        "std": finished["top1"].std() if len(finished) > 1 else math.nan,
        "params": first["params_1k"],
        "gmacs": first["gmacs_224"],
        "averaged": bool(first["averaged"]),
    }


def csv_of(table: pd.DataFrame) -> str:
    """Every column, a row per configuration, full precision."""
    return csv_text(table)


def cells_of(table: pd.DataFrame, heads: Mapping[str, str]) -> tuple[list[str], list[list[tuple[str, float | None]]]]:
    """Heads and rows of (text, sort key) for a page; `heads` are the columns to show, each with its head."""
    return list(heads.values()), [[_cell(row, column) for column in heads] for row in table.itertuples()]


def _cell(row: Any, column: str) -> tuple[str, float | None]:
    value = getattr(row, column)
    number = float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    if column == "top1":
        return top1_text(row), number
    if column == "gain":
        return gain_text(row), number
    if column == "gain_low":
        return interval_text(row.gain_low, row.gain_high), number
    if column == "p_holm":
        return ("–" if number is None else f"{number:.2g}"), number
    if column == "params":
        return plain(value / 1e6), number
    if column == "gmacs":
        return plain(value), number
    return (str(value) or "–"), None


def side_by_side(heads: Sequence[str], rows: Sequence[Sequence[tuple[str, float | None]]]) -> str:
    """Columns of text side by side, as wide as they must be, for a terminal."""
    texts = [list(heads), *([visible(text) for text, _ in row] for row in rows)]
    widths = [max(len(line[i]) for line in texts) for i in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in texts
    )
