"""Every start of a run writes below a folder of its own, so that no other owner of the run can harm what it wrote.

    starts/003-<16 hex>/    metrics, timing, checkpoints and final weights of the third start; the hex is random
    result.json             a second name of the winner's own result.json: only one start can give it

A check before each write would be a race. Instead a path leads into a start's folder, so that renaming the folder
stops its owner for good: `os.link` and `os.rename` find nothing at their old end any more. A start that was stopped for
long, or one on a host that shares no locks, can therefore only write its own files, or none.

A record is sealed by the link; then its start's files move to the top of the run's directory and the other starts are
removed. A kill in between is finished by whoever comes next (`finish`): the record names its start.
Imports no torch.
"""

import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from experiments.errors import StorageError
from experiments.store import atomic
from experiments.store.result import read_result
from experiments.strict_json import MEBIBYTE, read_object
from roadmap.pretrained import CONFIG

FOLDER, RESULT = "starts", "result.json"
NAME = re.compile(r"(\d{3,})-[0-9a-f]{16}")
GONE = ".gone-"  # before the name of a start that was taken away from its owner
DAMAGED = "result.damaged.json"
SEALING, SEALED = "sealing", ".sealed"  # where there are no hard links
CHECKPOINTS, METRICS, TIMING = "checkpoints", "metrics.jsonl", "timing.jsonl"
WEIGHTS, AVERAGED, LINKED = "last.safetensors", "ema.safetensors", "model.safetensors"
# What moves to the top of the directory, in this order: weights never lie there without what describes them.
PRODUCTS = (CONFIG, METRICS, TIMING, CHECKPOINTS, AVERAGED, WEIGHTS, LINKED)

log = logging.getLogger(__name__)


