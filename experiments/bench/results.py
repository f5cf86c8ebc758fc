"""`results/bench/<device>.json`: the latest figures of each benchmark on a device, with what they were measured on."""

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from experiments import strict_json
from experiments.store import atomic

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")


def device_name(device: torch.device) -> str:
    """What the device calls itself, e.g. "NVIDIA H100" or a processor's model name with its core count."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def results_file(folder: Path, device: torch.device) -> Path:
    """The file of this device."""
    return folder / (re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-") + ".json")


def record(folder: Path, device: torch.device, name: str, conditions: Mapping[str, Any], rows: Sequence[Any]) -> Path:
    """Put one benchmark's rows into the device's file, in place of an earlier run of that name; returns the file."""
    path = results_file(folder, device)
    content = json.loads(path.read_text()) if path.exists() else {"benchmarks": {}}
    content["device"] = device_name(device)
    content["benchmarks"][name] = {
        "conditions": {**conditions, "threads": torch.get_num_threads(), "python": platform.python_version()},
        "versions": {package: version(package) for package in PACKAGES},
        "rows": list(rows),
    }
    folder.mkdir(parents=True, exist_ok=True)
    atomic.replace(path, [strict_json.dump(content, indent=1)])
    return path
