"""Matrix products in fp32 on a CPU by oneDNN, where the library that torch prefers leaves half of the processor idle.

torch computes a linear layer with Intel's MKL, which keeps to AVX2 on other makers' processors. oneDNN, which is in
torch as well, uses AVX-512 there: twice the speed (`python -m experiments bench step`).
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

# Multiply-accumulates from which oneDNN computes a product. Below, a network spends its time elsewhere; and the runs in
# results/, whose networks are small, stay repeatable to the byte.
SMALLEST = 2**26


def product_is_faster(x: Tensor, outputs: int) -> bool:
    """Whether oneDNN computes x (N, C, H, W) times (C, outputs) faster than MKL does.

    Whoever watches the operations (compilers, exporters, counters of FLOPs) is shown the usual ones.
    """
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._len_torch_dispatch_stack()
        and not torch.is_autocast_enabled("cpu")
        and x.dtype == torch.float32
        and x.numel() * outputs >= SMALLEST
        and _mkl_holds_back()
    )


@cache
def _mkl_holds_back() -> bool:
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    try:
        with open("/proc/cpuinfo") as file:
            return "GenuineIntel" not in file.read()
    except OSError:
        return False  # not Linux


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` by oneDNN, with gradients of every order: x (..., in) times weight (out, in) transposed, plus bias."""
    return _Product.apply(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])


class _Product(torch.autograd.Function):
    """The product of (rows, in) with (out, in): a result that is no view may be changed in place."""

    generate_vmap_rule = True  # for torch.func

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            product(grad, weight.t(), None) if for_x else None,
            product(grad.t(), x.t(), None) if for_weight else None,
            grad.sum(0) if for_bias else None,
        )
