"""A run's directory is its truth: what lies in it, when it is written, how it is read back. Imports no torch, no hydra.

config.yaml        what was asked for, resolved; no absolute paths
starts/            until the run is sealed: a folder per start with what is listed from here to the link, and start.json
metrics.jsonl      a line per epoch; cut back to the checkpoint on resume, so free of anything that tells the time
timing.jsonl       a line per epoch: seconds, images per second
checkpoints/       see experiments.store.checkpoint
last.safetensors   the final weights; ema.safetensors their average, where there is one
config.json        what they are of, in timm's and the Hub's form; model.safetensors, the name they look for, is a link
result.json        sealed last: a run has a result exactly when this file exists
error.json         why which start failed, and whether the machine is to blame; removed by the next start
environment.json   hosts, devices and absolute paths, one entry per start; never environment variables
"""

import dataclasses
import logging
import os
import platform
import re
import socket
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from experiments.config.identity import Identity
from experiments.config.settings import Settings
from experiments.errors import OF_MACHINE, ClaimedError, ConfigError, StorageError
from experiments.store import atomic, starts
from experiments.store.history import check_epochs, read_lines
from experiments.store.origin import STARTS_FILE, read_starts
from experiments.store.result import OPTIONAL_FIELDS, RESULT_FIELDS, TIMING_FIELDS, check_result, read_result, sealed
from experiments.strict_json import MEBIBYTE, dump, parse, read_object
from experiments.strict_yaml import read_mapping
from roadmap.errors import UserError
from roadmap.pretrained import CONFIG

__all__ = ["OPTIONAL_FIELDS", "RESULT_FIELDS", "TIMING_FIELDS", "RunDir", "public", "read_lines", "read_result"]

NO_RUNS = ("studies", "bench", "checkpoints", "starts")  # folders of ours that are no runs and hold none
DEPTH = 4  # of folders below a folder of runs that are looked for runs
SESSIONS_KEPT = 100  # entries of environment.json
SECRET = re.compile(r"(?i)key|token|secret|passw|credential|auth")
ABSOLUTE_PATH = re.compile(r"(?<![\w.~/])(?:/[^\s/'\":;,()]+)+/([^\s/'\":;,()]+)")

log = logging.getLogger(__name__)


def public(settings: Settings) -> dict[str, Any]:
    """The settings as plain nested values, without the paths of a machine (runs_dir, data.root, init_from)."""
    config = parse(dump(dataclasses.asdict(settings)))  # tuples become lists
    del config["runs_dir"], config["init_from"], config["data"]["root"]
    plain: dict[str, Any] = config
    return plain


@lru_cache(maxsize=4)
def _by_id(runs: Path, _changed: int) -> dict[str, Path]:
    """What tells runs apart -> the directory, of a folder of runs as it was when it had last changed."""
    found = (re.search(r"-[a-z_]+-s\d+-[0-9a-f]{12}$", name) for name in sorted(os.listdir(runs)))
    return {match[0]: runs / match.string for match in found if match}


def known_by(settings: Settings, run_id: str) -> str:
    """The end of the name of a run's folder, which tells runs apart."""
    return f"-{settings.regime}-s{settings.seed}-{run_id[:12]}"


