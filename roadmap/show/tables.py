"""The ladder as a table: rows of plain values and the text formats they are printed in."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from roadmap import paper
from roadmap.changes import FILES
from roadmap.complexity import complexity_of
from roadmap.escape import csv_cell, visible
from roadmap.resolve import design_for
from roadmap.steps import CHANGES, DEFAULT, ROADMAPS, Roadmap

Row = Mapping[str, Any]
COLUMNS = ("step", "parent", "change", "params", "macs", "gmacs", "activations")


def ladder_rows(
    regime: str = "tiny", image_size: int = 224, num_classes: int = 1000, road: Roadmap = DEFAULT
) -> list[Row]:
    """One row per step with COLUMNS as keys; `gmacs` in 1e9, rounded to two decimals as the paper prints them."""
    rows: list[Row] = []
    for step in road.steps:
        design = design_for(step.changes, regime)
        cost = complexity_of(design, image_size=image_size, num_classes=num_classes)
        rows.append(
            {
                "step": step.name,
                "parent": step.parent or "",
                "change": describe(step.delta_in(regime)) or f"recipe={step.recipe}",
                "params": cost.params,
                "macs": cost.macs,
                "gmacs": round(cost.gmacs, 2),
                "activations": cost.activations,
            }
        )
    return rows


def change_rows(regime: str = "tiny") -> list[Row]:
    """One row per change there is: what it sets, and the steps whose own change it is."""
    return [
        {
            "change": name,
            "sets": describe(FILES[name].delta_in(regime)),
            "roadmaps": ", ".join(road.name for road in ROADMAPS.values() if name in road.by_name),
        }
        for name in CHANGES
    ]


def describe(delta: Mapping[str, Any]) -> str:
    """A delta as it would be typed, e.g. "depths=[3,3,9,3] width=84"."""
    return " ".join(f"{key}={_typed(value)}" for key, value in delta.items())


def _typed(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def readme_ladder(road: Roadmap = DEFAULT) -> str:
    """A ladder as the README shows it: what a step changes, its cost as counted, accuracy as published."""
    rows: list[dict[str, Any]] = []
    for regime in road.regimes:
        mark = "" if regime == road.regimes[0] else f"{regime}: "
        for place, counted in enumerate(ladder_rows(regime, road.image_size, road=road)):
            if not mark:
                branch = "" if road.steps[place].on_path else " (side branch)"
                rows.append({"`+step=`": f"`{counted['step']}`{branch}", "sets": f"`{counted['change']}`"})
                rows[place]["params (M)"] = f"{counted['params'] / 1e6:.2f}"
            rows[place][f"{mark}GMACs"] = f"{counted['gmacs']:.2f}"
            rows[place][f"{mark}paper top-1 (%)"] = _published(road.row(counted["step"], regime))
    return as_markdown(rows)


def _published(row: paper.PaperRow | None) -> str:
    if row is None:
        return ""
    return f"{row.top1:.2f}" + (f" ± {row.top1_std:.2f}" if row.top1_std is not None else "")


def as_table(rows: Sequence[Row]) -> str:
    """Aligned columns for a terminal, numbers to the right."""
    names = list(rows[0])
    cells = [names] + [[_readable(row[name]) for name in names] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    numeric = [isinstance(rows[0][name], int | float) for name in names]
    return "\n".join(
        "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numeric, strict=True)).rstrip()
        for line in cells
    )


def _readable(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else visible(str(value))


def as_markdown(rows: Sequence[Row]) -> str:
    """A Markdown table, numbers to the right."""
    names = list(rows[0])
    rule = ["---:" if isinstance(rows[0][name], int | float) else "---" for name in names]
    lines = [names, rule] + [[_readable(row[name]) for name in names] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_csv(rows: Sequence[Row]) -> str:
    """Comma-separated values with a header line."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: csv_cell(value) if isinstance(value, str) else value for key, value in row.items()})
    return buffer.getvalue().rstrip("\n")


def as_json(rows: Sequence[Row]) -> str:
    """A JSON list of objects."""
    return json.dumps(list(rows), indent=1)


FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    "table": as_table,
    "csv": as_csv,
    "md": as_markdown,
    "json": as_json,
}
