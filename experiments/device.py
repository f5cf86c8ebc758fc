"""Which device trains, and the process-wide switches of torch that a run sets and puts back."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from experiments.errors import ConfigError
from experiments.settings import Settings


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called `name`; `auto` is CUDA, else Apple's MPS, else the CPU. A host's ranks share its GPUs."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device={name} is not a device; use auto, cpu, cuda, cuda:N or mps") from None
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        raise ConfigError(f"device={name} is not available on this machine; use auto or cpu")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={name} does not exist: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def _use_deterministic(wanted: bool) -> None:
    """Switch determinism only where it differs: the call itself imports torch's compiler, a second and more."""
    if torch.are_deterministic_algorithms_enabled() != wanted:
        torch.use_deterministic_algorithms(wanted)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread what several would only wait for: they spin, and workers need the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def process_switches(settings: Settings, device: torch.device) -> Iterator[None]:
    """Set thread count, determinism and fp32 arithmetic for one run; put them back for the next job of a multirun."""
    threads, convolutions = torch.get_num_threads(), torch.backends.cudnn
    before = (convolutions.benchmark, convolutions.allow_tf32, torch.are_deterministic_algorithms_enabled())
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    convolutions.benchmark = not settings.deterministic
    convolutions.allow_tf32 = settings.precision != "fp32"
    _use_deterministic(settings.deterministic)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        convolutions.benchmark, convolutions.allow_tf32 = before[:2]
        _use_deterministic(before[2])
        if device.type == "cuda":
            torch.cuda.empty_cache()
