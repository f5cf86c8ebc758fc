"""The command behind a run, put together from overrides or from its record."""

from collections.abc import Iterable, Mapping
from typing import Any

from experiments.config.quoting import command as quoted
from roadmap.escape import visible
from roadmap.program import train_command
from roadmap.steps import DEFAULT, START


def command(overrides: Iterable[str]) -> str:
    """The command line with these overrides, quoted for a shell."""
    return visible(f"{train_command()} {quoted(overrides)}".rstrip())


def rebuilt(record: Mapping[str, Any]) -> str:
    """A command from a record: step or changes, groups, seed. Single values that were typed are in its config.yaml."""
    name, _, step = (record["step"] or START.name).rpartition(".")
    overrides = [f"roadmap={name}"] if name not in ("", DEFAULT.name) else []
    overrides.append(f"+step={step}")
    if not record["step"] and record["changes"]:
        overrides.append(f"add=[{','.join(record['changes'])}]")
    overrides += [
        f"regime={record['regime']}",
        *(f"{key}={record[key]['name']}" for key in ("recipe", "budget", "data")),
    ]
    without = record["recipe"].get("without")
    overrides += [f"recipe.without=[{','.join(without)}]"] if without else []
    return command([*overrides, f"seed={record['seed']}"])
