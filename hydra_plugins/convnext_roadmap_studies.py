"""Hydra's door to our studies; it must lie in this package to be found. The work: experiments.studies.launch."""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StudySweeper(Sweeper):
    """Freezes the list of runs that a command asks for, then hands those that are left to the chosen launcher."""

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember what Hydra composed for the command itself."""
        self.call = (config, hydra_context, task_function)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the study that the command line describes."""
        from experiments.studies.launch import run_study

        return run_study(*self.call, arguments)
