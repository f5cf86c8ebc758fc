"""The table of docs/reliability.md, generated from results/storms/*.json between two markers."""

import json
from pathlib import Path
from typing import Any

from tests.storms.fleet import ROOT

RESULTS = ROOT / "results" / "storms"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- storms: begin -->", "<!-- storms: end -->"
ORDER = ("kill", "resume", "controls", "damage", "final", "faults", "signals", "hostile", "records", "owners", "starts")
HEAD = "| suite | what was shown | k of n | for contrast | wall time | command |\n|---|---|---|---|---|---|"


def row(figures: dict[str, Any]) -> str:
    """One line of the table."""
    contrast = "; ".join(f"{name} {value}" for name, value in figures.get("contrast", {}).items()) or "–"
    return (
        f"| {figures['suite']} | {figures['what']} | {figures['passed']} of {figures['total']} | {contrast}"
        f" | {figures['seconds'] / 60:.1f} min | `{figures['command']}` |"
    )


def table() -> str:
    """The whole table, from the files that are there."""
    files = [RESULTS / f"{name}.json" for name in ORDER]
    rows = [row(json.loads(file.read_text())) for file in files if file.exists()]
    return "\n".join([HEAD, *rows])


def updated(page: str) -> str:
    """The page's text with the current table between its markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def update(page: Path = PAGE) -> None:
    """Write the table into the page."""
    page.write_text(updated(page.read_text()))
