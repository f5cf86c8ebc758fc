"""`python run.py ...` and `convnext-roadmap train ...`: one run, or the runs of a study.

Hydra composes the config from conf/; `--help` lists the steps and a few commands worth knowing. The module is imported
by its name, so that the workers of Ray and SLURM find the task function wherever the command came from.
"""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments.config.hydra_versions import VERSION_BASE
from experiments.errors import ConfigError, InterruptedRun
from experiments.runtime.imports import imports_kept
from roadmap.errors import UserError, of_machine
from roadmap.escape import visible
from roadmap.files import CONF, use_config_dir

if TYPE_CHECKING:
    from experiments.config.settings import Settings

BUG = 1


def in_multirun() -> bool:
    """Whether this job is one of several."""
    return not OmegaConf.is_missing(HydraConfig.get().job, "num")


def say(line: str) -> None:
    """Print one line to stderr, once per run: of several ranks only the first speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(visible(line), file=sys.stderr)


def train(config: DictConfig) -> dict[str, Any]:
    """One job: resolve its settings and train; torch is imported only once the settings are known to be good."""
    from experiments.config.compose import settings_from
    from experiments.studies.launch import frozen_settings

    overrides = list(HydraConfig.get().overrides.task)
    if config.study.run is not None:
        settings = frozen_settings(config)
    else:
        if config.replan:
            raise ConfigError("replan=true is for studies (+study=NAME or -m); rerun=true starts a single run over")
        if (
            config.study.sweep or config.study.list
        ):  # set by a file of one's own; of one run it would be all and nothing
            raise ConfigError("study.sweep and study.list are of many runs: start them with +study=NAME or -m")
        settings = settings_from(OmegaConf.to_container(config, resolve=True), overrides)  # type: ignore[arg-type]
        for name in (config.step, *config.add):
            if name in settings.idle:
                say(f"{name} has nothing to do here: data, budget, regime or a typed key decide what it would set.")
    if not overrides:
        say("No step chosen: this trains the baseline network with the enhanced recipe, as +step=enhanced_recipe does.")
    return _loop()(settings)


def _loop() -> "Callable[[Settings], dict[str, Any]]":
    """experiments.training.run.run; the first job of a process imports it, and torch with it."""
    with nullcontext() if "torch" in sys.modules else imports_kept():
        from experiments.training.run import run
    return run


@hydra.main(version_base=VERSION_BASE, config_path=str(CONF), config_name="config")
def job(config: DictConfig) -> dict[str, Any]:
    """What Hydra calls, once or once per job of a multirun. A user's error is one line, a bug keeps its traceback."""
    from experiments.runtime.signals import requeued_afterwards

    try:
        with requeued_afterwards():
            return train(config)
    except UserError as error:
        say(f"error: {error}")
        if in_multirun() and not isinstance(error, InterruptedRun):
            raise  # the other jobs go on; the exit code tells at the end
        sys.exit(error.exit_code)


def start() -> None:
    """Show the help page or a config, or let Hydra run the job. Steps and roadmaps are read on the first import."""
    use_config_dir(sys.argv[1:])
    if {"--help", "-h"} & set(sys.argv[1:]):
        from experiments.config.help import help_page
        from roadmap.steps import roadmap_named

        chosen = [item.partition("=")[2] for item in sys.argv if item.startswith("roadmap=")]
        # Hydra's own help sorts the steps alphabetically and takes three times as long
        print(help_page(*map(roadmap_named, chosen)))
        return
    from experiments.config import schema

    schema.register()
    with schema.refusals():
        options = get_args_parser().parse_args()
        schema.check_overrides(options.overrides)
        multirun = options.multirun or asks_for_study(options.overrides)
        if options.cfg == "job" and not options.package:
            show(options.overrides, multirun)
        else:
            if multirun and not any((options.multirun, options.run, options.cfg, options.info, options.hydra_help)):
                sys.argv.append("--multirun")  # a study file cannot say so: Hydra 1.4 refuses hydra.mode in a group
            job()


def asks_for_study(overrides: Sequence[str]) -> bool:
    """Whether the command line names a study: then it asks for many runs."""
    return any(item.lstrip("+").startswith("study=") for item in overrides)


def show(overrides: list[str], multirun: bool) -> None:
    """`--cfg job`: Hydra's would leave open what is resolved here, and refuses a multirun."""
    from experiments.config.show import resolved_config, resolved_configs

    if multirun:
        from experiments.studies.launch import study_of

        print(resolved_configs(study_of(overrides).jobs))
    else:
        print(resolved_config(overrides))


def main() -> None:
    """Run Hydra with our exit codes: 0 done, 1 bug, 2 and up the errors of experiments/errors.py."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to here
    try:
        start()
    except UserError as error:
        say(f"error: {error}")  # a key that Hydra refuses, or how a study has ended
        sys.exit(error.exit_code)
    except BrokenPipeError:
        raise
    except Exception as error:
        if of_machine(error) is not None:
            raise  # roadmap.pipes says it in one line
        traceback.print_exc()
        sys.exit(BUG)
