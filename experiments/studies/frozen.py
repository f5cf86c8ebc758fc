"""Studies: a list of runs that is composed once, frozen in a file and worked off by any number of launchers.

A study is `<runs_dir>/studies/<name>-<id8>.json`, id8 being a hash of the overrides that describe it. What was composed
when it was planned is what runs, also after a YAML file has changed. Runs belong to no study, so studies share them.
Imports neither torch nor hydra.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from experiments.config.identity import RESULTS_VERSION, run_id
from experiments.config.settings import MACHINE_KEYS, PART_OF_NAME, Settings
from experiments.errors import ConfigError, StorageError, StudyError
from experiments.store import atomic, lock
from experiments.store.run_dir import RunDir, public
from experiments.strict_json import MEBIBYTE, dump, read_object
from roadmap.steps import DEFAULT

STUDY_LIMIT = 256 * MEBIBYTE
# Keys of the command line that say how to run a study, not which runs it has.
LAUNCH_KEYS = ("launcher", "replan", "rerun", "retry_failed")


@dataclass(frozen=True)
class FrozenStudy:
    """A frozen study.

    Attributes:
        name: as in conf/study, or "sweep".
        path: its file.
        runs: their settings, in the order in which they run.
        generator: the generated list that the runs are from (experiments.studies.lists), None for a grid.
        orders: the orders of changes that were drawn for them, if any. They are kept here and not drawn anew from the
            seed, so that what is computed from the runs later cannot depend on how orders are drawn then.
        roadmap: the roadmap whose changes they were.
    """

    name: str
    path: Path
    runs: tuple[Settings, ...]
    generator: str | None = None
    orders: tuple[tuple[str, ...], ...] = ()
    roadmap: str = DEFAULT.name

    @property
    def full_name(self) -> str:
        """The name with the hash, as records show it."""
        return self.path.stem


def key_of(override: str) -> str:
    """The config key that a Hydra override sets."""
    return override.split("=", 1)[0].lstrip("+~")


def says_how_to_run(override: str) -> bool:
    """Whether an override belongs to the machine or the launch and not to what is trained."""
    key = key_of(override)
    return key.startswith("hydra") or key in LAUNCH_KEYS or key in MACHINE_KEYS


def study_path(name: str, jobs: Iterable[Sequence[str]], runs_dir: str | Path) -> Path:
    """Where the study of these jobs is frozen. Raises ConfigError for a name that is no file's."""
    PART_OF_NAME.check("study.name", name)
    asked = [[override for override in job if not says_how_to_run(override)] for job in jobs]
    digest = hashlib.sha256(dump({"jobs": asked, "results_version": RESULTS_VERSION})).hexdigest()
    return Path(runs_dir) / "studies" / f"{name}-{digest[:8]}.json"


