"""Where the time of our loop's steps goes, by kind of operation, and how often the host waits for the device."""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from experiments.bench.jobs import epoch_of, job_of, settings_of
from experiments.bench.options import ENDS, PRECISIONS, at_least, chosen_rows
from experiments.bench.photos import CLASSES
from experiments.data import open_data

HELP = "where a step of our loop spends its time, and its host synchronisations (torch's profiler)"
# What makes the host wait until a GPU has finished; on a CPU the operations are counted that would.
SYNCHRONISING = {
    "cuda": ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy"),
    "cpu": ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::equal"),
}
OPTIMIZER_STEP = "Optimizer.step"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--rows", default=ENDS[1])
    parser.add_argument("--size", type=int, default=32, help="image side in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5, help="optimizer steps under the profiler, after as many before")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--data", choices=("synthetic", "digits"), default="synthetic")


def run(options: argparse.Namespace, device: torch.device) -> tuple[str, list[dict[str, Any]]]:
    """Seconds per step and share of each group, then the synchronisations per step."""
    at_least("--steps", options.steps)
    lines = [line for row in chosen_rows(options.rows) for line in _profiled(row, options, device)]
    return f"profile {options.size}px {options.precision}", lines


def _profiled(row: str, options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    how = [f"precision={options.precision}", f"device={device}", f"data={options.data}", "logger.log_every=1000"]
    if options.data == "synthetic":
        how += [f"data.train_images={max(CLASSES, options.batch * options.steps)}", f"data.eval_images={options.batch}"]
    settings = settings_of(row, options.batch, options.size, *how)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        source = open_data(settings, device=device)
        stack.callback(source.close)
        epoch = epoch_of(job_of(settings, device, source, Path(folder), options.steps))
        epoch()
        with profile(activities=activities, record_shapes=True) as recorded:
            epoch()
    events = list(recorded.events() or ())
    return [*_groups(row, events, options.steps, device), *_waits(row, events, options.steps, device)]


def _groups(row: str, events: Iterable[Any], steps: int, device: torch.device) -> list[dict[str, Any]]:
    """Each event's own time goes to the innermost operation around it that has a group.

    A GPU's kernels are events, too; their time is that of the operations that launched them, and counted there.
    """
    clock = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    spent: Counter[str] = Counter()
    for event in events:
        if event.device_type == DeviceType.CPU:
            spent[_group(event)] += getattr(event, clock) / 1e6 / steps
    total = sum(spent.values())
    return [
        {"profile": row, "part": part, "seconds_per_step": seconds, "share": seconds / total}
        for part, seconds in spent.most_common()
        if seconds > 0
    ]


def _waits(row: str, events: Sequence[Any], steps: int, device: torch.device) -> list[dict[str, Any]]:
    """How often per step the host waits, by what makes it wait.

    Until the last optimizer step: the epoch's losses are read after it, and the profiler waits for the device itself.
    """
    end = max(event.time_range.end for event in events if OPTIMIZER_STEP in event.name)
    during = (event for event in events if event.time_range.start < end)
    waits = SYNCHRONISING[device.type]
    found = Counter(event.name for event in during if event.name in waits and not _of_cpu_optimizer(event))
    names = "; ".join(f"{name} {count} in {steps} steps" for name, count in sorted(found.items()))
    total = found.total() / steps
    return [{"profile": row, "part": f"host synchronisations ({names or 'none'})", "per_step": total}]


def _of_cpu_optimizer(event: Any) -> bool:
    """Whether the optimizer's fused CPU kernel reads its own step counters; on a GPU they stay on the device."""
    while event is not None:
        if event.name.startswith("aten::_fused_"):
            return True
        event = event.cpu_parent
    return False


def _group(event: Any) -> str:
    """The group of the innermost event, from this one outwards, that belongs to one."""
    while event is not None:
        for part, belongs in GROUPS.items():
            if belongs(event):
                return part
        event = event.cpu_parent
    return "the rest"


def _called(*names: str) -> Callable[[Any], bool]:
    return lambda event: any(name in event.name for name in names)


def _convolution(kind: str) -> Callable[[Any], bool]:
    """Convolutions of a kind, forward or backward, told by the shape of their weights (out, in / groups, k, k)."""
    return lambda event: event.name in _WEIGHTS and _kind(event.input_shapes[_WEIGHTS[event.name]]) == kind


_LINEAR = ("aten::linear", "AddmmBackward", "_Product")  # the last is in roadmap.cpu_kernels, as _Depthwise is
_WEIGHTS = {"aten::convolution": 1, "aten::convolution_backward": 2}  # where an operation has its weights


def _kind(weight: list[int]) -> str:
    if weight[2] == weight[3] == 1:
        return "1x1"
    return "depthwise" if weight[1] == 1 else "dense"


GROUPS: dict[str, Callable[[Any], bool]] = {
    "depthwise convolution": lambda event: _convolution("depthwise")(event) or _called("_Depthwise")(event),
    "1x1 convolution": lambda event: _convolution("1x1")(event) or _called(*_LINEAR)(event),
    "other convolution": _convolution("dense"),
    "norm": _called("layer_norm", "batch_norm"),
    "activation": _called("gelu", "aten::relu", "threshold_backward"),
    "residual sum and layer scale": _called("addcmul", "AddcmulBackward", "aten::add_"),
    "optimizer": _called(OPTIMIZER_STEP, "_fused_adam", "_fused_sgd", "zero_grad"),
    "loss": _called("cross_entropy", "log_softmax", "nll_loss"),
    "data and mixing": _called("embedding_bag", "aten::flip", "aten::index_select", "aten::gather", "aten::lerp"),
}
