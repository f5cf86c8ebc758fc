"""What was read of a folder of runs, kept so that the next look reads only what has changed.

One file a folder of runs, in the user's cache folder: a line of JSON for each kind of thing kept, each line behind its
own SHA-256. An entry counts only while the files that it was read from have the size, times and inode that they had. A
cache is never needed: a line that is damaged, of another version or cannot be written is done without.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from experiments.errors import StorageError
from experiments.store import atomic
from experiments.strict_json import MEBIBYTE, read_bytes
from roadmap.seals import RECORD, SEALED, SMALL

VARIABLE = "ROADMAP_CACHE"
LIMIT = 1024 * MEBIBYTE
SETTLED_NS = 2_000_000_000  # a younger file may change again within the same tick of its file system's clock
LINE = re.compile(rb"(\w+@\w+) [0-9a-f]{64} ")  # a kind with its version, the SHA-256 of the rest
STAMPED = (RECORD, *(name for key in SMALL for name in SEALED[key]))


class Stamp(NamedTuple):
    """What tells a file's contents apart without reading them."""

    text: str
    newest: int  # time of the last change, ns
    taken: int  # when we looked, ns

    @property
    def settled(self) -> bool:
        """Whether any later change must have another time."""
        return self.newest < self.taken - SETTLED_NS


def stamp_of(folder: str | Path, names: Sequence[str] = STAMPED) -> Stamp:
    """The stamp of files in a folder together; one that is not there counts as such.

    To be taken before the files are read: what changes in between is then read again the next time.
    """
    taken, found = time.time_ns(), {}
    with suppress(OSError), os.scandir(folder) as scan:
        for entry in scan:
            if entry.name in names:
                with suppress(OSError):
                    found[entry.name] = entry.stat()
    parts = (
        f"{name}:{own.st_size}.{own.st_mtime_ns}.{own.st_ctime_ns}.{own.st_ino}" for name, own in sorted(found.items())
    )
    return Stamp(" ".join(parts), max((own.st_mtime_ns for own in found.values()), default=0), taken)


def cache_file(runs_dir: Path) -> Path:
    """Where the cache of a folder of runs lies: in ROADMAP_CACHE, else in the user's cache folder."""
    users = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.environ.get(VARIABLE) or os.path.join(users, "convnext-roadmap")
    return Path(folder) / f"runs-{hashlib.sha256(os.fsencode(runs_dir.resolve())).hexdigest()[:16]}"


def version_of(*modules: Any) -> str:
    """A name for how entries are made that changes with the code of these modules."""
    return hashlib.sha256(b"".join(Path(module.__file__).read_bytes() for module in modules)).hexdigest()[:12]


class Cache:
    """Entries by kind and key, each with the stamp of what it was read from."""

    def __init__(self, path: Path | None) -> None:
        """`path`: the file, see `cache_file`; None keeps nothing."""
        self.path = path
        self._lines = _lines_of(path) if path else {}  # kind -> its line as it was found, until it is asked for
        self._kept: dict[str, dict[str, list[Any]]] = {}
        self._used: dict[str, dict[str, list[Any]]] = {}
        self._changed = False

    def get(self, kind: str, key: str, stamp: Stamp) -> Any:
        """What was put there while the files were as they are now, else None."""
        entry = self._entries(kind).get(key)
        if entry is None or entry[0] != stamp.text:
            return None
        self._used[kind][key] = entry
        return entry[1]

    def put(self, kind: str, key: str, stamp: Stamp, value: Any) -> None:
        """Keep something that JSON can hold, unless its files have only just changed."""
        self._entries(kind)
        if stamp.settled:
            self._used[kind][key] = [stamp.text, value]
            self._changed = True

    def save(self, whole: bool = True) -> None:
        """Write the file anew where that changes it.

        Args:
            whole: everything was looked at: of the kinds in use, what nobody asked for is gone and is forgotten.
        """
        if not whole:
            self._used = {kind: {**kept, **self._used[kind]} for kind, kept in self._kept.items()}
        gone = any(self._used[kind].keys() != kept.keys() for kind, kept in self._kept.items())
        if self.path is None or not (self._changed or gone):
            return
        lines = dict(self._lines) | {kind: _line(kind, entries) for kind, entries in self._used.items()}
        with suppress(StorageError, OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            atomic.replace(self.path, lines.values())
        self._changed = False

    def _entries(self, kind: str) -> dict[str, list[Any]]:
        """The entries of a kind as they were found; other versions of the kind go."""
        if kind not in self._kept:
            own = self._lines.get(kind)
            name = kind.partition("@")[0]
            self._lines = {other: line for other, line in self._lines.items() if other.partition("@")[0] != name}
            self._kept[kind], self._used[kind] = _parsed(own), {}
        return self._kept[kind]


def _line(kind: str, entries: dict[str, list[Any]]) -> bytes:
    text = json.dumps(entries, separators=(",", ":")).encode()
    return f"{kind} {hashlib.sha256(text).hexdigest()} ".encode() + text + b"\n"


def _lines_of(path: Path) -> dict[str, bytes]:
    try:
        lines = read_bytes(path, LIMIT).splitlines(keepends=True)
    except (OSError, ValueError):
        return {}
    starts = ((LINE.match(line), line) for line in lines if line.endswith(b"\n"))
    return {start[1].decode(): line for start, line in starts if start}


def _parsed(line: bytes | None) -> dict[str, list[Any]]:
    """The entries of a line, none where it is not what was written."""
    if line is None:
        return {}
    _, digest, text = line.rstrip(b"\n").split(b" ", 2)
    if hashlib.sha256(text).hexdigest().encode() != digest:
        return {}
    entries: dict[str, list[Any]] = json.loads(text)
    return entries
