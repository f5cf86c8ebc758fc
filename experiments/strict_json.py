"""JSON that cannot surprise: bounded in size, depth and numbers, no NaN, no duplicate keys, one canonical form.

Every error is one line.
"""

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

MEBIBYTE = 1 << 20
DEPTH = 64  # lists and objects inside each other; a record holds three, and what walks a deeper one may not return
LARGEST_INT = 2**63 - 1  # what sqlite, numpy and pandas hold, too
_HALF_A_LETTER = re.compile(rb"\\u[dD][89a-fA-F]")  # a surrogate: half of a pair, or no text at all


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"holds {text}, which is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"holds the number {text[:20]}, which no float can hold")
    return value


def _bounded(text: str) -> int:
    value = int(text) if len(text) <= 20 else LARGEST_INT + 1
    if abs(value) > LARGEST_INT:
        raise ValueError(f"holds the number {text[:20]}..., which 64 bits cannot hold")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("holds a key twice")
    return record


def _check_depth(value: Any) -> None:
    """Level by level, since a function that calls itself may not return from a deep value."""
    level = [value]
    for _ in range(DEPTH):
        level = [item for one in level if isinstance(one, dict | list) for item in _inside(one)]
        if not level:
            return
    raise ValueError("is nested too deeply")


def _inside(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def _check_text(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no text") from None


def parse(data: bytes) -> Any:
    """The value of one JSON text.

    Raises ValueError with one line for anything else, a NaN, a duplicate key, an integer beyond 64 bits, text that no
    file can hold and more than DEPTH levels.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded,
            object_pairs_hook=_unique,
        )
        if data.count(b"[") + data.count(b"{") > DEPTH:
            _check_depth(value)
        if _HALF_A_LETTER.search(data):
            _check_text(value)
        return value
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at character {error.pos}") from None


def dump(value: Any, *, indent: int | None = None) -> bytes:
    """`value` as JSON with sorted keys, so that equal values give equal bytes. NaN and infinity raise ValueError."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False, indent=indent, separators=separators)
    return text.encode() + b"\n"


def number(record: dict[str, Any], key: str, low: float = -math.inf, high: float = math.inf) -> float | None:
    """The number of a key; None where there is none, something else or one beyond the bounds."""
    value = record.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        return None
    return float(value)


def read_bytes(path: Path, limit: int) -> bytes:
    """A regular file's content. Raises ValueError for anything that is not a file or holds more than `limit` bytes.

    Non-blocking, so that a pipe put in a file's place cannot hang the reader. OSError passes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path}: is not a regular file")
        if status.st_size > limit:
            raise ValueError(f"{path}: holds {status.st_size} bytes, more than the {limit} expected at most")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path}: holds more than the {limit} bytes expected at most")
    return data


def read_object(path: Path, limit: int = MEBIBYTE) -> dict[str, Any]:
    """The JSON object in a file. Raises ValueError with one line that names the file (also when it cannot be read)."""
    return object_and_text(path, limit)[0]


def object_and_text(path: Path, limit: int = MEBIBYTE) -> tuple[dict[str, Any], bytes]:
    """The same with the text that it was read from."""
    try:
        text = read_bytes(path, limit)
        value = parse(text)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(f"{path}: ") else f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds a {type(value).__name__} instead of an object")
    return value, text