def jobs_in(path: Path) -> list[list[str]]:
    """The overrides of each run of a frozen study. Raises StorageError where the file is damaged."""
    try:
        return [list(map(str, job)) for job in read_object(path, STUDY_LIMIT)["jobs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path}: not a frozen study ({error}); replan=true freezes it anew") from None


def read_study(path: Path, here: Settings | None = None) -> FrozenStudy:
    """A frozen study from its file.

    Args:
        path: the file.
        here: where given, its machine settings (device, threads, runs_dir, ...) are put into every run.

    Raises:
        StorageError: the file is missing, damaged or of another version.
    """
    try:
        content = read_object(Path(path), STUDY_LIMIT)
        if content["results_version"] != RESULTS_VERSION:
            raise ValueError(f"{path}: frozen by another version of the code; replan=true freezes it anew")
        runs = [Settings.from_dict(entry["settings"]) for entry in content["runs"]]
        for entry, settings in zip(content["runs"], runs, strict=True):
            if entry["run_id"] != run_id(settings):
                raise ValueError(f"{path}: run {entry['run_id'][:12]} is not what its settings say; use replan=true")
        moved = tuple(at(settings, here) if here else settings for settings in runs)
        orders = tuple(tuple(map(str, order)) for order in content.get("orders", []))
        roadmap = content.get("roadmap", DEFAULT.name)
        return FrozenStudy(content["name"], Path(path), moved, content.get("list"), orders, roadmap)
    except (KeyError, TypeError, ConfigError) as error:
        raise StorageError(f"{path}: not a frozen study ({error}); replan=true freezes it anew") from None
    except ValueError as error:
        raise StorageError(str(error)) from None


def at(settings: Settings, here: Settings) -> Settings:
    """The run with the machine settings of `here`: another device, folder or thread count is the same run."""
    data = dataclasses.replace(
        settings.data, root=here.data.root, download=here.data.download, damaged_share=here.data.damaged_share
    )
    own = {key: getattr(here, key) for key in MACHINE_KEYS if "." not in key}
    return settings.replace(data=data, **own)


def freeze(
    name: str,
    path: Path,
    jobs: Sequence[Sequence[str]],
    settings_of: Callable[[Sequence[str]], Settings],
    *,
    generator: str | None = None,
    orders: Sequence[Sequence[str]] = (),
    roadmap: str = DEFAULT.name,
) -> FrozenStudy:
    """Compose every job of a study and write its file; a run that two jobs ask for is listed once, with the first."""
    runs: dict[str, Settings] = {}
    asked = []
    for job in jobs:
        settings = settings_of(job).replace(study=path.stem)
        if runs.setdefault(run_id(settings), settings) is settings:
            asked.append([override for override in job if not says_how_to_run(override)])
    content = {
        "name": name,
        "results_version": RESULTS_VERSION,
        "list": generator,
        "roadmap": roadmap,
        **({"orders": [list(order) for order in orders]} if orders else {}),
        "jobs": asked,
        "runs": [{"run_id": key, "label": run.label, "settings": _frozen(run)} for key, run in runs.items()],
    }
    atomic.make_folder(path.parent)
    atomic.replace(path, [dump(content, indent=1)])
    return FrozenStudy(name, path, tuple(runs.values()), generator, tuple(map(tuple, orders)), roadmap)


def _frozen(run: Settings) -> dict[str, Any]:
    """The settings of a run as its study keeps them: with the place of its first weights, for its job."""
    place = run.init_from
    if place is not None and Path(place).exists():
        place = str(Path(place).resolve())
    return public(run) | ({"init_from": place} if place else {})


def seconds_beside(runs: Sequence[Settings], since: float) -> list[float]:
    """What each of the runs that were sealed one after the other took beside training and evaluating, in seconds.

    From the record of one to the record of the next: composing, data, network, checkpoints, sealing. The first run,
    which also loads the libraries, is left out.

    Args:
        runs: in the order in which they ran.
        since: `time.time()` when the first was started; only what was sealed later counts.
    """
    places = [place for place in map(RunDir.locate, runs) if place.result.exists()]
    sealed = [(place.result.stat().st_mtime, place) for place in places]
    sealed = [(when, place) for when, place in sealed if when >= since]
    found = []
    for (before, _), (when, place) in pairwise(sealed):
        at_work = sum(line["train_seconds"] + line["eval_seconds"] for line in place.timings())
        found.append(when - before - at_work)
    return found


def find_run(study: FrozenStudy, identity: str) -> Settings:
    """The run of a plan with this id (or the first digits of it). Raises ConfigError."""
    found = [settings for settings in study.runs if run_id(settings).startswith(identity)]
    if len(found) != 1:
        raise ConfigError(f"study.run={identity} names {len(found)} of the {len(study.runs)} runs of {study.path}")
    return found[0]


def live_state(place: RunDir) -> str:
    """`RunDir.state`, and "running" for a run that is under way."""
    state = place.state()
    return "running" if state == "half" and lock.is_claimed(place.path) else state


def states(study: FrozenStudy) -> list[str]:
    """The state of each run: missing, half, running, finished, diverged, failed or damaged."""
    return [live_state(RunDir.locate(settings)) for settings in study.runs]


def to_launch(study: FrozenStudy, *, rerun: bool, retry_failed: bool) -> list[Settings]:
    """The runs that are worth starting: neither sealed, nor failed before unless failures are to be retried."""
    done = {"finished", "diverged"} | (set() if retry_failed else {"failed"})
    return [run for run, state in zip(study.runs, states(study), strict=True) if rerun or state not in done]


def check_outcome(study: FrozenStudy) -> str:
    """One line on how a study stands.

    Raises:
        StudyError: not every run is finished; the line says what is missing and how to go on.
    """
    found = states(study)
    counts = Counter(found)
    line = f"{study.full_name}: {counts['finished']} of {len(found)} runs finished"
    if counts["finished"] == len(found):
        return line
    rest = []
    for state in ("diverged", "failed", "damaged", "running", "half", "missing"):
        labels = [f"{run.label} s{run.seed}" for run, own in zip(study.runs, found, strict=True) if own == state]
        if labels:
            shown = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
            rest.append(f"{len(labels)} {state} ({shown})")
    advice = "; the same command continues" + (", with retry_failed=true also those" if counts["failed"] else "")
    raise StudyError(f"{line}, {', '.join(rest)}{advice if set(found) - {'finished', 'diverged'} else ''}")
