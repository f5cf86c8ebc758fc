"""Mirrors of a run's own record in Weights & Biases or TensorBoard.

`metrics.jsonl` is the truth. A mirror is opened with the lines written so far and repeats them, so that its history is
complete after any number of interruptions. A mirror that fails is reported and dropped; it never stops a run.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from experiments.config.registry import LOGGERS
from experiments.config.settings import Logger
from experiments.errors import ConfigError, MissingExtraError

log = logging.getLogger(__name__)

Line = dict[str, Any]  # one line of metrics.jsonl


class MirroredRun(NamedTuple):
    """What a mirror shows of a run beside its metrics."""

    folder: Path
    run_id: str
    asked: dict[str, Any]  # all that its id covers
    step: str | None
    study: str | None


class Mirror(Protocol):
    """Somewhere else to show a run's metrics."""

    def log(self, line: Line) -> None:
        """Add the line of one epoch."""

    def close(self) -> None:
        """Write out what is buffered."""


class WandbMirror:
    """A W&B run under the run's own id. Offline, each session replaces the run's earlier offline parts."""

    def __init__(self, options: Logger, run: MirroredRun) -> None:
        """Open the mirror below the run's folder. Raises MissingExtraError or ConfigError."""
        try:
            import wandb
        except ImportError:
            raise MissingExtraError("logger=wandb needs wandb: pip install wandb") from None
        for part in (run.folder / "wandb").glob(f"offline-run-*-{run.run_id}"):
            shutil.rmtree(part)
        quiet = wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
            x_disable_machine_info=True,
        )
        try:
            self._run = wandb.init(
                project=options.project,
                entity=options.entity,
                mode=cast(Any, options.mode),
                id=run.run_id,
                name=run.folder.name,
                group=run.study,
                job_type=run.step or "off_ladder",
                config=run.asked,
                dir=run.folder,
                resume="allow" if options.mode == "online" else None,
                reinit="finish_previous",
                settings=quiet,
            )
        except (wandb.errors.UsageError, wandb.errors.CommError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"logger.mode={options.mode}: {reason}; log in, or use logger.mode=offline") from None
        self._known = self._run.step  # online, the server keeps what it was sent before

    def log(self, line: Line) -> None:
        """Add the line of one epoch, at its optimizer step."""
        if line["step"] > self._known or self._known == 0:
            self._run.log({key: value for key, value in line.items() if value is not None}, step=line["step"])

    def close(self) -> None:
        """Finish the W&B run."""
        self._run.finish()


class TensorBoardMirror:
    """Event files below the run directory, written anew by each session."""

    def __init__(self, options: Logger, run: MirroredRun) -> None:
        """Open the mirror below the run's folder. Raises MissingExtraError."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError(
                "logger=tensorboard needs the package tensorboard: pip install tensorboard"
            ) from None
        shutil.rmtree(run.folder / "tensorboard", ignore_errors=True)
        self._writer = SummaryWriter(str(run.folder / "tensorboard"))

    def log(self, line: Line) -> None:
        """Add the line of one epoch as scalars, at its optimizer step."""
        for key, value in line.items():
            if key != "step" and value is not None:
                self._writer.add_scalar(key, value, line["step"])

    def close(self) -> None:
        """Write out and close the event file."""
        self._writer.close()


class Mirrors:
    """The mirror that the logger's name asks for, if any, behind one fault barrier."""

    def __init__(self, options: Logger, run: MirroredRun, *, enabled: bool = True) -> None:
        """Open the mirror, on one rank only (`enabled`). Raises MissingExtraError or ConfigError."""
        kind = LOGGERS[options.name].load() if enabled else None
        self._mirror: Mirror | None = kind(options, run) if kind else None

    def replay(self, history: Sequence[Line]) -> None:
        """Repeat the lines written by earlier sessions."""
        for line in history:
            self.log(line)

    def log(self, line: Line) -> None:
        """Mirror one line; a failure is logged and ends the mirroring, not the run."""
        self._guard("log", line)

    def close(self) -> None:
        """Close the mirror; call it in `finally`."""
        self._guard("close")
        self._mirror = None

    def _guard(self, method: str, *arguments: Any) -> None:
        if self._mirror is None:
            return
        try:
            getattr(self._mirror, method)(*arguments)
        except Exception as error:  # whatever a mirror's library raises must not cost a training run
            log.warning("the %s mirror stopped: %s", type(self._mirror).__name__, error)
            self._mirror = None
