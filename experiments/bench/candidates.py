"""Forms of our network that are measured but not in use, because they would change the results of recorded runs."""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from roadmap.layers import PointwiseConv
from roadmap.network import RoadmapNet

ONEDNN = ", products by oneDNN"


class _Product(torch.autograd.Function):
    """x @ weight.T + bias and its gradients by oneDNN, where torch takes MKL.

    On processors of other makers than Intel MKL keeps to AVX2, which is half of what an AVX-512 unit can do.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        rows, inputs = grad.flatten(0, -2), x.flatten(0, -2)
        return _product(grad, weight.t(), None), _product(rows.t(), inputs.t(), None), rows.sum(0)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """X (..., in) @ weight (out, in).T + bias, fp32 on a CPU."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def with_onednn(network: nn.Module) -> nn.Module:
    """Let every 1x1 convolution that runs as a linear layer run in oneDNN."""
    assert isinstance(network, RoadmapNet)
    for module in network.modules():
        if isinstance(module, PointwiseConv) and module.bias is not None:
            module.forward = _forward.__get__(module)  # type: ignore[method-assign]
    return network


def _forward(self: PointwiseConv, x: Tensor) -> Tensor:
    return _Product.apply(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
