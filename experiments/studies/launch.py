"""What a multirun does: expand the command line into jobs, freeze them as a study, launch what is left of it."""

import dataclasses
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from experiments.config.compose import settings_from
from experiments.config.identity import Identity
from experiments.config.quoting import override
from experiments.config.schema import check_overrides, compose, composing
from experiments.config.settings import MACHINE_KEYS, Recipe, Settings
from experiments.errors import ConfigError, StudyError
from experiments.store.run_dir import read_result
from experiments.studies import frozen, lists
from roadmap.errors import UserError
from roadmap.program import train_command
from roadmap.steps import DEFAULT, Roadmap, roadmap_named

BUG = 1


def expand(arguments: Sequence[str], study: Mapping[str, Any], road: Roadmap = DEFAULT) -> list[list[str]]:
    """The override list of every job: the study's own list inside, sweeps outside, the first key outermost.

    Args:
        arguments: what was typed; a typed key replaces the study's own.
        study: the composed `study` section; `study.sweep` is key -> comma-separated values, `study.list` names a
            generated list of runs.
        road: the chosen roadmap.

    Raises:
        ConfigError: an unknown list, or parameters that it does not take.
    """
    own = [f"{key}={value}" for key, value in study["sweep"].items()]
    parsed = OverridesParser.create().parse_overrides([*own, *arguments])
    (sweeps,) = BasicSweeper.split_arguments(parsed, None)
    first = sweeps[0]
    inner: list[list[str]] = [[]]
    if study["list"]:
        finished = partial(finished_runs, first, road)
        inner = lists.runs_of(study["list"], study["params"], lambda entry: _recipe(first, entry), road, finished)
    return [[*outer, *entry] for outer, entry in itertools.product(sweeps, inner)]


def _recipe(outer: Sequence[str], entry: Sequence[str]) -> Recipe:
    """The recipe of one run of a generated list, under the study's own overrides."""
    job = [*outer, *entry]
    return settings_from(compose(job), job).recipe


def finished_runs(outer: Sequence[str], road: Roadmap) -> list[tuple[tuple[str, ...], int, float]]:
    """Set, seed and top-1 of every finished run of a set of the roadmap's changes under these overrides."""
    listed = lists.Lists(road)
    plain = settings_of([*outer, *listed.subset(())])
    known: dict[tuple[str, ...], str] = {}
    found = []
    for path in sorted(Path(plain.runs_dir).glob("*/result.json")):
        try:
            record = read_result(path)
        except ValueError:
            continue  # `status` names it
        one = tuple(name for name in record["changes"] if name not in road.root.changes)
        if record["status"] != "finished" or not set(one) <= set(road.players) or record["regime"] != plain.regime:
            continue
        if one not in known:
            job = [*outer, *listed.subset(one)]
            own = settings_from(compose(job), job)
            data = dataclasses.replace(own.data, checksum=plain.data.checksum)
            known[one] = Identity.of(own.replace(data=data)).config_id
        if known[one] == record["config_id"]:
            found.append((one, int(record["seed"]), float(record["top1"])))
    return found


def settings_of(job: Sequence[str]) -> Settings:
    """The settings of one job, with the checksum of its data and of the weights that it starts from."""
    from experiments.data import with_checksum

    settings = settings_from(compose(job), job)
    settings = settings.replace(data=with_checksum(settings.data))
    if settings.init_from is None:
        return settings
    from experiments.training.start import with_weights  # imports torch

    return with_weights(settings)


def _settings_of_many() -> Callable[[Sequence[str]], Settings]:
    """`settings_of` for the jobs of one study: those that differ in their seed alone are composed and hashed once.

    Hydra takes 0.1 s to compose a job; listing a large data set for its checksum may take longer.
    """
    composed: dict[tuple[str, ...], Settings] = {}

    def of(job: Sequence[str]) -> Settings:
        rest = tuple(item for item in job if frozen.key_of(item) != "seed")
        seeds = [item.split("=", 1)[1] for item in job if frozen.key_of(item) == "seed"]
        if len(seeds) != 1 or not seeds[0].isdecimal():
            return settings_of(job)
        if rest not in composed:
            composed[rest] = settings_of(job)
        return composed[rest].replace(seed=int(seeds[0]))

    return of


