"""Rows of records already read, in one sqlite file, so that a second look at many runs parses only what changed."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from analysis import records
from analysis.records import COLUMNS
from roadmap.changes import FILES
from roadmap.regimes import REGIMES, regime

# Rows depend on how they are made, and on what the changes and regimes are, so on the folders of one's own on the path.
_FILES = [{name: change.raw for name, change in FILES.items()}, {name: regime(name) for name in REGIMES}]
_CODE = hashlib.sha256(Path(records.__file__).read_bytes()).hexdigest()
_FORMAT = hashlib.sha256(json.dumps([_CODE, COLUMNS, _FILES]).encode()).hexdigest()[:12]


class Cache:
    """The rows by path, each with the stamp (time, size, inode) of the file that it was read from.

    A cache is never needed: one that is damaged, of another version or cannot be written is replaced or done without.
    """

    def __init__(self, path: Path | None, source: Path) -> None:
        self._db: sqlite3.Connection | None = None
        self.rows: dict[str, tuple[Any, ...]] = {}  # path -> (stamp, *row)
        self.settings: dict[str, str] = {}
        key = _FORMAT + hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:12]
        for _ in range(2):
            try:
                self._open(path, key)
                break
            except sqlite3.DatabaseError:
                self.close()
                if path is not None and path.is_file():
                    path.unlink(missing_ok=True)
            except OSError:
                break

    def _open(self, path: Path | None, key: str) -> None:
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = database = sqlite3.connect(path, timeout=10)
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        if tables and list(database.execute("SELECT key FROM meta")) != [(key,)]:
            raise sqlite3.DatabaseError("another version or another folder")
        if not tables:
            columns = ", ".join(f'"{name}" {kind}' for name, kind in COLUMNS.items())
            with database:
                database.execute("CREATE TABLE meta (key TEXT)")
                database.execute("INSERT INTO meta VALUES (?)", (key,))
                database.execute(f"CREATE TABLE rows (stamp TEXT, {columns}, PRIMARY KEY (path))")
                database.execute("CREATE TABLE settings (id TEXT PRIMARY KEY, text TEXT)")
        self.rows = {row[1]: row for row in database.execute("SELECT * FROM rows")}
        self.settings = dict(database.execute("SELECT id, text FROM settings"))

    def get(self, path: str, stamp: str) -> tuple[Any, ...] | None:
        """The cached row of this path if its file is unchanged."""
        row = self.rows.get(path)
        return row[1:] if row is not None and row[0] == stamp else None

    def store(self, fresh: Iterable[tuple[Any, ...]], settings: dict[str, str], gone: Iterable[str]) -> None:
        """Write rows (stamp, *row) and settings that were read, forget the paths that are gone."""
        if self._db is None:
            return
        marks = ", ".join("?" * (len(COLUMNS) + 1))
        try:
            with self._db:
                self._db.executemany("DELETE FROM rows WHERE path = ?", ((path,) for path in gone))
                self._db.executemany(f"INSERT OR REPLACE INTO rows VALUES ({marks})", fresh)
                self._db.executemany("INSERT OR IGNORE INTO settings VALUES (?, ?)", settings.items())
        except sqlite3.Error:
            self.close()  # a full disk or a second writer costs the cache, never the analysis

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None
