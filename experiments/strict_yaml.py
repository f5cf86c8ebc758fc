"""YAML as runs write it into config.yaml: plain values, no references, bounded in size and depth, one-line errors."""

from pathlib import Path
from typing import Any

import yaml

from experiments.strict_json import DEPTH, MEBIBYTE, read_bytes

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C, where PyYAML was built so: a tenth of the time


def read_mapping(path: Path, limit: int = MEBIBYTE) -> dict[str, Any]:
    """The keys and values in a file. Raises ValueError with one line that names the file, also one that is not there.

    References are refused: they make a small file a large value, or one without an end.
    """
    try:
        value = _value(read_bytes(path, limit).decode("utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(reason if reason.startswith(f"{path}: ") else f"{path}: {reason}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds a {type(value).__name__} instead of keys and values")
    return value


def _value(text: str) -> Any:
    """The value of a document whose events have been looked at: the C loader follows any depth until the stack ends."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"refers to another part of itself (*{event.anchor})")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise ValueError("is nested too deeply")
    return _Loader(text).get_single_data()
