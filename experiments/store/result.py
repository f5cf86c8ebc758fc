"""The schema of `result.json`, the sealed record of a run, and its validated reading (design: one object per run)."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.config.identity import ids_follow
from experiments.errors import StorageError
from experiments.strict_json import dump, object_and_text
from roadmap.seals import HASH, RECORD_LIMIT, SMALL, SealError, check_record, differing, digest_of, sha256_of

STATUSES = ("finished", "diverged")


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
TIMING_FIELDS = ("images_per_second", "wall_seconds")
VARYING_FIELDS = (*TIMING_FIELDS, "starts", "digest")  # what two runs of one configuration may differ in
# What a record may add; written only where it applies.
OPTIONAL_FIELDS: dict[str, Field] = {
    "idle": Field((list,)),  # changes to which data, regime or typed keys left nothing to do
    "replaced": Field((dict,), nullable=True),  # dotted keys that the changes set -> their values without the changes
    "label": TEXT,
    "batch": OBJECT,
    "precision": TEXT,
    "image_size": COUNT,
    "starts": Field((list,)),  # experiments.store.origin; the last one's name says where its files were written
    "init_from": TEXT,  # SHA-256 of the weights that it started from
    "top5": PER_CENT,  # last epoch
    "class_names": Field((list,)),  # in the order of the network's outputs
    "eval_size": COUNT,  # images that top1 was measured on: its sampling error follows from them
    "diverged": OBJECT,  # {"step": ..., "checkpoint": the last good one, or null}
    "damaged_images": COUNT,
    "warnings": Field((list,)),  # e.g. a loss that never left chance level
    "seals": OBJECT,  # SHA-256 of every other final file (roadmap.seals); records from before there were seals lack it
    "digest": TEXT,  # SHA-256 of the record's own text without the line of the digest
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


def sealed(record: Mapping[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """The record with the hashes of a run's final files and its own.

    Args:
        record: as the run composed it.
        files: keys of `roadmap.seals.SEALED` and where the files lie; one that is not there is not sealed.

    Raises:
        StorageError: a file cannot be read.
    """
    whole = {**record, "seals": {key: _hash(path) for key, path in files.items() if path.exists()}}
    return {**whole, "digest": digest_of(dump(whole, indent=1))}


def _hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise StorageError(f"cannot read {path} to seal it: {error.strerror or error}") from error


def comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs of one identity must agree in: nothing that tells of times, starts or the machine."""
    kept = {key: value for key, value in record.items() if key not in VARYING_FIELDS}
    if "seals" in kept:
        kept["seals"] = {key: value for key, value in kept["seals"].items() if key != "config"}
    return kept


def read_result(path: Path) -> dict[str, Any]:
    """The sealed record in a file, checked with the small files beside it; the weights are left to who loads them.

    Fields unknown to this version are kept: a later version may have written them.

    Raises:
        ValueError: with one line: it is no record, not what was sealed, or of another run than it says; or a file
            beside it is not what it sealed. A file that is not there is no fault, nor are missing seals.
    """
    path = Path(path)
    record, seals = read_record(path)
    for name, problem in differing(path.parent, seals or {}, SMALL if seals is not None else ()):
        raise SealError(f"{path.with_name(name)}: {problem}")
    return record


def read_record(path: Path) -> tuple[dict[str, Any], Mapping[str, str] | None]:
    """The record in a file and its seals (None: it is older than seals), without a look at the files beside it.

    Raises ValueError with one line as `read_result`.
    """
    record, text = object_and_text(path, RECORD_LIMIT)
    check_result(record, str(path))
    seals = check_record(path, text, record)
    if not ids_follow(record):
        raise SealError(f"{path}: its run_id is not that of what it says was asked for")
    return record, seals
