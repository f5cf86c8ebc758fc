"""The lines that a run adds to its metrics and timing, and what they must be when it is sealed. Imports no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.strict_json import MEBIBYTE, parse, read_bytes

LINES_LIMIT = 64 * MEBIBYTE


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a .jsonl file, [] where there is none; a last line without its end was cut off and is left out.

    Raises ValueError with one line for a damaged file.
    """
    try:
        data = read_bytes(Path(path), LINES_LIMIT)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    records = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            record = parse(line)
        except ValueError as error:
            raise ValueError(f"{path}: line {number} {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}: line {number} holds no object")
        records.append(record)
    return records


def check_epochs(result: Mapping[str, Any], epochs: Sequence[Any]) -> None:
    """Raise ValueError unless a record's metrics are its epochs from 1 on, once each, and all that were asked for."""
    if list(epochs) != list(range(1, result["epochs"] + 1)):
        raise ValueError(f"result.json: epochs={result['epochs']}, but metrics.jsonl holds {_brief(epochs)}")
    asked = result["recipe"].get("epochs", result["epochs"])
    if result["status"] == "finished" and asked != result["epochs"]:
        raise ValueError(f"result.json: epochs={result['epochs']} of {asked}, yet it is finished")


def _brief(epochs: Sequence[Any]) -> str:
    text = ", ".join(str(epoch) for epoch in epochs)
    return f"the epochs {text}" if len(text) < 200 else f"{len(epochs)} lines"
