"""Where the YAML files lie that Python reads too: `conf/` of the project, then the folders of one's own.

A folder of one's own is built like `conf/` (`step/`, `roadmap/`, `data/`, `study/`, ...) and named in the environment
variable ROADMAP_PATH, several with the system's path separator between them, or by Hydra's option `--config-dir`. An
installed package contributes one by an entry point of the group `convnext_roadmap.conf`, whose value is the folder's
dotted name.
"""

import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from roadmap.errors import DesignError

_HERE = Path(__file__).resolve().parent
INSTALLED = (_HERE / "conf").is_dir()  # from a wheel: setup.py puts conf/ there; else it lies beside the packages
CONF = (_HERE if INSTALLED else _HERE.parent) / "conf"
VARIABLE = "ROADMAP_PATH"
GROUP = "convnext_roadmap.conf"
OPTIONS = ("--config-dir", "-cd")  # Hydra's


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Hydra reads it: 4e-5 is a number. In C, where PyYAML was built so: a tenth of the time."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def use_config_dir(arguments: Sequence[str]) -> None:
    """Put the folder of Hydra's `--config-dir` on the path, for this process and those that it starts.

    To be called before anything reads a file: steps and roadmaps are read once, on import.
    """
    for option, value in zip(arguments, (*arguments[1:], ""), strict=False):
        name, equals, inside = option.partition("=")
        if name in OPTIONS and (inside or value):
            folder = str(Path(inside if equals else value).resolve())
            known = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
            if folder not in known:
                os.environ[VARIABLE] = os.pathsep.join([*known, folder])


def own_folders() -> tuple[Path, ...]:
    """The folders of one's own: those of installed packages, then those of the path.

    Raises:
        DesignError: one of them does not exist.
    """
    folders = [Path(part).resolve() for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    for folder in folders:
        if not folder.is_dir():
            raise DesignError(f"{VARIABLE}: there is no folder {folder}")
    return (*contributed(), *(folder for folder in folders if folder not in contributed()))


@cache
def contributed() -> tuple[Path, ...]:
    """The folders of installed packages, in the order of the entry points' names. No package but parents is imported.

    Raises:
        DesignError: an entry point names no folder.
    """
    folders: dict[Path, None] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            spec = find_spec(point.value)
        except (ImportError, ValueError):
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise DesignError(
                f"entry point {point.name} of {GROUP}: {point.value} is no folder of an installed package"
            )
        folders[Path(next(iter(spec.submodule_search_locations))).resolve()] = None
    return tuple(folders)


@cache
def found(group: str) -> Mapping[str, Path]:
    """The files of a config group by name, those of the project first.

    Raises:
        DesignError: two files of one name: a name means one thing wherever it is used.
    """
    files: dict[str, Path] = {}
    for folder in (CONF, *own_folders()):
        for path in sorted((folder / group).glob("*.yaml")):
            if path.stem in files:
                raise DesignError(f"{path}: {group}={path.stem} is {files[path.stem]} already; give it another name")
            files[path.stem] = path
    return files


def parsed(text: str | bytes) -> Any:
    """The value of a YAML text, without executing anything. Raises yaml.YAMLError, or RecursionError where it nests."""
    return _Loader(text).get_single_data()


@cache
def read(path: Path) -> Mapping[str, Any]:
    """The content of a YAML file.

    Raises:
        DesignError: it is no YAML, or no mapping.
    """
    try:
        content = parsed(path.read_text())
    except yaml.YAMLError as error:
        raise DesignError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping):
        raise DesignError(f"{path} must hold keys and values")
    return content
