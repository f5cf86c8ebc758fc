"""`python -m experiments bench`: measure, print, record."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.bench import loop, numerics, report, step
from experiments.bench.results import record
from experiments.bench.timing import MIN_ROUNDS
from experiments.device import pick_device
from experiments.errors import ConfigError
from roadmap import STEPS
from roadmap.markers import update_file
from roadmap.tables import as_table

ENDS = ("resnet50", "separate_downsampling")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmarks and their options."""
    kinds = parser.add_subparsers(dest="kind", required=True)
    one = kinds.add_parser("step", help="a full training step of ladder rows beside torchvision's and timm's modules")
    one.add_argument("--rows", default=",".join(ENDS), help="steps, or all (default: the two ends)")
    one.add_argument("--peers", default="torchvision resnet50,timm convnext_tiny", help=f"of {', '.join(step.PEERS)}")
    one.add_argument("--size", type=int, default=224, help="image side in pixels")
    one.add_argument("--batch", type=int, default=8)
    one.add_argument("--rounds", type=int, default=MIN_ROUNDS)
    one.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    one.add_argument("--compile", action="store_true", help="torch.compile every contender")
    gate = kinds.add_parser("numerics", help="the fast form of the ends against their plain form and fp64")
    gate.add_argument("--rows", default=",".join(ENDS))
    gate.add_argument("--size", type=int, default=64)
    gate.add_argument("--batch", type=int, default=8)
    gate.add_argument("--steps", type=int, default=200, help="optimizer steps of the two loss curves")
    run_loop = kinds.add_parser("loop", help="the training loop beside a bare one and beside timm's parts")
    run_loop.add_argument("--rows", default=ENDS[1])
    run_loop.add_argument("--size", type=int, default=32, help="image side in pixels")
    run_loop.add_argument("--batch", type=int, default=64)
    run_loop.add_argument("--steps", type=int, default=8, help="optimizer steps of a round beside the bare loop")
    run_loop.add_argument("--rounds", type=int, default=MIN_ROUNDS)
    run_loop.add_argument("--workers", type=int, default=2, help="data workers of both sides beside timm")
    run_loop.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    table = kinds.add_parser("table", help="what is recorded, as Markdown")
    table.add_argument("--readme", type=Path, metavar="FILE", help="put it between the bench markers of a document")
    table.add_argument("--out", type=Path, default=Path("results/bench"), help="folder of <device>.json")
    for kind in (one, gate, run_loop):
        kind.add_argument("--device", default="auto")
        kind.add_argument("--threads", type=int, help="CPU threads (default: all)")
        kind.add_argument("--out", type=Path, default=Path("results/bench"), help="folder of <device>.json")


def run(options: argparse.Namespace) -> int:
    """Run one benchmark, print its rows and record them; returns the exit code."""
    if options.kind == "table":
        return _table(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    name, rows = _KINDS[options.kind](options, device)
    hidden = ("kind", "command", "device", "out", "threads", "rows")
    conditions = {key: value for key, value in vars(options).items() if key not in hidden and not callable(value)}
    print(as_table(_aligned(rows)))
    print(f"\nrecorded as {name!r} in {record(options.out, device, name, conditions, rows)}")
    return 0


def _table(options: argparse.Namespace) -> int:
    text = report.markdown(options.out)
    if options.readme:
        update_file(options.readme, {"bench": text})
    else:
        print(text)
    return 0


def _step(options: argparse.Namespace, device: torch.device) -> tuple[str, list[dict[str, Any]]]:
    if options.rounds < MIN_ROUNDS:
        raise ConfigError(
            f"--rounds={options.rounds} must be at least {MIN_ROUNDS}: fewer do not tell 13 % from nothing"
        )
    rows = step.measure(
        _rows(options.rows),
        _chosen("--peers", options.peers, tuple(step.PEERS)),
        options.size,
        options.batch,
        options.rounds,
        device,
        options.precision,
        options.compile,
    )
    mode = "compiled" if options.compile else "eager"
    return f"step {options.size}px {options.precision} {mode}", rows


def _numerics(options: argparse.Namespace, device: torch.device) -> tuple[str, list[dict[str, Any]]]:
    rows = [numerics.compare(name, options.size, options.batch, options.steps, device) for name in _rows(options.rows)]
    return "numerics", rows


def _loop(options: argparse.Namespace, device: torch.device) -> tuple[str, list[dict[str, Any]]]:
    rows = []
    for name in _rows(options.rows):
        common = (name, options.batch, options.size)
        rows.append(loop.against_bare(*common, options.steps, options.rounds, device, options.precision))
        rows.append(loop.against_timm(*common, options.rounds, options.workers, device, options.precision))
    return f"loop {options.size}px {options.precision}", rows


_KINDS = {"step": _step, "numerics": _numerics, "loop": _loop}


def _rows(text: str) -> list[str]:
    names = tuple(step.name for step in STEPS)
    return list(names) if text == "all" else _chosen("--rows", text, names)


def _chosen(option: str, text: str, allowed: Sequence[str]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in allowed:
            raise ConfigError(f"{option}: {name!r} is not one of: {', '.join(allowed)}")
    return names


def _aligned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the same columns each, numbers as short text."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: _short(row.get(key, "")) for key in columns} for row in rows]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