class Asked(NamedTuple):
    """What a command asks of a study: what is the same for all its jobs, as composed, and the jobs' overrides."""

    config: DictConfig
    arguments: Sequence[str]
    jobs: list[list[str]]
    path: Path

    @classmethod
    def of(cls, config: DictConfig, arguments: Sequence[str]) -> "Asked":
        """Expand the command line of a composed config.

        Raises:
            ConfigError: several studies or roadmaps at once, an unknown list, or parameters that it does not take.
        """
        for item in OverridesParser.create().parse_overrides(list(arguments)):
            several = ("study",) if config.study.name is None else ("study", "roadmap")
            if item.key_or_group in several and item.is_sweep_override():
                raise ConfigError(f"{item.input_line}: one at a time; start one study after the other")
        if config.hydra.sweeper.params:
            raise ConfigError("hydra.sweeper.params: a study's sweep stands under study.sweep, without hydra.mode")
        study: Any = OmegaConf.to_container(config.study, resolve=True)
        road, name = roadmap_named(config.roadmap.name), study["name"] or "sweep"
        if study["list"] not in lists.FROM_RUNS:
            jobs = expand(arguments, study, road)
            return cls(config, arguments, jobs, frozen.study_path(name, jobs, config.runs_dir))
        # what such a list gives changes with every run that finishes; what was asked does not
        own = [f"study.params.{key}={value}" for key, value in study["params"].items()]
        asked = [[*job, *own, f"roadmap={road.name}"] for job in expand(arguments, {**study, "list": None}, road)]
        path = frozen.study_path(name, asked, config.runs_dir)
        kept = path.exists() and not config.replan
        return cls(config, arguments, frozen.jobs_in(path) if kept else expand(arguments, study, road), path)


def study_of(overrides: Sequence[str]) -> Asked:
    """The study that `run.py` would run with these overrides."""
    check_overrides(overrides)
    with composing():
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        fixed = [text for text, item in zip(overrides, parsed, strict=True) if not item.is_sweep_override()]
        return Asked.of(hydra.compose("config", overrides=fixed, return_hydra_config=True), overrides)


def freeze_study(asked: Asked) -> frozen.FrozenStudy:
    """The frozen study of a command: read where it is frozen already, else composed and written."""
    config, arguments, jobs, path = asked
    plain: Any = OmegaConf.to_container(config, resolve=False)
    study, road = plain["study"], roadmap_named(config.roadmap.name)
    name = study["name"] or "sweep"
    if path.exists() and not plain["replan"]:
        machine = machine_overrides(arguments)
        return frozen.read_study(path, here=settings_from(compose(machine), machine))
    orders = lists.orders_of(study["list"], study["params"], road)
    described = {"generator": study["list"], "orders": orders, "roadmap": road.name}
    made = frozen.freeze(name, path, jobs, _settings_of_many(), **described)
    _warn_of_guessed_precision(made, config)
    return made


def _warn_of_guessed_precision(study: frozen.FrozenStudy, config: DictConfig) -> None:
    """precision=auto asks the machine that plans, because precision is part of a run's id; jobs may run elsewhere."""
    guessed = config.precision == "auto" and config.device == "auto"
    if guessed and _runs_elsewhere(config.hydra) and {run.precision for run in study.runs} == {"fp32"}:
        print(
            "precision=auto is fp32 here, where no GPU is, and is planned so for all runs: for GPUs elsewhere use "
            "precision=bf16 (fp16 before Ampere)",
            file=sys.stderr,
        )


def _runs_elsewhere(hydra: DictConfig) -> bool:
    """Whether the launcher sends jobs to other machines: SLURM's nodes, or those of a Ray cluster that exists."""
    launcher = hydra.runtime.choices["hydra/launcher"]
    return launcher == "submitit_slurm" or (launcher == "ray" and hydra.launcher.ray.init.address is not None)


def machine_overrides(arguments: Sequence[str]) -> list[str]:
    """What was typed about the machine: the same for every job of a study."""
    keys = set(MACHINE_KEYS)
    return [item for item in arguments if frozen.key_of(item) in keys]


