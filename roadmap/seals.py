"""What a finished run's record says of the files beside it, and whether they still are what it sealed.

`result.json` ends a run: it holds the SHA-256 of every other final file (`seals`) and of its own text (`digest`). Who
reads one of these files asks here first. Records from before there were seals are read as they are.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from roadmap.errors import UserError

RECORD = "result.json"
# key in `seals` -> the names under which the file may lie in a run's folder
SEALED = {
    "weights": ("last.safetensors", "model.safetensors"),
    "ema": ("ema.safetensors",),
    "metrics": ("metrics.jsonl",),
    "config": ("config.yaml",),
    "network": ("config.json",),
}
WEIGHTS = ("weights", "ema")  # large: hashed when they are loaded, and on request
SMALL = tuple(key for key in SEALED if key not in WEIGHTS)
KEY_OF = {name: key for key, names in SEALED.items() for name in names}
RECORD_LIMIT = 1 << 20  # bytes; a record is a few kilobytes
HASH = re.compile(r"[0-9a-f]{64}")
CHUNK = 1 << 20
_DIGEST_LINE = re.compile(rb'\n "digest": "([0-9a-f]{64})",')
_RUN_NAME = re.compile(r".+-s\d+-([0-9a-f]{12})")


class SealError(UserError, ValueError):
    """A final file of a run that is not what its record sealed, or a record that is not what was written."""

    exit_code = 5


def digest_of(text: bytes) -> str:
    """SHA-256 (hex) of the text of a record, one key a line, without the line of its digest."""
    return hashlib.sha256(_DIGEST_LINE.sub(b"", text, count=1)).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's content. OSError passes."""
    found = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe in its place must not hang
    with open(descriptor, "rb") as file:
        while piece := file.read(CHUNK):
            found.update(piece)
    return found.hexdigest()


def check_record(path: Path, text: bytes, record: Mapping[str, Any]) -> Mapping[str, str] | None:
    """The seals of a record that is what was written and lies in its own run's folder; None where it has none.

    Args:
        path: its file.
        text: the content of that file.
        record: what the text says.

    Raises:
        SealError: it is not.
    """
    own = _RUN_NAME.fullmatch(path.absolute().parent.name)
    if own and not str(record.get("run_id")).startswith(own[1]):
        raise SealError(f"{path}: is the record of another run: its run_id is not the one that the folder names")
    if "digest" not in record and "seals" not in record:
        return None
    line, seals = _DIGEST_LINE.search(text), record.get("seals")
    if line is None or line[1].decode() != digest_of(text):
        raise SealError(f"{path}: is not what was sealed: its digest differs")
    if not isinstance(seals, dict) or not all(HASH.fullmatch(str(value)) for value in seals.values()):
        raise SealError(f"{path}: seals holds something that is no SHA-256")
    return seals


def differing(folder: Path, seals: Mapping[str, str], keys: Iterable[str] = tuple(SEALED)) -> Iterator[tuple[str, str]]:
    """The final files in a run's folder that are there and not what was sealed: their names, and what is wrong."""
    for key in keys:
        first = SEALED[key][0]
        for name in SEALED[key]:
            if name != first and _leads_to(folder / name, first):
                continue  # looked at already
            problem = _problem(folder / name, seals.get(key))
            if problem:
                yield name, problem


def _leads_to(path: Path, name: str) -> bool:
    return path.is_symlink() and os.readlink(path) == name


def _problem(path: Path, sealed: str | None) -> str | None:
    try:
        found = sha256_of(path)
    except FileNotFoundError:
        return None  # not here
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if sealed is None:
        return f"was not there when {RECORD} was sealed"
    return None if found == sealed else f"is not what {RECORD} sealed: its SHA-256 differs"


def check(path: Path) -> None:
    """Raise SealError where the record beside a file sealed another content of it.

    A file that no record lies beside, that seals do not cover, or that is older than seals passes.
    """
    record = path.parent / RECORD
    key = KEY_OF.get(path.name)
    if key is None or not os.path.lexists(record):
        return
    seals = _seals(record)
    problem = None if seals is None else _problem(path, seals.get(key))
    if problem:
        raise SealError(f"{path}: {problem}")


def _seals(path: Path) -> Mapping[str, str] | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            text = file.read(RECORD_LIMIT + 1)
        record = json.loads(text) if len(text) <= RECORD_LIMIT else None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not JSON"
        raise SealError(f"{path}: {reason}") from None
    if not isinstance(record, dict):
        raise SealError(f"{path}: is no record of a run")
    return check_record(path, text, record)
