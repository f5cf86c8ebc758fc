"""Hydra's doors to what is ours; they must lie in this package to be found.

Studies (the work: experiments.studies.launch), and the folders of one's own (roadmap.files).
"""

from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from roadmap.files import VARIABLE, own_folders


class OwnFolders(SearchPathPlugin):
    """Steps, roadmaps, data sets, studies in the folders that ROADMAP_PATH names are found like those of conf/."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append them."""
        for folder in own_folders():
            search_path.append(VARIABLE, f"file://{folder}")


class StudySweeper(Sweeper):
    """Freezes the list of runs that a command asks for, then hands those that are left to the chosen launcher."""

    def __init__(self, params: Any = None) -> None:
        """Hydra's sweepers take `params`; `experiments.studies.launch` refuses them and says where they stand."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember what Hydra composed for the command itself."""
        self.call = (config, hydra_context, task_function)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the study that the command line describes."""
        from experiments.studies.launch import run_study

        return run_study(*self.call, arguments)
