"""Mirrors of a run's own record in Weights & Biases and TensorBoard; trackio's has a file of its own.

`metrics.jsonl` is the truth. A mirror is opened with the lines written so far and repeats them, so that its history is
complete after any number of interruptions. A mirror that fails is reported and dropped; it stops neither the run nor
another mirror.
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
                tags=run.changes or None,
                config=run.asked,
                dir=run.folder,
                resume="allow" if options.mode == "online" else None,
                reinit="finish_previous",
                settings=quiet,
            )
        except (wandb.errors.UsageError, wandb.errors.CommError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"logger.mode={options.mode}: {reason}; log in, or use logger.mode=offline") from None
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
    """The mirrors that the logger asks for, each behind a fault barrier of its own."""

    def __init__(self, options: Logger, run: MirroredRun, *, enabled: bool = True) -> None:
        """Open the mirrors, on one rank only (`enabled`). Raises MissingExtraError or ConfigError."""
        self._mirrors: dict[str, Mirror] = {}
        self._artifacts = options.artifacts
        for name in options.chosen if enabled else ():
            try:
                self._mirrors[name] = LOGGERS[name].load()(options, run)
            except (ConfigError, MissingExtraError):
                self.close()
                raise
            except Exception as error:
                log.warning("the %s mirror could not be opened: %s", name, error)

    def replay(self, history: Sequence[Line]) -> None:
        """Repeat the lines written by earlier sessions."""
        for line in history:
            self.log(line)

    def log(self, line: Line) -> None:
        """Mirror one line; a failure is logged and ends that mirror, not the run."""
        self._guard("log", line)

    def keep(self, *files: Path) -> None:
        """Hand a finished run's files to the mirrors that take them, where `logger.artifacts` is on."""
        if self._artifacts:
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
            except Exception as error:  # whatever a mirror's library raises must not cost a training run
                log.warning("the %s mirror stopped: %s", type(mirror).__name__, error)
                del self._mirrors[name]
