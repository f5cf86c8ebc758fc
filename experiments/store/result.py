"""The schema of `result.json`, the sealed record of a run, and its validated reading (design: one object per run)."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.strict_json import MEBIBYTE, read_object

STATUSES = ("finished", "diverged")
HASH = re.compile(r"[0-9a-f]{64}")
RESULT_LIMIT = MEBIBYTE  # bytes; a record is a few kilobytes


class Field(NamedTuple):
    """What one field of a record may hold."""

    types: tuple[type, ...]
    nullable: bool = False
    low: float = -math.inf
    high: float = math.inf


TEXT, MAYBE_TEXT, OBJECT = Field((str,)), Field((str,), nullable=True), Field((dict,))
COUNT, RATE = Field((int,), low=0, high=2**53), Field((int, float), low=0, high=1e15)  # a float holds both
PER_CENT = Field((int, float), nullable=True, low=0, high=100)  # null: a run that diverged before its first evaluation

RESULT_FIELDS: dict[str, Field] = {
    "run_id": TEXT,
    "config_id": TEXT,
    "step": MAYBE_TEXT,  # ROADMAP.STEP but for ConvNeXt's own; null off all ladders
    "changes": Field((list,)),  # the set, of network and training, in ladder order
    "study": MAYBE_TEXT,  # the study that first trained this run
    "regime": TEXT,
    "seed": Field((int,), low=0, high=2**32 - 1),
    "design": OBJECT,
    "recipe": OBJECT,
    "budget": OBJECT,
    "data": OBJECT,
    "epochs": COUNT,
    "top1": PER_CENT,  # last epoch, the headline
    "top1_best": PER_CENT,
    "top1_ema": PER_CENT,
    "loss": Field((int, float), nullable=True),  # validation cross-entropy, last epoch; null where it is not finite
    "params": COUNT,
    "gmacs": RATE,
    "params_1k": COUNT,
    "gmacs_224": RATE,
    "images_per_second": RATE,
    "wall_seconds": RATE,
    "status": TEXT,
    "versions": OBJECT,
    "device": TEXT,
    "threads": COUNT,
    "git": OBJECT,
}
TIMING_FIELDS = ("images_per_second", "wall_seconds")  # what two runs of one configuration may differ in
# What a record may add; written only where it applies.
OPTIONAL_FIELDS: dict[str, Field] = {
    "idle": Field((list,)),  # changes to which data, regime or typed keys left nothing to do
    "replaced": Field((dict,), nullable=True),  # dotted keys that the changes set -> their values without the changes
    "label": TEXT,
    "batch": OBJECT,
    "precision": TEXT,
    "image_size": COUNT,
    "init_from": TEXT,  # SHA-256 of the weights that it started from
    "top5": PER_CENT,  # last epoch
    "class_names": Field((list,)),  # in the order of the network's outputs
    "eval_size": COUNT,  # images that top1 was measured on: its sampling error follows from them
    "diverged": OBJECT,  # {"step": ..., "checkpoint": the last good one, or null}
    "damaged_images": COUNT,
    "warnings": Field((list,)),  # e.g. a loss that never left chance level
}


def _problem(name: str, value: Any, field: Field) -> str | None:
    """What is wrong with one value, or None."""
    if value is None:
        return None if field.nullable else f"{name} is null"
    if not isinstance(value, field.types) or isinstance(value, bool):
        expected = " or ".join(kind.__name__ for kind in field.types)
        return f"{name} is a {type(value).__name__} instead of {expected}"
    if isinstance(value, int | float) and not (math.isfinite(value) and field.low <= value <= field.high):
        return f"{name}={value!r:.40} is outside {field.low} to {field.high}"
    return None


def _first_problem(record: Mapping[str, Any]) -> str | None:
    missing = [name for name in RESULT_FIELDS if name not in record]
    if missing:
        return f"lacks {', '.join(missing)}"
    for name, field in (RESULT_FIELDS | OPTIONAL_FIELDS).items():
        problem = _problem(name, record[name], field) if name in record else None
        if problem:
            return problem
    for name in ("run_id", "config_id"):
        if not HASH.fullmatch(record[name]):
            return f"{name} is not 64 hexadecimal digits"
    if record["status"] not in STATUSES:
        return f"status is {record['status']!r:.40} instead of {' or '.join(STATUSES)}"
    if record["status"] == "finished" and (record["top1"] is None or record["top1_best"] is None):
        return "has no top1, yet is finished"
    if not all(isinstance(change, str) for change in record["changes"]):
        return "changes holds something that is no name"
    for name in ("recipe", "budget", "data"):
        if not isinstance(record[name].get("name"), str):
            return f"{name} has no name"
    return None


def check_result(record: Mapping[str, Any], source: str = "result.json") -> None:
    """Raise ValueError with one line, naming `source` and the field, unless `record` has the schema of a result."""
    problem = _first_problem(record)
    if problem:
        raise ValueError(f"{source}: {problem}")


def read_result(path: Path) -> dict[str, Any]:
    """The sealed record in a file. Raises ValueError with one line for anything that is not one.

    Fields unknown to this version are kept: a later version may have written them.
    """
    record = read_object(Path(path), RESULT_LIMIT)
    check_result(record, str(path))
    return record
