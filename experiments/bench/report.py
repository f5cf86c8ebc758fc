"""The recorded figures as Markdown, for the README and for `python -m experiments bench table`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roadmap.tables import as_markdown

NAMES = ("network", "loop")  # what a row is about comes first
EMPTY = "Nothing has been measured yet: `python -m experiments bench step` records the first figures."


def markdown(folder: Path) -> str:
    """Every benchmark on every device in `folder`: conditions, then a row per contender."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        for name, benchmark in sorted(content["benchmarks"].items()):
            parts.append(f"**{name}** on {content['device']} ({_conditions(benchmark)})")
            shown = [_shown(row) for row in benchmark["rows"]]
            columns = dict.fromkeys(key for row in shown for key in row)
            parts.append(as_markdown([{key: row.get(key, "") for key in columns} for row in shown]))
    return "\n\n".join(parts) or EMPTY


def _conditions(benchmark: Mapping[str, Any]) -> str:
    conditions, versions = benchmark["conditions"], benchmark["versions"]
    told = [f"{key} {conditions[key]}" for key in ("batch", "rounds", "threads", "workers") if key in conditions]
    return ", ".join([*told, f"torch {versions['torch']}", f"timm {versions['timm']}"])


def _shown(row: Mapping[str, Any]) -> dict[str, str]:
    """A row with its ratio and the range over rounds in one cell, other numbers to three digits."""
    shown = {key: _cell(value) for key, value in row.items() if key not in ("ratio_low", "ratio_high")}
    if "ratio" in row:
        shown["ratio"] = f"{row['ratio']:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})"
    first = [key for key in NAMES if key in shown]
    return {key.replace("_", " "): shown[key] for key in [*first, *(key for key in shown if key not in first)]}


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
