"""Mirrors of a run's own record in Weights & Biases and TensorBoard; trackio's has a file of its own.

`metrics.jsonl` is the truth. A mirror is opened with the lines written so far and repeats them, so that its history is
complete after any number of interruptions. A mirror that fails, or cannot be opened, is reported once and dropped; it
stops neither the run nor another mirror. It is opened anew at a later epoch and by the next start, with all lines.
"""

import logging
import shutil
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from experiments.config.registry import LOGGERS
from experiments.config.settings import Logger
from experiments.errors import MissingExtraError
from roadmap.errors import first_line

RETRY_SECONDS = 300.0  # between two attempts to open a mirror that was dropped
log = logging.getLogger(__name__)

Line = dict[str, Any]  # one line of metrics.jsonl


class MirroredRun(NamedTuple):
    """What a mirror shows of a run beside its metrics."""

    folder: Path
    run_id: str
    asked: dict[str, Any]  # all that its id covers
    step: str | None
    study: str | None
    changes: tuple[str, ...] = ()


class Mirror(Protocol):
    """Somewhere else to show a run's metrics. It may also have `keep(files)`, which gets a finished run's files."""

    def log(self, line: Line) -> None:
        """Add the line of one epoch."""

    def close(self) -> None:
        """Write out what is buffered."""


class WandbMirror:
    """A W&B run under the run's own id. Offline, each session replaces the run's earlier offline parts."""

    def __init__(self, options: Logger, run: MirroredRun) -> None:
        """Open the mirror below the run's folder; offline where `online` is not to be had. Raises MissingExtraError."""
        try:
            import wandb
        except ImportError:
            raise MissingExtraError("logger=wandb needs wandb: pip install wandb") from None
        for part in (run.folder / "wandb").glob(f"offline-run-*-{run.run_id}"):
            shutil.rmtree(part)
        try:
            self._run = _wandb_run(options, run, options.mode)
        except Exception as error:  # what it raises without a server, a login or a network is of many kinds
            if options.mode != "online":
                raise
            log.warning(
                "logger.mode=online: %s; this start is mirrored offline: `wandb sync %s` uploads it, and so does the"
                " next start",
                first_line(error),
                run.folder / "wandb" / "offline-run-*",
            )
            wandb.teardown()  # or the run that was not opened would count as open
            self._run = _wandb_run(options, run, "offline")
        self._artifact = f"run-{run.run_id[:16]}"
        self._known = self._run.step  # online, the server keeps what it was sent before

    def log(self, line: Line) -> None:
        """Add the line of one epoch, at its optimizer step."""
        if line["step"] > self._known or self._known == 0:
            self._run.log({key: value for key, value in line.items() if value is not None}, step=line["step"])

    def keep(self, files: Sequence[Path]) -> None:
        """Hand on files as an artifact, read where they lie; offline, `wandb sync` uploads them."""
        import wandb

        artifact = wandb.Artifact(self._artifact, type="model")
        for path in files:
            artifact.add_file(str(path), policy="immutable", skip_cache=True)
        self._run.log_artifact(artifact)

    def close(self) -> None:
        """Finish the W&B run."""
        self._run.finish()


def _wandb_run(options: Logger, run: MirroredRun, mode: str) -> Any:
    """An open W&B run, which asks the machine for nothing and waits `logger.init_timeout` for a server."""
    import wandb

    quiet = wandb.Settings(
        silent=True,
        console="off",
        disable_code=True,
        disable_git=True,
        init_timeout=options.init_timeout,
        login_timeout=options.init_timeout,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
        x_disable_machine_info=True,
    )
    return wandb.init(
        project=options.project,
        entity=options.entity,
        mode=cast(Any, mode),
        id=run.run_id,
        name=run.folder.name,
        group=run.study,
        job_type=run.step or "off_ladder",
        tags=run.changes or None,
        config=run.asked,
        dir=run.folder,
        resume="allow" if mode == "online" else None,
        reinit="finish_previous",
        settings=quiet,
    )


