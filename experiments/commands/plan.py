"""`python -m experiments plan`: a study as a table with its state and its price, before any money is spent."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from experiments.config.schema import composing
from experiments.config.settings import Settings
from experiments.store.run_dir import RunDir
from experiments.studies import frozen
from experiments.studies.launch import freeze_study, study_of
from experiments.studies.power import outlook
from roadmap import complexity_of
from roadmap.show.tables import FORMATS

STATES_TO_DO = ("missing", "half", "running", "failed", "damaged")
GENERATIONS = 2  # checkpoints that a run keeps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("overrides", nargs="*", help="as for run.py: +study=ladder regime=base seed=0,1 ...")
    parser.add_argument("--format", choices=sorted(FORMATS), default="table")
    parser.add_argument(
        "--speed",
        choices=("measure", "recorded", "none"),
        default="measure",
        help="time each distinct network on this device (default), read finished runs, or estimate nothing",
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement (default 2)")
    parser.add_argument("--budget-hours", type=float, help="say which first runs fit into this many hours")
    parser.add_argument(
        "--noise",
        type=float,
        metavar="PP",
        help="standard deviation of a run in percentage points, for the intervals to expect (default: from the study's "
        "finished runs, else the paper's seeds scaled to this test set)",
    )
    parser.add_argument("--price", type=float, help="of an hour of the device, in your currency")


def run(options: argparse.Namespace) -> int:
    """Freeze the study if it is new, print its table and its totals; returns the exit code."""
    study = frozen_study(options.overrides)
    states = frozen.states(study)
    words = outlook(study, states, options.noise)
    rows = table(study, states, options.speed, options.seconds, options.price)
    shown = rows if options.format in ("csv", "json") else [{k: _short(v) for k, v in row.items()} for row in rows]
    print(FORMATS[options.format](shown))
    for line in (*totals(study, rows, options.budget_hours), *words):
        print(line, file=sys.stderr)
    return 0


def _short(value: Any) -> Any:
    """A table's cell: three digits are enough, and what is unknown is empty."""
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else value


def frozen_study(overrides: Sequence[str]) -> frozen.FrozenStudy:
    """The study that `run.py` would run with these overrides, frozen if it was not."""
    with composing():
        return freeze_study(study_of(overrides))


def table(
    study: frozen.FrozenStudy, states: Sequence[str], speed: str, seconds: float, price: float | None
) -> list[dict[str, Any]]:
    """A row per run; hours are of the runs still to do, disk in GB of what a finished run leaves."""
    rows = []
    known: dict[Any, float | None] = {}
    for settings, state in zip(study.runs, states, strict=True):
        cost = complexity_of(
            settings.design,
            image_size=settings.image_size,
            num_classes=settings.data.classes or 1000,
            in_chans=settings.data.channels,
        )
        hours = _hours(settings, study, speed, seconds, known) if state in STATES_TO_DO else 0.0
        row: dict[str, Any] = {
            "label": settings.label,
            "seed": settings.seed,
            "state": state,
            "epochs": settings.recipe.epochs,
            "params": cost.params,
            "gmacs": cost.gmacs,
            "hours": None if hours is None else round(hours, 6),
            "gpu_hours": None if hours is None else round(hours * _uses_gpu(settings), 6),
            "disk_gb": round(_disk_bytes(settings, cost.params) / 1e9, 3),
        }
        if price is not None:
            row["cost"] = None if hours is None else round(hours * price, 2)
        rows.append(row)
    return rows


def _hours(
    settings: Settings, study: frozen.FrozenStudy, speed: str, seconds: float, known: dict[Any, float | None]
) -> float | None:
    """Estimated hours of one run from scratch; None where nothing is known. `known` remembers what was measured."""
    if speed == "none":
        return None
    from experiments.commands import estimate as speeds

    key = (speeds.network_key(settings), settings.recipe.epochs)
    if key not in known:
        if speed == "recorded":
            known[key] = speeds.recorded(study.runs, settings)
        else:
            print(f"measuring {settings.label} ...", file=sys.stderr)
            known[key] = speeds.measure(settings, seconds).seconds(settings.recipe.epochs)
    found = known[key]
    return None if found is None else found / 3600 * (1 - _share_done(settings))


def _share_done(settings: Settings) -> float:
    """How much of a half-done run is behind it."""
    try:
        return min(1.0, len(RunDir.locate(settings).history()) / settings.recipe.epochs)
    except OSError:
        return 0.0


def _uses_gpu(settings: Settings) -> int:
    if settings.device.startswith("cuda"):
        return 1
    if settings.device == "auto":
        import torch

        return int(torch.cuda.is_available())
    return 0


def _disk_bytes(settings: Settings, params: int) -> int:
    """Final weights, and the checkpoints with weights, optimizer moments and averaged weights."""
    copies = 1 + (2 if settings.recipe.optimizer == "adamw" else 1) + (settings.recipe.ema is not None)
    return 4 * params * (1 + GENERATIONS * copies)


def totals(study: frozen.FrozenStudy, rows: Sequence[dict[str, Any]], budget_hours: float | None) -> list[str]:
    """The sums of the table in words."""
    counts = {state: sum(row["state"] == state for row in rows) for state in dict.fromkeys(r["state"] for r in rows)}
    lines = [f"{study.path}: {len(rows)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items())]
    hours = [row["hours"] for row in rows]
    if None in hours:
        lines.append(f"no estimate for {hours.count(None)} runs: --speed measure times them on this device")
        return lines
    sums = f"{sum(hours):.3g} hours one after the other, {sum(row['gpu_hours'] for row in rows):.3g} GPU-hours"
    cost = f", cost {sum(row['cost'] for row in rows):.2f}" if "cost" in rows[0] else ""
    lines.append(f"to do: {sums}{cost}; {sum(row['disk_gb'] for row in rows):.3g} GB of disk")
    if budget_hours is not None:
        spent, fits = 0.0, 0
        for need in hours:
            if spent + need > budget_hours:
                break
            spent, fits = spent + need, fits + 1
        last = f", up to {rows[fits - 1]['label']} s{rows[fits - 1]['seed']}" if fits else ""
        lines.append(f"in {budget_hours:g} hours fit the first {fits} of {len(rows)} runs ({spent:.3g} hours{last})")
    return lines
