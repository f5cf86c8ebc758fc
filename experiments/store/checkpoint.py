"""Checkpoints: a folder of one safetensors file and one manifest, complete and verified or not used at all.

    checkpoints/step-00000120-<16 hex>/state.safetensors    every tensor of the state
    checkpoints/step-00000120-<16 hex>/manifest.json        run, step, sizes, hashes, and the state that is no tensor

The folder's name ends with the manifest's own SHA-256, the manifest holds the file's and each tensor's: a flipped bit,
a cut, a tensor in another's place or a manifest of another generation breaks the chain. A checkpoint is written as
`.writing`, synced, and renamed; a kill at any moment leaves the generations before it as they were. Pickle is not used.
A published checkpoint never changes, so the starts of a run share its files by hard links.
"""

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.errors import StorageError
from experiments.store import atomic
from experiments.store.starts import CHECKPOINTS
from experiments.store.tensor_file import LIMIT, entry_of, load_weights, parse_tensors, pieces_of, save_weights
from experiments.strict_json import MEBIBYTE, dump, parse, read_bytes

__all__ = ["Checkpoints", "Loaded", "load_weights", "save_weights", "size_limit"]

FORMAT = 1
MANIFEST, STATE = "manifest.json", "state.safetensors"
WRITING, REMOVING, SET_ASIDE = ".writing", ".removing", "damaged"
NAME = re.compile(r"step-(\d{8,})-([0-9a-f]{16})")
MANIFEST_LIMIT = 64 * MEBIBYTE

log = logging.getLogger(__name__)


def size_limit(networks: Iterable[Tensor]) -> int:
    """The largest state file, in bytes, that a run of these networks could have written: six copies and some room.

    An optimizer keeps up to four tensors per weight (Adan), and small ones beside them. A larger file is not this
    run's, whatever its manifest says.
    """
    return 6 * sum(tensor.numel() * tensor.element_size() for tensor in networks) + 64 * MEBIBYTE


@dataclass(frozen=True)
class Loaded:
    """A verified checkpoint, and what was wrong with the newer ones (one line each)."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    path: Path
    skipped: tuple[str, ...] = ()


def _folder_name(step: int, manifest: bytes) -> str:
    return f"step-{step:08d}-{hashlib.sha256(manifest).hexdigest()[:16]}"


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _read(path: Path, limit: int) -> bytes:
    """A file's content; raises ValueError where it is missing, unreadable, too large or no plain file."""
    if path.is_symlink():
        raise ValueError(f"{path.name} is a symbolic link")
    try:
        return read_bytes(path, limit)
    except OSError as error:
        raise ValueError(f"{path.name}: {error.strerror or error}") from None


def _check_manifest(folder: Path, run_id: str) -> dict[str, Any]:
    """The manifest of a checkpoint of this run. Raises ValueError with the first thing that is wrong."""
    data = _read(folder / MANIFEST, MANIFEST_LIMIT)
    name = NAME.fullmatch(folder.name)
    if name is None or hashlib.sha256(data).hexdigest()[:16] != name[2]:
        raise ValueError(f"{MANIFEST} is damaged, or belongs to another checkpoint")
    manifest: dict[str, Any] = parse(data)
    if manifest["format"] != FORMAT:
        raise ValueError(f"has format {manifest['format']}, this program reads {FORMAT}")
    if manifest["run_id"] != run_id:
        raise ValueError(f"belongs to run {str(manifest['run_id'])[:12]!r}, not to {run_id[:12]!r}")
    if manifest["step"] != int(name[1]) or not isinstance(manifest["state"], dict):
        raise ValueError("its manifest names another step, or no state")
    return manifest