def run_study(config: DictConfig, context: HydraContext, task: TaskFunction, arguments: Sequence[str]) -> str:
    """Freeze a study and launch every run of it that is not sealed.

    Raises:
        ConfigError: a setting of a run is wrong; nothing has been started.
        StudyError: not all runs are finished at the end.
    """
    _refuse_ranks(arguments)
    study = freeze_study(Asked.of(config, arguments))
    left = frozen.to_launch(study, rerun=config.rerun, retry_failed=config.retry_failed)
    print(f"{study.path}: {len(study.runs)} runs, {len(left)} to do", file=sys.stderr)
    if left:
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
        began = time.time()
        _check_for_bugs(_launched(launcher, _jobs(study, left, config, arguments)))
        if config.hydra.runtime.choices["hydra/launcher"] == "basic":
            _say_how_long(left, began)
    line = frozen.check_outcome(study)
    print(line, file=sys.stderr)
    return line


def _say_how_long(runs: Sequence[Settings], began: float) -> None:
    """The time that runs in sequence took, and how much of it was neither training nor evaluating."""
    beside = frozen.seconds_beside(runs, began)
    share = f"; {statistics.median(beside):.2f} s per run beside training and evaluating" if beside else ""
    print(f"took {time.time() - began:.1f} s{share}", file=sys.stderr)


def _jobs(
    study: frozen.FrozenStudy, left: Sequence[Settings], config: DictConfig, typed: Sequence[str]
) -> list[list[str]]:
    """Overrides that lead each job to its frozen settings; only what belongs to the machine is composed anew."""
    machine = [item for item in machine_overrides(typed) if frozen.key_of(item) not in ("runs_dir", "data.root")]
    machine += [item for item in typed if frozen.key_of(item) == "launcher"]  # hydra.launcher.* refers to it
    places = [override("runs_dir", Path(config.runs_dir).resolve()), override("study.file", study.path.resolve())]
    if config.data.root is not None:
        places.append(override("data.root", Path(config.data.root).resolve()))
    return [[*machine, *places, f"study.run={frozen.run_id(settings)}"] for settings in left]


def _launched(launcher: Launcher, jobs: list[list[str]]) -> Sequence[JobReturn]:
    """What the jobs returned. A launcher that loses a job says so; the runs' own records tell how they stand."""
    try:
        return launcher.launch(jobs, initial_job_idx=0)
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("ray", "submitit"):
            raise
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        print(f"launcher: {' ... '.join(dict.fromkeys((lines[0], lines[-1])))}", file=sys.stderr)
        return []


def _check_for_bugs(returns: Sequence[JobReturn]) -> None:
    """Raise the first failure that is no user's error; those are in the runs' records."""
    for job in returns:
        error = getattr(job, "_return_value", None)
        if job.status == JobStatus.FAILED and not isinstance(error, UserError):
            raise error if isinstance(error, BaseException) else StudyError(f"a run was lost: {error!r}")


def _refuse_ranks(arguments: Sequence[str]) -> None:
    """One run over several ranks is torchrun's work, many runs are ours; together every rank would start the study."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        command = " ".join([train_command(), *arguments])
        raise ConfigError(
            f"a study cannot be started by torchrun or srun, every rank would start it: use `{command}`, "
            "with launcher=slurm for runs of several GPUs"
        )


def frozen_settings(config: DictConfig) -> Settings:
    """The settings of one job of a study: what was frozen, on this machine.

    Raises:
        ConfigError: the data is not what it was when the study was planned.
    """
    from experiments.data import checksum_of

    plain: Any = OmegaConf.to_container(config, resolve=True)
    here = settings_from(plain)
    if plain["study"]["file"] is None:
        raise ConfigError("study.run names a run of a frozen study: set study.file to its file as well")
    study = frozen.read_study(Path(plain["study"]["file"]), here)
    settings = frozen.find_run(study, plain["study"]["run"])
    _say_precision(settings.precision, here.precision)
    if checksum_of(settings.data) != settings.data.checksum:
        raise ConfigError(f"data={settings.data.name} has changed since {study.path.name} was planned; use replan=true")
    return settings


@cache
def _say_precision(planned: str, here: str) -> None:
    """One line per process, from the first rank, where this machine would have planned another precision."""
    if planned != here and os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
        print(f"precision={planned}, as it was planned; precision=auto would be {here} here", file=sys.stderr)