class RunDir:
    """The directory of one run.

    Whoever starts it (`start`, under the claim of experiments.store.lock) has a start of its own and writes below its
    folder only; everybody else sees the newest start, or what is sealed (experiments.store.starts).
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.result = self.path / starts.RESULT
        self.error = self.path / "error.json"
        self.environment = self.path / "environment.json"
        self.own: Path | None = None  # the folder of the start that this process is

    def _file(self, name: str) -> Path:
        return self.own / name if self.own else starts.place_of(self.path, name)

    @property
    def place(self) -> Path:
        """Where this process writes: its start's folder; the run's directory itself before `start`."""
        return self.own or self.path

    @property
    def metrics(self) -> Path:
        """A line per epoch."""
        return self._file(starts.METRICS)

    @property
    def timing(self) -> Path:
        """A line per epoch: seconds, images per second."""
        return self._file(starts.TIMING)

    @property
    def checkpoints(self) -> Path:
        """The folder of experiments.store.checkpoint."""
        return self._file(starts.CHECKPOINTS)

    @property
    def weights(self) -> Path:
        """The final weights."""
        return self._file(starts.WEIGHTS)

    @property
    def averaged(self) -> Path:
        """Their average, where there is one."""
        return self._file(starts.AVERAGED)

    @property
    def described(self) -> Path:
        """What the weights are of."""
        return self._file(CONFIG)

    @property
    def linked(self) -> Path:
        """The Hub's name of the weights."""
        return self._file(starts.LINKED)

    @property
    def final_files(self) -> dict[str, Path]:
        """What the record seals: keys of `roadmap.seals.SEALED`."""
        return {
            "weights": self.weights,
            "ema": self.averaged,
            "metrics": self.metrics,
            "config": self.config,
            "network": self.described,
        }

    @classmethod
    def locate(cls, settings: Settings, identity: Identity | None = None) -> "RunDir":
        """Where the run of these settings lies: <runs_dir>/<label>-<regime>-s<seed>-<first 12 digits of its run_id>.

        A run that lies there under another label is that run: a set of changes can be typed key by key, and the folder
        with the step that names it may have been missing.
        """
        run_id = (identity or Identity.of(settings)).run_id
        return cls.named(Path(settings.runs_dir), settings.label, known_by(settings, run_id))

    @classmethod
    def named(cls, runs: Path, label: str, known_by: str) -> "RunDir":
        """The same by the two parts of the folder's name."""
        path = runs / (label + known_by)
        if not path.is_dir() and runs.is_dir():
            return cls(_by_id(runs, runs.stat().st_mtime_ns).get(known_by, path))
        return cls(path)

    def state(self) -> str:
        """One of missing, half, finished, diverged, failed, damaged (a sealed record that cannot be read).

        A run that the machine has failed (OF_MACHINE of experiments.errors) is half done, as after a kill.
        """
        if os.path.lexists(self.result):
            try:
                return str(read_result(self.result)["status"])
            except ValueError:
                return "damaged"
        if self.error.exists() and self._failed():
            return "failed"
        return "half" if self.config.exists() else "missing"

    def _failed(self) -> bool:
        """Whether error.json tells of the run's own fault, in its newest start."""
        try:
            error = read_object(self.error)
        except ValueError:
            return True
        newest = [start.name for start in starts.listed(self.path)[-1:]]
        return error.get("machine") is not True and error.get("start") in [None, *newest]

    def start(
        self, settings: Settings, identity: Identity, origin: Mapping[str, Any] | None = None, **details: Any
    ) -> None:
        """Begin or continue the run of `settings` here, as a new start.

        Removes the last failure's error.json and what a kill left half written; a damaged result.json is set aside.

        Args:
            settings: what is asked for.
            identity: theirs.
            origin: what may change this start's results (experiments.store.origin).
            **details: device, data folder, ... for environment.json.

        Raises:
            ConfigError: the directory holds another run.
            StorageError: it cannot be written.
        """
        atomic.make_folder(self.path)
        atomic.sweep(self.path)
        damaged = self.state() == "damaged"
        if self.config.exists():
            self._check_owner(identity.run_id)
        self.own = starts.begin(self.path)
        if damaged or not self.config.exists():  # a record is damaged, too, where the config is not what it sealed
            config = {"run_id": identity.run_id, "config_id": identity.config_id, **public(settings)}
            atomic.replace(self.config, [yaml.safe_dump(config, sort_keys=False, width=120).encode()], self.own)
        self.note_starts([*self._known_starts(), {"start": self.own.name, **(origin or {})}])
        self._note_session(settings, details)
        atomic.remove(self.error)

    def earlier(self) -> list[Path]:
        """The folders of the starts before this one that are still there, the newest first."""
        return [start for start in reversed(starts.listed(self.path)) if start != self.own]

    def retire_earlier(self) -> None:
        """Remove the starts before this one, which has a checkpoint of its own now.

        Raises ClaimedError when one of them has sealed the run, or a later start has retired this one.
        """
        if self.own is not None and not starts.retire_earlier(self.own):
            raise self.lost()

    def starts(self) -> list[dict[str, Any]]:
        """What is known of the starts up to this one, oldest first; [] where it was lost."""
        return read_starts(self.place / STARTS_FILE)

    def note_starts(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Keep what is known of the starts up to this one. Raises StorageError."""
        atomic.replace(self.place / STARTS_FILE, [dump({"starts": [dict(entry) for entry in entries]}, indent=1)])

    def _known_starts(self) -> list[dict[str, Any]]:
        """What the newest start that noted anything knew."""
        return next(filter(None, (read_starts(start / STARTS_FILE) for start in self.earlier())), [])

    def lost(self) -> ClaimedError:
        """The error of an owner that another start has replaced."""
        return ClaimedError(
            f"{self.path} was taken over by another start, which has sealed it or goes on with it:"
            " this one wrote nothing into its files and ends"
        )

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Raise what a start cannot write, or no longer finds, because another one has replaced it, as ClaimedError."""
        try:
            yield
        except (StorageError, ValueError):
            if self.own is not None and starts.is_lost(self.own):
                raise self.lost() from None
            raise

    def history(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl: put this into the checkpoint, and give it to `cut_back` after loading one."""
        return self._lines(self.metrics)

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add an epoch's metrics. Numbers that are not finite must be None. Raises StorageError."""
        atomic.append(self.metrics, dump(dict(record)))

    def append_timing(self, record: Mapping[str, Any]) -> None:
        """Add an epoch's timing. Raises StorageError."""
        atomic.append(self.timing, dump(dict(record)))

    def timings(self) -> list[dict[str, Any]]:
        """The records of timing.jsonl, epochs that were repeated after a kill included."""
        return self._lines(self.timing)

    def cut_back(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Make metrics.jsonl hold exactly `history`, whatever it holds now: what a checkpoint knows, it restores.

        A cut last line of timing.jsonl goes too. Raises StorageError.
        """
        content = b"".join(dump(dict(record)) for record in history)
        if content or self.metrics.exists():
            atomic.replace(self.metrics, [content])
        timings = (place / starts.TIMING for place in (self.place, *self.earlier()))
        timing = next(filter(os.path.lexists, timings), None)
        if timing is not None:
            try:
                whole = read_lines(timing)
            except ValueError as error:
                log.warning("%s: the timing of earlier epochs is lost", error)
                whole = []
            atomic.replace(self.timing, [dump(record) for record in whole])

    def seal(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Make `result` the run's record, once and for all: from here on the run has a result.

        The record gets the hashes of the run's final files, and is returned as it was written.

        Raises:
            ValueError: a record outside the schema, or a history that is not its epochs from 1 on, once each.
            ClaimedError: another start has sealed the run, or retired this one; nothing of theirs is changed.
        """
        unknown = sorted(set(result) - set(RESULT_FIELDS) - set(OPTIONAL_FIELDS))
        if unknown:
            raise ValueError(f"result.json: {', '.join(unknown)} is not in its schema (experiments.store.result)")
        if "root" in result.get("data", {}):
            raise ValueError("result.json: data.root is a path of this machine; it belongs into environment.json")
        check_result(result)
        check_epochs(result, [line.get("epoch") for line in self.history()])
        if self.own is None:
            raise ValueError("result.json: only a start of the run can seal it")
        record = sealed(result, self.final_files)
        if not starts.seal(self.own, dump(record, indent=1)):
            raise self.lost()
        self.own = None
        self.finish()
        return record

    def finish(self) -> None:
        """Give a sealed run its final form, where a kill has come between; else nothing. Raises StorageError."""
        starts.finish(self.path)

    def fail(self, error: BaseException) -> None:
        """Leave error.json, if the disk lets us; without absolute paths or the values of secret variables."""
        user = isinstance(error, UserError)
        frames = traceback.extract_tb(error.__traceback__)
        record = {
            "type": type(error).__name__,
            "message": _scrubbed(str(error)),
            "exit_code": error.exit_code if isinstance(error, UserError) else 1,
            "machine": isinstance(error, OF_MACHINE),
            **({"start": self.own.name} if self.own else {}),
            "traceback": [] if user else [f"{Path(f.filename).name}:{f.lineno} in {f.name}" for f in frames],
            "time": _now(),
        }
        try:
            atomic.replace(self.error, [dump(record, indent=1)], self.own)
        except StorageError as problem:
            log.warning("the failure could not be recorded: %s", problem)

    def clear(self) -> None:
        """Remove what the run has produced (rerun=true), the result first: a kill in between leaves a half-done run.

        Before that its starts are retired, so that none of them can seal what is being started over.
        """
        self.finish()
        starts.retire_all(self.path)
        for path in (self.result, self.error, *(self.path / name for name in starts.PRODUCTS)):
            atomic.remove(path)

    def _lines(self, path: Path) -> list[dict[str, Any]]:
        try:
            return read_lines(path)
        except ValueError as error:
            raise StorageError(str(error)) from None

    def _check_owner(self, run_id: str) -> None:
        """Raise ConfigError unless config.yaml names this run."""
        try:
            found = str(read_mapping(self.config)["run_id"])
        except (ValueError, KeyError):
            raise ConfigError(f"{self.config} is unreadable: remove it if this directory is the run's own") from None
        if found != run_id:
            raise ConfigError(
                f"{self.path} holds run {found[:12]!r}, not {run_id[:12]!r}: move it away or choose another runs_dir"
            )

    def _note_session(self, settings: Settings, details: Mapping[str, Any]) -> None:
        """Add this start to environment.json."""
        try:
            sessions = list(read_object(self.environment, 8 * MEBIBYTE)["sessions"])
        except (ValueError, KeyError, TypeError):  # the first start, or a file that tells us nothing
            sessions = []
        sessions.append(
            {
                "started": _now(),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
                "python": platform.python_version(),
                "cpus": os.cpu_count(),
                "run_dir": os.path.abspath(self.path),
                "data_root": settings.data.root and os.path.abspath(settings.data.root),
                **details,
            }
        )
        atomic.replace(self.environment, [dump({"sessions": sessions[-SESSIONS_KEPT:]}, indent=1)], self.own)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _scrubbed(text: str) -> str:
    """A message without folders of this machine and without the values of variables that look secret."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= 6:
            text = text.replace(value, "***")
    return ABSOLUTE_PATH.sub(r".../\1", text)
