"""Where data sets are looked for, and hashing their files."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from experiments.config.settings import Data
from experiments.errors import DataError

_checksums: dict[tuple, str] = {}


def cache_folder() -> Path:
    """Where downloads go: $XDG_CACHE_HOME or ~/.cache, below it convnext-roadmap."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convnext-roadmap"


def candidates(data: Data, extra: Iterable[str | Path] = ()) -> list[Path]:
    """Folders that may hold a data set: data.root alone where it is set, else the usual places."""
    if data.root is not None:
        root = Path(data.root).expanduser()
        if not os.path.isdir(root):  # which is no for whatever the system refuses
            raise DataError(f"data.root={data.root} is not a folder; it should hold the {data.name} files")
        return [root, root / data.name]
    usual = [Path("data") / data.name, Path("data"), cache_folder() / data.name, cache_folder()]
    return usual + [Path(place) for place in extra]


def not_found(data: Data, expected: str, looked_in: Sequence[Path]) -> DataError:
    """The error for a missing data set, which says what was expected and where it was looked for."""
    hint = "set data.root" if data.root is None else "check data.root"
    places = ", ".join(str(place) for place in looked_in)
    return DataError(f"data={data.name}: expected {expected} in one of: {places}; {hint}")


def cached_checksum(paths: Sequence[Path], content: Callable[[], Iterable[bytes]]) -> str:
    """Hash of `content()`, which says what is wrong with a missing file; remembered while they keep size and time."""
    key = tuple((str(path), *_stamp(path)) for path in paths)
    if key not in _checksums:
        _checksums[key] = hashed(content())
    return _checksums[key]


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        return path.stat().st_size, path.stat().st_mtime_ns
    except FileNotFoundError:
        return ()


def hashed(parts: Iterable[bytes]) -> str:
    """SHA-256 of the parts, 32 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:32]
