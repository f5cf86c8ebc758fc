"""A mirror of a run's record in trackio."""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from experiments.config.settings import Logger
from experiments.errors import MissingExtraError
from experiments.training.loggers import Line, MirroredRun

ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")  # where trackio would go without being asked


class TrackioMirror:
    """A trackio run with the name of the run's folder, in the data base of `runs_dir/trackio`.

    trackio takes the place of its data base from TRACKIO_DIR when it is imported; a place that the user gave there
    stays. Each session replaces what earlier ones wrote. With `logger.mode=online` it goes to `logger.space`.
    """

    def __init__(self, options: Logger, run: MirroredRun) -> None:
        """Open the mirror. Raises MissingExtraError."""
        if not os.environ.get("TRACKIO_DIR"):
            os.environ["TRACKIO_DIR"] = str(run.folder.parent.resolve() / "trackio")
        try:
            import trackio
        except ImportError:
            raise MissingExtraError("logger=trackio needs trackio: pip install trackio") from None
        Path(os.environ["TRACKIO_DIR"]).mkdir(
            parents=True, exist_ok=True
        )  # its own thread would lose the lines instead
        space = options.space if options.mode == "online" else None
        with _quiet(), _without(ELSEWHERE):
            if space is None:
                _forget(options.project, run.folder.name)
            self._run = trackio.init(
                project=options.project,
                name=run.folder.name,
                group=run.study,
                space_id=space,
                config={**run.asked, "step": run.step, "changes": list(run.changes), "run_id": run.run_id},
                resume="never" if space is None else "allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self._artifact = f"run-{run.run_id[:16]}"

    def log(self, line: Line) -> None:
        """Add the line of one epoch, at its optimizer step."""
        metrics = {key: value for key, value in line.items() if key != "step" and value is not None}
        self._run.log(metrics, step=line["step"])

    def keep(self, files: Sequence[Path]) -> None:
        """Hand on copies of files as an artifact."""
        import trackio

        artifact = trackio.Artifact(self._artifact, type="model")
        for path in files:
            artifact.add_file(str(path))
        with _quiet():
            self._run.log_artifact(artifact)

    def close(self) -> None:
        """Finish the trackio run."""
        import trackio

        with _quiet():
            trackio.finish()  # the run's own method would be called a second time when the process ends


def _forget(project: str, name: str) -> None:
    """Remove what earlier sessions of a run wrote."""
    import trackio

    try:
        runs = [run for run in trackio.Api().runs(project) if run.name == name]
    except ValueError:  # there is no such project yet
        return
    for run in runs:
        run.delete()


@contextmanager
def _quiet() -> Iterator[None]:
    """Trackio prints hints; a run's own lines are enough."""
    with redirect_stdout(io.StringIO()):
        yield


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """The environment without some variables."""
    taken = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)
