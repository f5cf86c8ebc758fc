"""The ladder as a table: rows of plain values and the text formats they are printed in."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from roadmap import paper
from roadmap.complexity import complexity_of
from roadmap.steps import STEPS

Row = Mapping[str, Any]
COLUMNS = ("step", "parent", "change", "params", "macs", "gmacs", "activations")


def ladder_rows(regime: str = "tiny", image_size: int = 224, num_classes: int = 1000) -> list[Row]:
    """One row per step with COLUMNS as keys; `gmacs` in 1e9, rounded to two decimals as the paper prints them."""
    rows: list[Row] = []
    for step in STEPS:
        cost = complexity_of(step.name, regime=regime, image_size=image_size, num_classes=num_classes)
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


def describe(delta: Mapping[str, Any]) -> str:
    """A delta as it would be typed, e.g. "depths=[3,3,9,3] width=84"."""
    return " ".join(f"{key}={_typed(value)}" for key, value in delta.items())


def _typed(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def readme_ladder() -> str:
    """The ladder as the README shows it: what a step changes, its cost as counted, accuracy as published."""
    rows: list[Row] = []
    for step, tiny, base in zip(STEPS, ladder_rows("tiny"), ladder_rows("base"), strict=True):
        published = {regime: paper.row(tiny["step"], regime) for regime in ("tiny", "base")}
        rows.append(
            {
                "`+step=`": f"`{tiny['step']}`" + ("" if step.on_path else " (side branch)"),
                "sets": f"`{tiny['change']}`",
                "params (M)": f"{tiny['params'] / 1e6:.2f}",
                "GMACs": f"{tiny['gmacs']:.2f}",
                "paper top-1 (%)": _published(published["tiny"]),
                "base: GMACs": f"{base['gmacs']:.2f}",
                "base: paper top-1 (%)": _published(published["base"]),
            }
        )
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
    return f"{value:,}" if isinstance(value, int) else str(value)


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
    writer.writerows(rows)
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