class TensorBoardMirror:
    """An event file below the run directory, written anew by each session.

    TensorBoard's own writer works in a thread, whose errors are tracebacks and come an epoch late.
    """

    def __init__(self, options: Logger, run: MirroredRun) -> None:
        """Open the mirror below the run's folder. Raises MissingExtraError."""
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError:
            raise MissingExtraError(
                "logger=tensorboard needs the package tensorboard: pip install tensorboard"
            ) from None
        folder = run.folder / "tensorboard"
        if folder.is_dir():
            shutil.rmtree(folder)
        folder.mkdir()
        self._event = Event
        # named as the programs that read it expect
        self._path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        self._writer = RecordWriter(open(self._path, "wb"))  # noqa: SIM115 - open until `close`
        self._write(file_version="brain.Event:2")

    def log(self, line: Line) -> None:
        """Add the line of one epoch as scalars, at its optimizer step."""
        if not self._path.exists():
            self.close()
            raise FileNotFoundError(f"{self._path} is gone")
        values = {key: value for key, value in line.items() if key != "step" and value is not None}
        scalars = [{"tag": key, "simple_value": value} for key, value in values.items()]
        self._write(step=line["step"], summary={"value": scalars})

    def _write(self, **content: Any) -> None:
        self._writer.write(self._event(wall_time=time.time(), **content).SerializeToString())
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class Mirrors:
    """The mirrors that the logger asks for, each behind a fault barrier of its own."""

    def __init__(self, options: Logger, run: MirroredRun, *, enabled: bool = True) -> None:
        """Open the mirrors, on one rank only (`enabled`). Raises MissingExtraError."""
        self._options, self._run = options, run
        self._mirrors: dict[str, Mirror] = {}
        self._dropped: dict[str, float] = {}  # name -> when it may be tried again
        self._lines: list[Line] = []
        try:
            for name in options.chosen if enabled else ():
                self._open(name, "could not be opened")
        except MissingExtraError:
            self.close()
            raise

    def _open(self, name: str, how: str) -> None:
        """Open a mirror and give it the lines so far."""
        try:
            mirror: Mirror = LOGGERS[name].load()(self._options, self._run)
            for line in self._lines:
                mirror.log(line)
        except MissingExtraError:
            raise
        except Exception as error:  # whatever a mirror's library raises must not cost a training run
            self._drop(name, how, error)
            return
        self._dropped.pop(name, None)
        self._mirrors[name] = mirror

    def _drop(self, name: str, how: str, error: Exception) -> None:
        """Leave a mirror out for some time; said once."""
        self._mirrors.pop(name, None)
        if name not in self._dropped:
            log.warning(
                "the %s mirror %s: %s; the run goes on without it, and a later epoch or start catches up",
                name,
                how,
                first_line(error),
            )
        self._dropped[name] = time.monotonic() + RETRY_SECONDS

    def replay(self, history: Sequence[Line]) -> None:
        """Repeat the lines written by earlier sessions."""
        for line in history:
            self.log(line)

    def log(self, line: Line) -> None:
        """Mirror one line; a failure is logged and drops that mirror, not the run."""
        self._guard("log", line)
        self._lines.append(line)
        for name, later in [*self._dropped.items()]:
            if time.monotonic() >= later:
                with suppress(MissingExtraError):  # the run goes on
                    self._open(name, "could not be opened again")

    def keep(self, *files: Path) -> None:
        """Hand a finished run's files to the mirrors that take them, where `logger.artifacts` is on."""
        if self._options.artifacts:
            self._guard("keep", files)

    def close(self) -> None:
        """Close the mirrors; call it in `finally`."""
        self._guard("close")
        self._mirrors.clear()

    def _guard(self, method: str, *arguments: Any) -> None:
        for name, mirror in [*self._mirrors.items()]:
            if not hasattr(mirror, method):
                continue
            try:
                getattr(mirror, method)(*arguments)
            except Exception as error:  # as above
                self._drop(name, "stopped", error)
