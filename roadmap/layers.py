"""The layers of the network, each by a look-up from the plan: `MODULES`. All take and return (N, C, H, W)."""

from collections.abc import Callable, Iterable
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roadmap.cpu_kernels import applies, depthwise, gradients_are_slow, mkl_is_slow, product, product_is_faster
from roadmap.operations import Op

# The functions below choose by their input or ask it for its shape, which a symbolic tracer could not follow: FX keeps
# each of them as one call. TorchScript, which has none of the CPU's own ways, gets what torch computes.


class PointwiseConv(nn.Conv2d):
    """1x1 convolution; computed as a linear layer on the channels-last view where that is faster, same weights."""

    def forward(self, x: Tensor) -> Tensor:
        return pointwise_conv(x, self.weight, self.bias)

    def by(self, linear: Callable[..., Tensor], x: Tensor) -> Tensor:
        """The same by a function of (x, weight, bias) like `F.linear`."""
        return _by_linear(linear, x, self.weight, self.bias)


@torch.fx.wrap
def pointwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.conv2d` of x (N, C, H, W) with a weight (out, C, 1, 1)."""
    if torch.jit.is_scripting():
        return F.conv2d(x, weight, bias)
    linear = _linear_for(x, bias)
    return F.conv2d(x, weight, bias) if linear is None else _by_linear(linear, x, weight, bias)


def _linear_for(x: Tensor, bias: Tensor | None) -> Callable[..., Tensor] | None:
    """The linear layer to use, None for the convolution; the choice is by measurement, `bench kernels`."""
    if not x.is_contiguous(memory_format=torch.channels_last):
        return None
    if mkl_is_slow(x):
        return product if product_is_faster(x) else None
    return F.linear if bias is not None else None


def _by_linear(linear: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


class DepthwiseConv(nn.Conv2d):
    """Depthwise convolution, padded by K // 2; on a CPU with faster gradients than torch's."""

    def forward(self, x: Tensor) -> Tensor:
        return depthwise_conv(x, self.weight, self.bias, self.stride[0])


@torch.fx.wrap
def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """`F.conv2d` of x (N, C, H, W) with a weight (C, 1, K, K), padded by K // 2."""
    if torch.jit.is_scripting():
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=weight.shape[0])
    if applies(x) and torch.is_grad_enabled() and gradients_are_slow(x, weight.shape[-1], stride):
        return depthwise(x, weight, bias, stride)
    return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=weight.shape[0])


OWN_WAYS = (PointwiseConv, DepthwiseConv)  # what is not always computed as torch does


class PatchConv(nn.Conv2d):
    """Convolution with stride = kernel; a side that does not divide is padded with zeros on the right and bottom."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(padded(x, self.stride[0]), self.weight, self.bias)


@torch.fx.wrap
def padded(x: Tensor, stride: int) -> Tensor:
    """Zeros on the right and bottom of x (N, C, H, W) where a side is no multiple of `stride`."""
    bottom, right = -x.shape[-2] % stride, -x.shape[-1] % stride
    return F.pad(x, (0, right, 0, bottom)) if bottom + right > 0 else x


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over channels at each location; the permutes are views when memory is channels-last.

    Under autocast it keeps the input's type (statistics are in fp32 inside), so that the residual stream stays narrow.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return channel_norm(x, self.weight, self.bias, self.eps)


@torch.fx.wrap
def channel_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """What `LayerNorm2d` computes of x (N, C, H, W)."""
    x = x.permute(0, 2, 3, 1)
    if torch.jit.is_scripting():
        return F.layer_norm(x, weight.shape, weight, bias, eps).permute(0, 3, 1, 2)
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):  # meta has no autocast
        with torch.autocast(device, enabled=False):
            return F.layer_norm(x, weight.shape, weight.to(x.dtype), bias.to(x.dtype), eps).permute(0, 3, 1, 2)
    return F.layer_norm(x, weight.shape, weight, bias, eps).permute(0, 3, 1, 2)


def make_conv(op: Op) -> nn.Conv2d:
    """The convolution module for a planned convolution."""
    if op.kernel == op.stride > 1:
        return PatchConv(op.c_in, op.c_out, op.kernel, op.stride, bias=op.bias)
    if op.kernel == op.stride == op.groups == 1:
        return PointwiseConv(op.c_in, op.c_out, 1, bias=op.bias)
    padding = op.kernel // 2
    kind = DepthwiseConv if op.groups == op.c_in == op.c_out and op.kernel > 1 else nn.Conv2d
    return kind(op.c_in, op.c_out, op.kernel, op.stride, padding, groups=op.groups, bias=op.bias)


class SqueezeExcite(nn.Module):
    """Channels scaled by what two 1x1 convolutions make of their averages (arXiv 1709.01507)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = PointwiseConv(channels, hidden, 1)
        self.fc2 = PointwiseConv(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * self.fc2(hidden).sigmoid()


class GlobalResponseNorm(nn.Module):
    """x + shift + scale * x * (length of x's map over the mean length of all channels' maps) (arXiv 2301.00808)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True, dtype=self.weight.dtype)
        gain = 1 + self.weight.view(-1, 1, 1) * length / (length.mean(1, keepdim=True) + 1e-6)
        return torch.addcmul(self.bias.to(x.dtype).view(-1, 1, 1), x, gain.to(x.dtype))  # x's type, under autocast too


class DropPath(nn.Module):
    """Stochastic depth: in training, zeroes whole samples with probability `rate`, scales the rest to keep the mean."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = 1 - self.rate
        return x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep).div_(keep)


class GlobalPool(nn.Module):
    """Average over all locations, (N, C, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


# What computes each kind of operation: a module, or the parameter that a module of the network uses itself.
MODULES: dict[str, Callable[[Op], nn.Module | nn.Parameter]] = {
    "conv": make_conv,
    "bn": lambda op: nn.BatchNorm2d(op.c_out),
    "ln": lambda op: LayerNorm2d(op.c_out),
    "relu": lambda op: nn.ReLU(inplace=True),
    "gelu": lambda op: nn.GELU(),
    "max_pool": lambda op: nn.MaxPool2d(op.kernel, op.stride, op.kernel // 2),
    "avg_pool": lambda op: nn.AvgPool2d(op.kernel, op.stride, ceil_mode=True, count_include_pad=False),
    "grn": lambda op: GlobalResponseNorm(op.c_out),
    "squeeze_excite": lambda op: SqueezeExcite(op.c_out, int(op.value)),
    "layer_scale": lambda op: nn.Parameter(torch.full((op.c_out,), op.value)),
    "drop_path": lambda op: DropPath(op.value),
    "dropout": lambda op: nn.Dropout(op.value),
    "global_pool": lambda op: GlobalPool(),
    "linear": lambda op: nn.Linear(op.c_in, op.c_out) if op.c_out > 0 else nn.Identity(),
}


class Row(nn.ModuleDict):
    """Operations one after the other, under their names; no `nn.Sequential`, which timm would take apart."""

    def __init__(self, ops: Iterable[Op]) -> None:
        super().__init__()
        attach_all(self, ops)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.values():
            x = module(x)
        return x


def attach(module: nn.Module, ops: Iterable[Op]) -> None:
    """Give a module its planned operations under their names, those with a role in a row of that name."""
    for role, group in groupby(ops, key=lambda op: op.role):
        if role:
            setattr(module, role, Row(group))
        else:
            attach_all(module, group)


def attach_all(module: nn.Module, ops: Iterable[Op]) -> None:
    """Give a module operations under their names alone."""
    for op in ops:
        setattr(module, op.name, MODULES[op.kind](op))


def _kaiming(module: nn.Module) -> None:
    """The ResNet of torchvision: He normal by fan-out for convolutions, torch's default for the classifier."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _zero_gamma(module: nn.Module) -> None:
    """As `_kaiming`; a block whose branch ends in a norm starts as its shortcut (arXiv 1706.02677, Section 5.1)."""
    _kaiming(module)
    for norm in getattr(module, "closing_norms", ()):
        nn.init.zeros_(module.get_parameter(f"{norm}.weight"))


def _trunc_normal(module: nn.Module) -> None:
    """ConvNeXt: truncated normal with deviation 0.02, biases zero."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


INITS: dict[str, Callable[[nn.Module], None]] = {
    "kaiming": _kaiming,
    "zero_gamma": _zero_gamma,
    "trunc_normal": _trunc_normal,
}
