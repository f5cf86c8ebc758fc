"""Many small runs: one study of the micro ladder beside as many starts of a training script of timm's parts."""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from experiments.bench import processes
from experiments.bench.options import at_least, chosen_rows
from experiments.bench.tasks import digits_settings, write_digits, write_task

HELP = "the micro ladder on digits as one study, beside separate starts of a script of timm's parts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--rows", default="all", help="steps, or all")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the study; 17 rows x 3 are the paper's 51 runs")
    parser.add_argument("--starts", type=int, help="starts of timm's parts that are timed (default: every run)")
    parser.add_argument("--workers", type=int, default=2, help="timm's worker processes; ours has none for digits")
    parser.add_argument("--launcher", choices=("local", "ray"), default="local", help="of the study")
    parser.add_argument("--study-threads", type=int, help="threads of each run of the study (default: as --threads)")


def run(options: argparse.Namespace, device: torch.device) -> tuple[str, list[dict[str, Any]]]:
    """Wall seconds of both, the peer's scaled up to the study's number of runs where fewer starts are timed."""
    rows = chosen_rows(options.rows)
    runs = len(rows) * options.seeds
    for option, value in {"--seeds": options.seeds, "--starts": options.starts or runs}.items():
        at_least(option, value)
    starts = min(options.starts or runs, runs)
    with tempfile.TemporaryDirectory() as name:
        tasks = _tasks(Path(name), rows, starts, options.workers, device)
        environment = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        half = len(tasks) // 2  # before and after the study, so that a drifting machine slows both alike
        theirs = [processes.run(task, environment) for task in tasks[:half]]
        study = processes.run(_study(rows, options, device, Path(name) / "runs"), {})
        theirs += [processes.run(task, environment) for task in tasks[half:]]
        ours = [json.loads(file.read_text()) for file in Path(name).glob("runs/*/result.json")]
    if len(ours) != runs:
        raise RuntimeError(f"{len(ours)} of {runs} runs of the study have a result")
    per_start = [report["seconds"] for report in theirs]
    return "many small runs", [_line(study["seconds"], per_start, runs, ours, theirs)]


def _tasks(folder: Path, rows: list[str], starts: int, workers: int, device: torch.device) -> list[list[str]]:
    """Arguments of `starts` runs of the peer, spread evenly over the rows."""
    asked = ["regime=micro", f"threads={torch.get_num_threads()}", f"workers={workers}", f"device={device}"]
    write_digits(folder / "digits", digits_settings(rows[0], *asked))
    tasks = []
    for number in range(starts):
        row = rows[number * len(rows) // starts % len(rows)] if starts <= len(rows) else rows[number % len(rows)]
        settings = digits_settings(row, *asked)
        tasks.append(write_task(folder / f"task-{number}.json", folder / "digits", settings))
    return tasks


def _study(rows: list[str], options: argparse.Namespace, device: torch.device, runs_dir: Path) -> list[str]:
    """Python's arguments of the study."""
    threads = options.study_threads or torch.get_num_threads()
    seeds = ",".join(map(str, range(options.seeds)))
    asked = ["regime=micro", f"threads={threads}", f"device={device}", f"launcher={options.launcher}"]
    asked.append("precision=fp32")  # on a GPU, too: the peer's
    return [
        "-m",
        "convnext_roadmap",
        "train",
        "-m",
        f"seed={seeds}",
        f"+step={','.join(rows)}",
        *asked,
        f"runs_dir={runs_dir}",
    ]


def _line(study: float, per_start: list[float], runs: int, ours: list[Any], theirs: list[Any]) -> dict[str, Any]:
    """The ratio; its range is over the starts, each taken for all of them."""
    timed = "" if len(per_start) == runs else f", extrapolated from {len(per_start)}"
    return {
        "study": f"{runs} runs of the micro ladder on digits",
        "peer": f"{runs} starts of timm's parts{timed}",
        "ratio": mean(per_start) * runs / study,
        "ratio_low": min(per_start) * runs / study,
        "ratio_high": max(per_start) * runs / study,
        "seconds": study,
        "peer_seconds": mean(per_start) * runs,
        "mean_top1": mean(result["top1"] for result in ours),
        "peer_mean_top1": mean(report["top1"] for report in theirs),
    }