def listed(run: Path) -> list[Path]:
    """The folders of the starts that may still go on, the newest last. Raises StorageError."""
    try:
        names = [name for name in os.listdir(run / FOLDER) if NAME.fullmatch(name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(f"cannot read {run / FOLDER}: {error.strerror or error}") from None
    return [run / FOLDER / name for name in sorted(names, key=_age)]


def _age(name: str) -> tuple[int, str]:
    return int(name.split("-")[0]), name


def begin(run: Path) -> Path:
    """A new start's folder, the newest; what lies at the top of the directory without a record is moved into it.

    That is what a run left whose damaged record is set aside, or one of a version that had no starts. Raises
    StorageError.
    """
    own = _new_folder(run)
    _set_damaged_aside(own, run)
    if not os.path.lexists(run / RESULT):
        for name in PRODUCTS:
            atomic.take(run / name, own / name)
    return own


def _new_folder(run: Path) -> Path:
    if os.path.islink(run / FOLDER):
        atomic.remove(run / FOLDER)
    for last in (False, False, True):
        atomic.make_inside(run / FOLDER)
        newest = max((_age(start.name)[0] for start in listed(run)), default=0)
        own = run / FOLDER / f"{newest + 1:03d}-{os.urandom(8).hex()}"
        try:
            atomic.make_inside(own)
            break
        except StorageError:  # whoever has finished a sealed run removes the empty folder around it
            if last or (run / FOLDER).is_dir():
                raise
    return own


def _is_damaged(record: Path) -> bool:
    if not os.path.lexists(record):
        return False
    try:
        read_result(record)
    except ValueError:
        return True
    return False


def _set_damaged_aside(own: Path, run: Path) -> None:
    """Move a record that is not what was sealed out of the way, through one's own folder: a late owner has none.

    One that another start has put in its place meanwhile is put back.
    """
    seen = _file(run / RESULT)
    if not _is_damaged(run / RESULT) or not atomic.take(run / RESULT, own / DAMAGED):
        return
    if _file(own / DAMAGED) == seen:
        log.warning(
            "%s or a file that it seals is damaged: it is set aside, the run continues from its checkpoint",
            run / RESULT,
        )
        atomic.take(own / DAMAGED, run / DAMAGED)
    else:
        atomic.take(own / DAMAGED, run / RESULT)


def _file(path: Path) -> tuple[int, ...]:
    """What tells a file from another that takes its name; moving it does not change that."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def seal(own: Path, content: bytes) -> bool:
    """Make `content` the record of the run, unless another start has sealed it: False. Raises StorageError."""
    run, written = own.parent.parent, own / RESULT
    atomic.replace(written, [content])
    try:
        return atomic.publish_once(written, run / RESULT) or winner(run) == own.name  # NFS may make it and then deny it
    except atomic.NoLinksError:
        return _seal_without_links(own, run)


def _seal_without_links(own: Path, run: Path) -> bool:
    """The same by a folder: it can be renamed only to a name that no other folder has, unless that one is empty."""
    sealing = own / SEALING
    atomic.make_inside(sealing)
    atomic.replace(sealing / own.name, [b""])  # stays in it, so that it is never empty
    atomic.take(own / RESULT, sealing / RESULT)
    if atomic.publish_folder_once(sealing, run / SEALED) and not os.path.lexists(run / RESULT):
        atomic.take(run / SEALED / RESULT, run / RESULT)
    return winner(run) == own.name  # somebody else may have finished it for us


def winner(run: Path) -> str | None:
    """The name of the start that has sealed the run; None without a record, or with one of a version without starts."""
    record = run / RESULT if os.path.lexists(run / RESULT) else run / SEALED / RESULT
    try:
        name = read_object(record, MEBIBYTE)["starts"][-1]["start"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return name if isinstance(name, str) and NAME.fullmatch(name) else None


def place_of(run: Path, name: str) -> Path:
    """Where a product of the run is found: at the top of the directory, or in the start that has it for now."""
    if not os.path.isdir(run / FOLDER):
        return run / name
    if os.path.lexists(run / RESULT):
        sealed = winner(run)
        here = os.path.lexists(run / name) or sealed is None
        return run / name if here else run / FOLDER / str(sealed) / name
    for start in reversed(listed(run)):
        if os.path.lexists(start / name):
            return start / name
    return run / name


def finish(run: Path) -> None:
    """Give a sealed run its final form, as far as it lacks it; any number of processes may do so at once.

    Without a record nothing is done. Raises StorageError.
    """
    if os.path.isdir(run / SEALED):
        if not os.path.lexists(run / RESULT):
            atomic.take(run / SEALED / RESULT, run / RESULT)
        atomic.remove(run / SEALED)
    if not os.path.isdir(run / FOLDER):
        return
    name = winner(run)
    if name is None:
        return
    own, gone = run / FOLDER / name, run / FOLDER / (GONE + name)
    if gone.is_dir() and not own.exists():  # a later start found out too late that this one had sealed
        atomic.take(gone, own)
    for start in listed(run):
        if start.name != name:
            _retire(start, lambda: winner(run) == name)
    _move_up(own, run)
    _remove_retired(run, name)
    atomic.remove_empty(run / FOLDER)


def _move_up(own: Path, run: Path) -> None:
    """Move a winner's products to the top of the directory; its folder goes once it holds none."""
    for product in PRODUCTS:
        atomic.take(own / product, run / product)
    if own.is_dir() and not any(os.path.lexists(own / product) for product in PRODUCTS):
        _quietly_remove(own)


def retire_earlier(own: Path) -> bool:
    """Remove all starts before `own`; False when one of them has sealed the run, or `own` itself has been retired.

    From then on none of their owners can write or seal anything. Raises StorageError.
    """
    run = own.parent.parent
    for start in listed(run):
        if _age(start.name) < _age(own.name):
            _retire(start, partial(_may_go, start, own))
    _remove_retired(run, winner(run))
    return not is_lost(own)


def is_lost(own: Path) -> bool:
    """Whether a start that has not sealed its run never will: another one has, or has retired it."""
    run = own.parent.parent
    return not own.is_dir() or os.path.lexists(run / RESULT) or os.path.lexists(run / SEALED / RESULT)


def _may_go(start: Path, own: Path) -> bool:
    return own.is_dir() and winner(own.parent.parent) != start.name


def retire_all(run: Path) -> None:
    """Take the folders of all starts away from their owners, whatever they have done. Raises StorageError."""
    if os.path.lexists(run / FOLDER):
        atomic.discard(run / FOLDER)
    atomic.remove(run / SEALED)


def _retire(start: Path, allowed: Callable[[], bool]) -> None:
    """Take a start's folder away from its owner, and remove it if that is `allowed` afterwards; else give it back.

    Before the renaming the owner may have sealed the run, after it it cannot: the answer does not change any more.
    """
    gone = start.with_name(GONE + start.name)
    if not atomic.take(start, gone):
        return
    if allowed():
        _quietly_remove(gone)
    else:
        atomic.take(gone, start)


def _remove_retired(run: Path, name: str | None) -> None:
    """Remove what a kill has left of retired starts, but for the winner's."""
    with suppress(OSError):
        for left in (run / FOLDER).glob(f"{GONE}*"):
            if left.name != f"{GONE}{name}":
                _quietly_remove(left)


def _quietly_remove(folder: Path) -> None:
    """Remove a retired folder; what cannot go now (a file in use on NFS) is left for the next start."""
    with suppress(StorageError):
        atomic.remove(folder)
