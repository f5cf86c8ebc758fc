"""Which device trains and in which number formats; the process-wide switches of torch, set and put back."""

import importlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch
from torch import nn

from experiments.errors import ConfigError


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called `name`; `auto` is CUDA, else the CPU. A host's ranks share its GPUs."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device={name} is not a device; use auto, cpu, cuda or cuda:N") from None
    available = {"cpu": True, "cuda": torch.cuda.is_available()}
    if not available.get(device.type, False):
        raise ConfigError(f"device={name} is not available on this machine; use auto or cpu")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={name} does not exist: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
def arithmetic(precision: str, deterministic: bool) -> Iterator[None]:
    """Choose how convolutions and products are computed; put back what was chosen before.

    TF32 stands in for fp32 only beside a narrow precision. Without determinism, cuDNN times its algorithms and takes
    the fastest.
    """
    chosen = torch.backends.cudnn
    before = (chosen.benchmark, chosen.allow_tf32, torch.are_deterministic_algorithms_enabled())
    if deterministic:
        reproducible_products()
    _choose(not deterministic, precision != "fp32", deterministic)
    try:
        yield
    finally:
        _choose(*before)


def _choose(benchmark: bool, tf32: bool, deterministic: bool) -> None:
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = benchmark, tf32
    if torch.are_deterministic_algorithms_enabled() != deterministic:  # the call imports torch's compiler: seconds
        torch.use_deterministic_algorithms(deterministic)


def reproducible_products() -> None:
    """Let cuBLAS compute the same bits every time, as it must where torch is to be deterministic.

    It looks at this once, at a process's first product on a GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def process_switches(device: torch.device, threads: int | None, precision: str, deterministic: bool) -> Iterator[None]:
    """Set thread count, determinism and fp32 arithmetic for one run; put them back for the next job of a multirun."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        with arithmetic(precision, deterministic):
            yield
    finally:
        torch.set_num_threads(before)
        if device.type == "cuda":
            torch.cuda.empty_cache()


FORMS = 8  # of a compiled function: training, evaluation, a smaller last batch
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context of a forward pass; weights and optimizer state stay fp32 in every precision."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")


def gradient_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """The loss scaler that fp16 needs; for the other precisions one that passes everything through."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def compile_network(model: nn.Module, mode: str, backend: str = "inductor") -> None:
    """Compile `model` in place (its parameter names stay): nothing, each block of its stages, or all of it.

    All blocks are one function to the compiler, which gives up after eight forms of it, those of earlier runs in this
    process included; with stochastic depth each block has a rate, and so a form, of its own.
    """
    parts = {"none": [], "model": [model], "blocks": _blocks(model) if mode == "blocks" else []}[mode]
    if parts:
        torch.compiler.reset()
        compiler: Any = importlib.import_module("torch._dynamo.config")
        compiler.recompile_limit = FORMS * len(parts)
    for part in parts:
        part.compile(backend=backend, fullgraph=True, dynamic=False)


def _blocks(model: nn.Module) -> list[nn.Module]:
    stages = cast(nn.Sequential, model.stages)
    return [block for stage in stages for block in cast(nn.Sequential, stage.blocks)]
