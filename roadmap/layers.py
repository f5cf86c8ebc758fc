"""The layers of the network, each chosen by a look-up from the plan. All take and return (N, C, H, W)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roadmap.cpu_kernels import applies, depthwise, gradients_are_slow, mkl_is_slow, product, product_is_faster
from roadmap.plan import Conv


class PointwiseConv(nn.Conv2d):
    """1x1 convolution; computed as a linear layer on the channels-last view where that is faster, same weights."""

    def forward(self, x: Tensor) -> Tensor:
        linear = self._linear(x)
        return super().forward(x) if linear is None else self.by(linear, x)

    def by(self, linear: Callable[..., Tensor], x: Tensor) -> Tensor:
        """The same by a function of (x, weight, bias) like `F.linear`."""
        return linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)

    def _linear(self, x: Tensor) -> Callable[..., Tensor] | None:
        """The linear layer to use, None for the convolution; the choice is by measurement, `bench kernels`."""
        if not x.is_contiguous(memory_format=torch.channels_last):
            return None
        if mkl_is_slow(x):
            return product if product_is_faster(x) else None
        return F.linear if self.bias is not None else None


class DepthwiseConv(nn.Conv2d):
    """Depthwise convolution; on a CPU with faster gradients than torch's."""

    def forward(self, x: Tensor) -> Tensor:
        stride = self.stride[0]
        if applies(x) and torch.is_grad_enabled() and gradients_are_slow(x, self.kernel_size[0], stride):
            return depthwise(x, self.weight, self.bias, stride)
        return super().forward(x)


OWN_WAYS = (PointwiseConv, DepthwiseConv)  # what is not always computed as torch does


class PatchConv(nn.Conv2d):
    """Convolution with stride = kernel; a side that does not divide is padded with zeros on the right and bottom."""

    def forward(self, x: Tensor) -> Tensor:
        stride = self.stride[0]
        bottom, right = -x.shape[-2] % stride, -x.shape[-1] % stride
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
        return super().forward(x)


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over channels at each location; the permutes are views when memory is channels-last.

    Under autocast it keeps the input's type (statistics are in fp32 inside), so that the residual stream stays narrow.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x, device = x.permute(0, 2, 3, 1), x.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):  # meta has no autocast
            with torch.autocast(device, enabled=False):
                weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
                return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps).permute(0, 3, 1, 2)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


NORMS: dict[str, Callable[[int], nn.Module]] = {"bn": nn.BatchNorm2d, "ln": LayerNorm2d}
ACTS: dict[str, Callable[[], nn.Module]] = {"relu": lambda: nn.ReLU(inplace=True), "gelu": nn.GELU}


def make_conv(conv: Conv) -> nn.Conv2d:
    """The convolution module for a planned convolution."""
    if conv.kernel == conv.stride > 1:
        return PatchConv(conv.c_in, conv.c_out, conv.kernel, conv.stride, bias=conv.bias)
    if conv.kernel == conv.stride == conv.groups == 1:
        return PointwiseConv(conv.c_in, conv.c_out, 1, bias=conv.bias)
    padding = conv.kernel // 2
    kind = DepthwiseConv if conv.groups == conv.c_in == conv.c_out and conv.kernel > 1 else nn.Conv2d
    return kind(conv.c_in, conv.c_out, conv.kernel, conv.stride, padding, groups=conv.groups, bias=conv.bias)


class ConvUnit(nn.Module):
    """conv -> norm -> act; norm and act only where the plan has them."""

    def __init__(self, conv: Conv, norm: str, act: str) -> None:
        super().__init__()
        self.conv = make_conv(conv)
        self.norm = NORMS[norm](conv.c_out) if conv.norm else nn.Identity()
        self.act = ACTS[act]() if conv.act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


def drop_path(x: Tensor, rate: float) -> Tensor:
    """Stochastic depth: zero whole samples of (N, C, H, W) with probability `rate`, scale the rest to keep the mean."""
    keep = 1 - rate
    return x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep).div_(keep)


def _kaiming(module: nn.Module) -> None:
    """The ResNet of torchvision: He normal by fan-out for convolutions, torch's default for the classifier."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _trunc_normal(module: nn.Module) -> None:
    """ConvNeXt: truncated normal with deviation 0.02, biases zero."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


INITS: dict[str, Callable[[nn.Module], None]] = {"kaiming": _kaiming, "trunc_normal": _trunc_normal}