def _check_tensors(data: bytes, manifest: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors of the file that the manifest describes. Raises ValueError or StorageError."""
    if len(data) != manifest["size"]:
        raise ValueError(f"{STATE} has {len(data)} bytes instead of {manifest['size']}")
    if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
        raise ValueError(f"{STATE} is damaged: its SHA-256 differs from the manifest's")
    tensors = parse_tensors(data, path)
    if sorted(tensors) != sorted(manifest["tensors"]):
        raise ValueError(f"{STATE} holds other tensors than its manifest")
    for name, tensor in tensors.items():
        dtype, shape, sha256 = manifest["tensors"][name]
        if entry_of(tensor) != (dtype, tuple(shape), sha256):
            raise ValueError(f"tensor {name} differs from its manifest")
    return tensors


def _generations(folder: Path) -> list[str]:
    """Names of the checkpoints in a folder, oldest step first; what does not carry a checkpoint's name is none."""
    try:
        names = [entry.name for entry in folder.iterdir() if NAME.fullmatch(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(f"cannot read {folder}: {error.strerror or error}") from None
    return sorted(names, key=lambda name: (int(name.split("-")[1]), name))


class Checkpoints:
    """The checkpoints of one start of a run: saves in the background, keeps `keep` generations, loads what verifies.

    Only the start that owns the folder saves; any process may load.
    """

    def __init__(
        self,
        place: Path,
        run_id: str,
        keep: int = 2,
        background: bool = True,
        max_bytes: int = LIMIT,
        after: Callable[[], None] | None = None,
    ) -> None:
        """What lies in `place`/checkpoints; `place` must exist before the first save.

        Args:
            place: the folder of the start.
            run_id: the run's.
            keep: generations that stay.
            background: whether a thread writes.
            max_bytes: a state file larger than this is refused before it is read.
            after: called after each save, in its thread.
        """
        self.folder = Path(place) / CHECKPOINTS
        self.run_id = run_id
        self.keep = keep
        self.background = background
        self.max_bytes = max_bytes
        self.after = after
        self._bad: list[str] = []
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._host: dict[str, Tensor] = {}

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Save the state after optimizer step `step` (counted over the whole run).

        The tensors are copied before this returns, so that training may go on changing them; a thread then writes them.
        Waits for the save before it and raises that one's StorageError. `state` is anything JSON can hold.
        """
        self.wait()
        document = dump(dict(state))  # now, because the caller's objects may change while the thread writes
        copies = self._copy(tensors)
        if not self.background:
            self._write(step, copies, document)
            return
        self._thread = threading.Thread(target=self._guarded, args=(step, copies, document), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the save under way is on disk; raises its StorageError, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    @property
    def saving(self) -> bool:
        """Whether a save is under way in the background."""
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """Wait for the save under way, which reads the copies of the state, and free them."""
        try:
            self.wait()
        finally:
            self._host.clear()

    def inherit(self, places: Iterable[Path]) -> None:
        """Take over the checkpoints of earlier starts, as they are: `load` verifies what it uses. Raises StorageError.

        One that its owner, who may still be alive, removes meanwhile is left out: it has newer ones.
        """
        atomic.make_inside(self.folder)
        for folder in (Path(place) / CHECKPOINTS for place in places):
            for name in _generations(folder):
                if not (self.folder / name).exists():
                    self._share(folder / name)

    def _share(self, checkpoint: Path) -> None:
        writing = self.folder / WRITING
        atomic.remove(writing)
        if checkpoint.is_symlink():
            log.warning("checkpoint %s is not used: is a symbolic link", checkpoint.name)
            return
        atomic.make_inside(writing)
        for name in (STATE, MANIFEST):
            if _is_file(checkpoint / name):
                atomic.copy(checkpoint / name, writing / name)
        if checkpoint.exists():
            atomic.publish_folder(writing, self.folder / checkpoint.name)

    def load(self) -> Loaded | None:
        """The newest checkpoint of this run that verifies completely, or None. Changes nothing on disk.

        Every newer one that does not is reported in the log and in `Loaded.skipped`, and set aside by the next save.
        """
        self.wait()
        self._bad = []
        skipped: list[str] = []
        for name in reversed(_generations(self.folder)):
            try:
                return self._verified(self.folder / name, tuple(skipped))
            except (ValueError, KeyError, TypeError, AttributeError, IndexError, StorageError) as error:
                reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
                skipped.append(f"checkpoint {name} is not used: {reason}")
                log.warning("%s", skipped[-1])
                self._bad.append(name)
        if skipped:
            log.warning("no usable checkpoint is left in %s: the run starts over", self.folder)
        return None

    def _verified(self, folder: Path, skipped: tuple[str, ...]) -> Loaded:
        if folder.is_symlink():
            raise ValueError("is a symbolic link")
        manifest = _check_manifest(folder, self.run_id)
        data = _read(folder / STATE, min(self.max_bytes, int(manifest["size"])))
        tensors = _check_tensors(data, manifest, folder / STATE)
        return Loaded(manifest["step"], tensors, manifest["state"], folder, skipped)

    def _copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies in CPU memory that is reused from save to save, pinned where the state lies on a GPU."""
        on_gpu = any(tensor.is_cuda for tensor in tensors.values())
        copies = {}
        for name, tensor in tensors.items():
            old = self._host.get(name)
            if old is None or old.shape != tensor.shape or old.dtype != tensor.dtype:
                old = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            copies[name] = old.copy_(tensor.detach(), non_blocking=True)
        if on_gpu:
            torch.cuda.synchronize()
        self._host = copies
        return copies

    def _guarded(self, *arguments: Any) -> None:
        try:
            self._write(*arguments)
        except BaseException as error:  # handed to the next call: a thread has nobody to raise it to
            self._error = error

    def _write(self, step: int, tensors: Mapping[str, Tensor], document: bytes) -> None:
        """Write one checkpoint and remove what is no longer kept. Raises StorageError; older ones stay as they are."""
        self._tidy()
        writing = self.folder / WRITING
        try:
            atomic.make_inside(self.folder)
            atomic.make_inside(writing)
            written = atomic.create(writing / STATE, pieces_of(tensors))
            manifest = dump(
                {
                    "format": FORMAT,
                    "run_id": self.run_id,
                    "step": step,
                    "size": written.size,
                    "sha256": written.sha256,
                    "tensors": {name: entry_of(tensor) for name, tensor in tensors.items()},
                    "state": parse(document),
                }
            )
            atomic.create(writing / MANIFEST, [manifest])
            final = self.folder / _folder_name(step, manifest)
            if final.exists():  # the same state of the same step was saved before
                atomic.discard(final)
            atomic.publish_folder(writing, final)
        except StorageError:
            _quietly(lambda: atomic.remove(writing))
            raise
        older = [name for name in _generations(self.folder) if name != final.name]
        for name in older[: max(0, len(older) - self.keep + 1)]:
            atomic.discard(self.folder / name)
        if self.after is not None:
            self.after()

    def _tidy(self) -> None:
        """Remove what a killed process left; set damaged checkpoints aside (the last of them stays for inspection)."""
        for left in (WRITING, REMOVING):
            atomic.remove(self.folder / left)
        for name in self._bad:
            if (self.folder / name).exists():
                atomic.move(self.folder / name, self.folder / SET_ASIDE)
        self._bad = []


def _quietly(action: Callable[[], None]) -> None:
    """Clean up after an error that is already on its way; what stays is removed by the next save."""
    try:
        action()
    except StorageError as error:
        log.debug("%s", error)
