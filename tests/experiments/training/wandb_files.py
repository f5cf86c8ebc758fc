"""What an offline W&B run has in its files."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def _records(file: Path) -> Iterator[bytes]:
    """The records of an offline W&B file: a 7-byte header, then LevelDB's log format in blocks of 32 KiB."""
    data, position, record = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:  # too little of the block is left for another header
            position += 32768 - position % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield record
            record = b""


def _messages(folder: Path) -> Iterator[Any]:
    """What the offline parts of a W&B run hold, in the order in which a sync would send it."""
    from wandb.proto import wandb_internal_pb2

    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for data in _records(file):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            yield record


def wandb_history(folder: Path) -> list[dict[str, Any]]:
    """The history in the offline parts of a W&B run."""
    history = []
    for record in _messages(folder):
        if record.HasField("history"):
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            values = {key: value for key, value in items.items() if not key.startswith("_")}
            history.append({"step": record.history.step.num, **values})
    return history


def wandb_artifacts(folder: Path) -> list[dict[str, Path]]:
    """The artifacts of a W&B run: name of each file -> where it is read from."""
    found = [record.request.log_artifact.artifact for record in _messages(folder) if record.HasField("request")]
    found += [record.artifact for record in _messages(folder) if record.HasField("artifact")]
    return [{item.path: Path(item.local_path) for item in one.manifest.contents} for one in found if one.name]
