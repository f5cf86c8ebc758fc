"""Number formats of the forward pass, and compilation of it."""

import importlib
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import nn

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
