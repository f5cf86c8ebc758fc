"""Cutting crops out of a batch of images: antialiased resizing as two sparse products.

Pillow resizes with a filter that widens when an image shrinks, first along x, then along y, rounding to 8 bits after
each. Each output column (then row) is therefore a weighted sum of a few input columns, which is what an embedding bag
computes; a whole batch with different boxes, flips and offsets takes two of them. The filters are Pillow's (bicubic
with a = -0.5, which is also torch's antialiased one), and so is the rule that a crop sees no pixel outside it.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from experiments.data.augment.crops import Axis, Crops

SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}  # half width of a filter in output pixels


def cut(images: Tensor, crops: Crops, size: int, interpolation: str) -> Tensor:
    """Cut crops out of uint8 images (B, W, C, H), columns first; uint8 (B, C, size, size).

    Agrees with Pillow's crop and resize to one grey level. Pixels outside the resized image are black.
    """
    flip = to_device(crops.flip, images.device)
    columns = _resized(images.float(), crops.x, size, interpolation, flip)  # (B, size, C, H)
    rows = columns.transpose(1, 3).contiguous()  # (B, H, C, size)
    pixels = _resized(rows, crops.y, size, interpolation)
    return pixels.to(torch.int16).to(torch.uint8).transpose(1, 2).contiguous()  # straight to uint8 is slow


def _resized(pixels: Tensor, axis: Axis, size: int, interpolation: str, flip: Tensor | None = None) -> Tensor:
    """Resample axis 1 of float32 (B, L, C, K) to `size` positions, rounded to whole grey levels."""
    batch, length, channels, width = pixels.shape
    position, weight = taps(axis, length, size, interpolation, pixels.device, flip)  # (B, size, taps)
    position += torch.arange(0, batch * length, length, device=pixels.device)[:, None, None]
    table = pixels.view(batch * length, channels * width)
    out = embedding_bag(position.flatten(0, 1), table, mode="sum", per_sample_weights=weight.flatten(0, 1))
    return out.add_(0.5).floor_().clamp_(0, 255).view(batch, size, channels, width)


def taps(
    axis: Axis, pixels: int, size: int, interpolation: str, device: torch.device, flip: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Which of an axis' `pixels` each output position sums, int64 (B, size, taps), and their weights, float32."""
    start, length, resized, offset = to_device(np.stack(axis), device)[:, :, None]  # (B, 1) each
    column = torch.arange(size, device=device)
    if flip is not None:
        column = torch.where(flip[:, None], size - 1 - column, column)
    column = column + offset  # (B, size)
    scale = length / resized
    centre = (column + 0.5) * scale
    wide = scale.clamp(min=1)
    # the number of pixels under the widest filter, from numbers that are on the host
    widest = max(1.0, float((axis.length / axis.resized).max()))
    count = int(np.ceil(2 * SUPPORT[interpolation] * widest))
    first = (centre - SUPPORT[interpolation] * wide - 0.5).ceil()
    tap = first[:, :, None] + torch.arange(count, device=device)  # (B, size, taps)
    weight = _filter((tap + 0.5 - centre[:, :, None]) / wide[:, :, None], interpolation)
    weight = weight * ((tap >= 0) & (tap < length[:, :, None]))
    weight = weight / weight.sum(dim=2, keepdim=True).clamp_(min=1e-6)
    weight = weight * ((column >= 0) & (column < resized))[:, :, None]
    return (tap.long() + start[:, :, None]).clamp_(0, pixels - 1), weight


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy a small host array without waiting for the device."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _filter(t: Tensor, interpolation: str) -> Tensor:
    """The filter at distance t, in output pixels: a triangle, or Keys' cubic with a = -0.5."""
    t = t.abs_()
    if interpolation == "bilinear":
        return (1 - t).clamp_(min=0)
    t = t.clamp_(max=2)
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, far)
