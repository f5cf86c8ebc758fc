"""Number formats of the forward pass, and compilation of it."""

from contextlib import AbstractContextManager
from typing import cast

import torch
from torch import nn

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context of a forward pass; weights and optimizer state stay fp32 in every precision."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")


def gradient_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """The loss scaler that fp16 needs; for the other precisions one that passes everything through."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def compile_network(model: nn.Module, mode: str, backend: str = "inductor") -> None:
    """Compile `model` in place (its parameter names stay): nothing, each block of its stages, or all of it."""
    parts = {"none": [], "model": [model], "blocks": _blocks(model) if mode == "blocks" else []}[mode]
    for part in parts:
        part.compile(backend=backend, fullgraph=True, dynamic=False)


def _blocks(model: nn.Module) -> list[nn.Module]:
    stages = cast(nn.Sequential, model.stages)
    return [block for stage in stages for block in cast(nn.Sequential, stage.blocks)]
