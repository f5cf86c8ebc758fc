"""Faster ways to compute on a CPU what torch computes: matrix products, and gradients of depthwise convolutions.

Both call oneDNN, which is in torch. What each is worth: `python -m experiments bench kernels`.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ONEDNN_BATCH = 16  # images from which torch hands a 1x1 convolution to oneDNN on one thread; on several it always does
MANY_ROWS = 512  # locations of all images from which that convolution is as fast as a product
FAST_WIDTH = 3  # columns of a depthwise kernel up to which oneDNN has a fast weight gradient
NARROW = (torch.bfloat16, torch.float16)

_convolution_backward = torch.ops.aten.convolution_backward


def applies(x: Tensor) -> bool:
    """Whether `x` is on a CPU that these ways are measured on, and nobody watches the operations.

    Compilers, exporters and counters of FLOPs are shown torch's own.
    """
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._len_torch_dispatch_stack()
        and _vector_unit() != "DEFAULT"
    )


@cache
def _vector_unit() -> str:
    """AVX2 or AVX512; DEFAULT for other processors and for a torch without oneDNN."""
    unit = torch.backends.cpu.get_cpu_capability()
    return unit if unit in ("AVX2", "AVX512") and torch.backends.mkldnn.is_available() else "DEFAULT"


# --- matrix products


def mkl_is_slow(x: Tensor) -> bool:
    """Whether MKL, which computes `F.linear`, is the wrong choice: in fp32, on an AVX-512 processor not of Intel's."""
    return applies(x) and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu") and _mkl_holds_back()


def product_is_faster(x: Tensor) -> bool:
    """Whether `product` beats a 1x1 convolution of x (N, C, H, W), where MKL is slow.

    On one thread torch hands such a convolution to oneDNN only from 16 images on; and oneDNN then arranges the weight
    anew for every call, which few rows do not repay.
    """
    left_to_mkl = len(x) < ONEDNN_BATCH and torch.get_num_threads() == 1
    return left_to_mkl or x[:, 0].numel() < MANY_ROWS


@cache
def _mkl_holds_back() -> bool:
    if _vector_unit() != "AVX512" or not torch.backends.mkl.is_available():
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


# --- depthwise convolutions


def gradients_are_slow(x: Tensor, kernel: int, stride: int) -> bool:
    """Whether `depthwise` beats torch in the gradients of a depthwise convolution of x (N, C, H, W), padded by K // 2.

    oneDNN's weight gradient takes 10 times the forward pass and more for K above 3, and where every row of outputs
    meets padding; its input gradient does so for a stride above 1 in a narrow type.
    """
    narrow = x.dtype in NARROW or torch.is_autocast_enabled("cpu")
    return _by_strips_is_faster(x, kernel, stride) or (stride > 1 and narrow)


def _by_strips_is_faster(x: Tensor, kernel: int, stride: int) -> bool:
    padding, rows = kernel // 2, x.shape[-2]
    first, last = -(-padding // stride), (rows - kernel + padding) // stride  # rows of outputs that meet no padding
    return kernel > FAST_WIDTH or first > last


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """`F.conv2d` of x (N, C, H, W) with weight (C, 1, K, K), padded by K // 2, with gradients of every order.

    oneDNN has a fast weight gradient for inputs without padding and weights of up to three columns, so the input is
    padded before and the weight cut into strips of columns. A strided input gradient is computed in fp32.
    """
    if torch.is_autocast_enabled("cpu"):
        narrow = torch.get_autocast_dtype("cpu")
        x, weight, bias = x.to(narrow), weight.to(narrow), None if bias is None else bias.to(narrow)
    return _Depthwise.apply(x, weight, bias, stride)


class _Depthwise(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, int], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.stride = inputs[3]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        return (
            _input_gradient(grad, x, weight, ctx.stride) if for_x else None,
            _weight_gradient(grad, x, weight, ctx.stride) if for_weight else None,
            grad.sum((0, 2, 3)) if for_bias else None,
            None,
        )


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    padding = weight.shape[-1] // 2
    if stride == 1 or x.dtype not in NARROW:
        return _backward(grad, x, weight, stride, padding, 0)
    return _backward(grad.float(), x.float(), weight.float(), stride, padding, 0).to(x.dtype)


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    kernel = weight.shape[-1]
    if _by_strips_is_faster(x, kernel, stride):
        return _by_strips(grad, x, weight, stride)
    return _backward(grad, x, weight, stride, kernel // 2, 1)


def _by_strips(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Strip by strip, for the rows and columns of the weight that meet more than padding; the others have none."""
    half = weight.shape[-1] // 2
    rows, columns = (min(half, side - 1) for side in x.shape[-2:])  # to each side of the centre
    strips = []
    for first in range(-columns, columns + 1, FAST_WIDTH):
        last = min(first + FAST_WIDTH - 1, columns)
        seen = _window(x, (-rows, rows), (first, last), grad.shape[-2:], stride)
        strip = weight[..., half - rows : half + rows + 1, half + first : half + last + 1]
        strips.append(_backward(grad, seen, strip, stride, 0, 1))
    return F.pad(torch.cat(strips, -1), (half - columns,) * 2 + (half - rows,) * 2)


def _window(x: Tensor, rows: Sequence[int], columns: Sequence[int], outputs: Sequence[int], stride: int) -> Tensor:
    """What these rows and columns of a weight, counted from its centre, see of x: padded, or cut, to just that."""
    pads: list[int] = []
    for dim, (first, last) in ((-1, columns), (-2, rows)):
        end = (outputs[dim] - 1) * stride + last + 1
        pads += [-first, end - x.shape[dim]]
    return F.pad(x, pads)


def _backward(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, which: int) -> Tensor:
    """Torch's gradient of a depthwise convolution by its input (0) or its weight (1)."""
    wanted, channels = [which == 0, which == 1, False], len(weight)
    args = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], channels, wanted
    gradient: Tensor = _convolution_backward(grad, x, weight, None, *args)[which]
    return gradient
