"""The command behind a run: as it stands in the frozen study that planned it, else put together from its record."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.strict_json import MEBIBYTE, read_object

_LIMIT = 256 * MEBIBYTE  # a study of thousands of runs
_NOT_OF_ONE_RUN = ("+study=", "study=", "hydra", "launcher", "runs_dir=", "data.root=")
_NEEDS_QUOTES = set("[]{}() ,*&|;<>$")


def command(overrides: Iterable[str]) -> str:
    """The command line with these overrides, quoted for a shell."""
    words = [f"'{word}'" if set(word) & _NEEDS_QUOTES else word for word in overrides]
    return " ".join(["python run.py", *words])


def rebuilt(record: Mapping[str, Any]) -> str:
    """A command from a record: step or changes, groups, seed. Single values that were typed are in its config.yaml."""
    overrides = [f"+step={record['step'] or 'resnet50'}"]
    if not record["step"] and record["changes"]:
        overrides.append(f"add=[{','.join(record['changes'])}]")
    overrides += [
        f"regime={record['regime']}",
        *(f"{key}={record[key]['name']}" for key in ("recipe", "budget", "data")),
    ]
    without = record["recipe"].get("without")
    overrides += [f"recipe.without=[{','.join(without)}]"] if without else []
    return command([*overrides, f"seed={record['seed']}"])


def planned(source: Path) -> dict[str, str]:
    """run_id -> command of every run that a frozen study in source/studies names; unreadable ones are passed over."""
    commands: dict[str, str] = {}
    for path in sorted(source.glob("studies/*.json")):
        try:
            study = read_object(path, _LIMIT)
            for overrides, run in zip(study["jobs"], study["runs"], strict=True):
                own = [word for word in overrides if not word.startswith(_NOT_OF_ONE_RUN)]
                commands.setdefault(run["run_id"], command(own))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return commands
