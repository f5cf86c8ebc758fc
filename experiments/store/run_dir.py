"""A run's directory is its truth: what lies in it, when it is written, how it is read back. Imports no torch, no hydra.

config.yaml        what was asked for, resolved; no absolute paths
metrics.jsonl      a line per epoch; cut back to the checkpoint on resume, so free of anything that tells the time
timing.jsonl       a line per epoch: seconds, images per second
checkpoints/       see experiments.store.checkpoint
last.safetensors   the final weights; ema.safetensors their average, where there is one
config.json        what they are of, in timm's and the Hub's form; model.safetensors, the name they look for, is a link
result.json        sealed last: a run has a result exactly when this file exists
error.json         why it failed, and whether the machine is to blame; removed by the next start
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
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from experiments.config.identity import Identity
from experiments.config.settings import Settings
from experiments.errors import OF_MACHINE, ConfigError, StorageError
from experiments.store import atomic
from experiments.store.result import OPTIONAL_FIELDS, RESULT_FIELDS, TIMING_FIELDS, check_result, read_result, sealed
from experiments.strict_json import MEBIBYTE, dump, parse, read_bytes, read_object
from roadmap.errors import UserError
from roadmap.pretrained import CONFIG

__all__ = ["OPTIONAL_FIELDS", "RESULT_FIELDS", "TIMING_FIELDS", "RunDir", "public", "read_lines", "read_result"]

LINES_LIMIT = 64 * MEBIBYTE
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


@lru_cache(maxsize=4)
def _by_id(runs: Path, _changed: int) -> dict[str, Path]:
    """What tells runs apart -> the directory, of a folder of runs as it was when it had last changed."""
    found = (re.search(r"-[a-z_]+-s\d+-[0-9a-f]{12}$", name) for name in sorted(os.listdir(runs)))
    return {match[0]: runs / match.string for match in found if match}


def known_by(settings: Settings, run_id: str) -> str:
    """The end of the name of a run's folder, which tells runs apart."""
    return f"-{settings.regime}-s{settings.seed}-{run_id[:12]}"


class RunDir:
    """The directory of one run. Whoever writes to it holds its claim (experiments.store.lock)."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.result = self.path / "result.json"
        self.error = self.path / "error.json"
        self.environment = self.path / "environment.json"
        self.checkpoints = self.path / "checkpoints"
        self.weights = self.path / "last.safetensors"
        self.averaged = self.path / "ema.safetensors"
        self.described = self.path / CONFIG
        self.linked = self.path / "model.safetensors"

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
        if self.error.exists() and not self._stopped_by_machine():
            return "failed"
        return "half" if self.config.exists() else "missing"

    def _stopped_by_machine(self) -> bool:
        try:
            return read_object(self.error).get("machine") is True
        except ValueError:
            return False

    def start(self, settings: Settings, identity: Identity, **details: Any) -> None:
        """Begin or continue the run of `settings` here; `details` (device, data folder, ...) go to environment.json.

        Removes the last failure's error.json and what a kill left half written; a damaged result.json is set aside.
        Raises ConfigError where the directory holds another run, StorageError where it cannot be written.
        """
        atomic.make_folder(self.path)
        atomic.sweep(self.path)
        damaged = self.state() == "damaged"
        if self.config.exists():
            self._check_owner(identity.run_id)
        if damaged or not self.config.exists():  # a record is damaged, too, where the config is not what it sealed
            config = {"run_id": identity.run_id, "config_id": identity.config_id, **public(settings)}
            atomic.replace(self.config, [yaml.safe_dump(config, sort_keys=False, width=120).encode()])
        if damaged:
            log.warning(
                "%s or a file that it seals is damaged: it is set aside, the run continues from its checkpoint",
                self.result,
            )
            atomic.move(self.result, self.result.with_name("result.damaged.json"))
        self._note_session(settings, details)
        atomic.remove(self.error)

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
        if self.timing.exists():
            try:
                whole = read_lines(self.timing)
            except ValueError as error:
                log.warning("%s: the timing of earlier epochs is lost", error)
                whole = []
            atomic.replace(self.timing, [dump(record) for record in whole])

    def seal(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write result.json with the hashes of what lies beside it: from here on the run has a result.

        Returns the record as it was written. Raises ValueError for one outside the schema, StorageError.
        """
        unknown = sorted(set(result) - set(RESULT_FIELDS) - set(OPTIONAL_FIELDS))
        if unknown:
            raise ValueError(f"result.json: {', '.join(unknown)} is not in its schema (experiments.store.result)")
        if "root" in result.get("data", {}):
            raise ValueError("result.json: data.root is a path of this machine; it belongs into environment.json")
        check_result(result)
        record = sealed(result, self.final_files)
        atomic.replace(self.result, [dump(record, indent=1)])
        return record

    def fail(self, error: BaseException) -> None:
        """Leave error.json, if the disk lets us; without absolute paths or the values of secret variables."""
        user = isinstance(error, UserError)
        frames = traceback.extract_tb(error.__traceback__)
        record = {
            "type": type(error).__name__,
            "message": _scrubbed(str(error)),
            "exit_code": error.exit_code if isinstance(error, UserError) else 1,
            "machine": isinstance(error, OF_MACHINE),
            "traceback": [] if user else [f"{Path(f.filename).name}:{f.lineno} in {f.name}" for f in frames],
            "time": _now(),
        }
        try:
            atomic.replace(self.error, [dump(record, indent=1)])
        except StorageError as problem:
            log.warning("the failure could not be recorded: %s", problem)

    def clear(self) -> None:
        """Remove what the run has produced (rerun=true), the result first: a kill in between leaves a half-done run."""
        weights = (self.weights, self.averaged, self.linked, self.described)
        produced = (self.result, self.error, self.checkpoints, *weights, self.metrics, self.timing)
        for path in produced:
            atomic.remove(path)

    def _lines(self, path: Path) -> list[dict[str, Any]]:
        try:
            return read_lines(path)
        except ValueError as error:
            raise StorageError(str(error)) from None

    def _check_owner(self, run_id: str) -> None:
        """Raise ConfigError unless config.yaml names this run."""
        try:
            config = yaml.safe_load(read_bytes(self.config, MEBIBYTE))
            found = str(config["run_id"])
        except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, RecursionError):
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
        atomic.replace(self.environment, [dump({"sessions": sessions[-SESSIONS_KEPT:]}, indent=1)])


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _scrubbed(text: str) -> str:
    """A message without folders of this machine and without the values of variables that look secret."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= 6:
            text = text.replace(value, "***")
    return ABSOLUTE_PATH.sub(r".../\1", text)
