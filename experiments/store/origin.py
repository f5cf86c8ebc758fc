"""What every start of a run was computed with: kept in its folder, in each checkpoint, and in the record. No torch.

An entry is one start: its name, commit and whether the code differed from it, versions, device, instruction set,
threads, world size, compile mode, kernels, and the steps that the run has of it, [from_step, to_step]; a start whose
steps were lost or done again has equal ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from experiments.strict_json import MEBIBYTE, read_object

STARTS_FILE = "start.json"
# What may change the last bits of a result, and so what a run is mixed of.
CHANGING = ("versions", "device", "instruction_set", "threads", "world_size", "compile", "kernels")
LISTED = 100  # starts; more are put together where nothing has changed between them
Entry = dict[str, Any]


def read_starts(path: Path) -> list[Entry]:
    """The entries in a file, [] where there are none or it was damaged: they describe a run and decide nothing."""
    try:
        entries = read_object(path, MEBIBYTE)["starts"]
        return [dict(entry) for entry in entries if isinstance(entry["start"], str)]
    except (ValueError, KeyError, TypeError):
        return []


def continued(known: Sequence[Entry], kept: Sequence[Entry], step: int) -> list[Entry]:
    """The starts of a run that goes on from a checkpoint.

    Args:
        known: the starts so far, as far as they have noted themselves; the last is the one that begins.
        kept: those that the checkpoint lists, with their steps.
        step: that of the checkpoint.
    """
    steps = {entry.get("start"): entry for entry in kept}
    noted = {entry["start"] for entry in known}
    entries = [entry for entry in kept if entry.get("start") not in noted]
    for entry in known[:-1]:
        at = entries[-1]["to_step"] if entries else 0
        entries.append(steps.get(entry["start"], {**entry, "from_step": at, "to_step": at}))
    return _short([*entries, *({**entry, "from_step": step, "to_step": step} for entry in known[-1:])])


def until(entries: Sequence[Entry], step: int) -> list[Entry]:
    """The same starts when the last one has come to `step`."""
    return [*entries[:-1], *({**entry, "to_step": step} for entry in entries[-1:])]


def _short(entries: list[Entry]) -> list[Entry]:
    """At most about LISTED entries; `starts` counts those that one stands for."""
    short: list[Entry] = []
    for entry in entries:
        last = short[-1] if short else None
        if len(entries) > LISTED and last is not None and _values(last) == _values(entry) and entry is not entries[-1]:
            number = last.get("starts", 1) + entry.get("starts", 1)
            short[-1] = {**last, "start": entry["start"], "to_step": entry["to_step"], "starts": number}
        else:
            short.append(entry)
    return short


def _values(entry: Mapping[str, Any]) -> Entry:
    return {key: value for key, value in entry.items() if key not in ("start", "starts", "from_step", "to_step")}


def changes(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each step at which a run went on with values that may change its last bits."""
    trained = [entry for entry in entries if entry["to_step"] > entry["from_step"] or entry is entries[-1]]
    lines = []
    for before, after in pairwise(trained):
        different = ", ".join(_differences(before, after))
        if different:
            lines.append(f"from step {after['from_step']} on: {different}")
    return lines


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for key in CHANGING:
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
            yield from (f"{name} {old.get(name)} -> {new.get(name)}" for name in names)
        elif old != new and None not in (old, new):
            yield f"{key} {old} -> {new}"
