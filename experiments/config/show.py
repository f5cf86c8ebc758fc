"""What `python run.py ... --cfg job` prints: the config with everything resolved, of a run or each of a multirun."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import yaml

from experiments.config.compose import settings_from
from experiments.config.fields import is_resolved
from experiments.config.schema import compose, composing

SECTIONS = ("design", "recipe", "batch", "data")


def resolved_config(overrides: Sequence[str]) -> str:
    """The config of one run as YAML: its design, recipe and set of changes are what would be trained.

    `precision=auto` stays: which one it is depends on the machine that trains, and torch has to be asked.

    Raises:
        ConfigError, DesignError: as for training.
    """
    config = compose(overrides)
    fixed = {"precision": "fp32"} if config["precision"] == "auto" else {}
    settings = settings_from(config | fixed, overrides)
    plain: dict[str, Any] = {
        **config,
        "step": settings.step,
        "changes": list(settings.changes),
        "label": settings.label,
    }
    for name in SECTIONS:
        part = getattr(settings, name)
        keys = [item.name for item in dataclasses.fields(part) if not is_resolved(item)]
        values = {key: getattr(part, key) for key in keys}
        plain[name] = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    return yaml.safe_dump(plain, sort_keys=False).rstrip("\n")


def resolved_configs(jobs: Sequence[Sequence[str]]) -> str:
    """Those of the runs of a multirun, as the documents of one YAML stream."""
    with composing():
        documents = [
            f"# run {number} of {len(jobs)}: {' '.join(job)}\n{resolved_config(job)}"
            for number, job in enumerate(jobs, 1)
        ]
    return "\n---\n".join(documents)
