"""RandAugment's and TrivialAugment's operations on a batch, with an argument per image, as Pillow computes them.

Images are uint8 (n, C, H, W) between operations, as in Pillow. All 15 operations fall into four kinds, so a layer costs
a handful of kernels however many operations it mixes: a table of 256 entries per image and channel, a shift of every
row (shears and translations, along x or y), a rotation, and a blend with a smoothed or grey image. Differences from
Pillow are at most one grey level (tests/experiments/data/augment/test_operations.py, operation by operation).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from experiments.data.augment.randaugment import OPERATIONS, Draws
from experiments.data.augment.resample import to_device

_TRUNCATE = 2.0**-10  # added before truncating, so that sums of float32 weights do not fall below a whole number
_GREY = (19595, 38470, 7471)  # Pillow's weights of R, G, B in 1/65536


def augment(images: Tensor, draws: Draws, interpolation: str, fill: tuple[int, ...]) -> Tensor:
    """Apply the drawn operations layer after layer; uint8 (B, C, H, W), contiguous, changed in place."""
    for layer in range(draws.operation.shape[1]):
        operation, argument = draws.operation[:, layer], draws.argument[:, layer]
        kinds = KIND_OF[operation]
        for number, (kind, _) in enumerate(KINDS):
            chosen = np.flatnonzero(kinds == number)
            if chosen.size == 0:
                continue
            chosen = chosen[np.argsort(operation[chosen], kind="stable")]
            index = to_device(chosen, images.device)
            names_chosen = [OPERATIONS[drawn] for drawn in operation[chosen]]
            changed = kind(images.index_select(0, index), names_chosen, argument[chosen], interpolation, fill)
            _put(images, index, changed)
    return images


def _put(images: Tensor, index: Tensor, changed: Tensor) -> None:
    """Write images back; eight bytes at a time where possible, since copying single bytes is slow."""
    flat, new = images.view(len(images), -1), changed.reshape(len(changed), -1)
    if flat.shape[1] % 8 == 0:
        flat, new = flat.view(torch.int64), new.view(torch.int64)
    flat.index_copy_(0, index, new)


def _shifted(
    images: Tensor, names: list[str], argument: np.ndarray, interpolation: str, fill: tuple[int, ...]
) -> Tensor:
    """Shear or translate. Along x, output pixel x of row y is the input at x + slope * (y + 0.5) + offset.

    Images that move along y come last (the order of OPERATIONS) and are transposed, so that all of them move along x.
    """
    size = images.shape[3]
    along_x = sum(name.endswith("_x") for name in names)
    images = torch.cat([images[:along_x], images[along_x:].transpose(2, 3)])
    shear = np.array([name.startswith("shear") for name in names])
    rows = np.where(shear, argument, 0.0)[:, None] * (np.arange(size) + 0.5)
    shift = rows + np.where(shear, 0.0, argument * size)[:, None]  # (n, rows), in pixels
    whole = np.floor(shift)
    device = images.device
    column = torch.arange(-1, size + 2, device=device) + to_device(whole.astype(np.int64), device)[:, None, :, None]
    padded = images.gather(3, column.clamp_(0, size - 1).expand(-1, images.shape[1], -1, -1)).float()
    weights = _taps(to_device(shift - whole, device)[:, None, :, None], interpolation)
    out = padded[..., :size] * weights[0]
    for k in (1, 2, 3):
        out.addcmul_(padded[..., k : k + size], weights[k])
    position = torch.arange(size, device=device) + to_device(shift + 0.5, device)[:, None, :, None]
    out = _filled(out, (position >= 0) & (position < size), fill)
    return torch.cat([out[:along_x], out[along_x:].transpose(2, 3)])


def _rotated(images: Tensor, _: list[str], argument: np.ndarray, interpolation: str, fill: tuple[int, ...]) -> Tensor:
    """Rotate counter-clockwise about the centre by `argument` degrees: 4 x 4 neighbours of every pixel."""
    count, channels, height, width = images.shape
    device = images.device
    angle = -np.radians(argument)
    cos, sin = to_device(np.stack([np.cos(angle), np.sin(angle)]), device)[:, :, None, None]
    y = torch.arange(height, device=device, dtype=torch.float64)[:, None] + (0.5 - height / 2)
    x = torch.arange(width, device=device, dtype=torch.float64) + (0.5 - width / 2)
    x, y = cos * x + sin * y + width / 2, cos * y - sin * x + height / 2  # (n, H, W), in the input's pixels
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = (x - 0.5).clamp_(-0.5, width - 0.5), (y - 0.5).clamp_(-0.5, height - 0.5)
    x_floor, y_floor = x.floor(), y.floor()
    # Pillow repeats the border, so the neighbours of every pixel are at fixed distances in a padded image, and four in
    # a row are one entry of a table: four weighted look-ups per pixel instead of sixteen
    stride = width + 4
    padded = pad(images.float(), (2, 2, 2, 2), mode="replicate").permute(0, 2, 3, 1).contiguous().view(-1, channels)
    table = padded.as_strided((len(padded) - 3, 4 * channels), (channels, 1)).contiguous()
    first = (y_floor.int() + 1) * stride + x_floor.int() + 1
    first += torch.arange(count, device=device, dtype=torch.int32)[:, None, None] * ((height + 4) * stride)
    index = first.view(-1, 1) + torch.arange(0, 4 * stride, stride, device=device, dtype=torch.int32)
    weights = torch.stack(_taps(y - y_floor, interpolation), dim=-1).view(-1, 4)
    lines = embedding_bag(index, table, mode="sum", per_sample_weights=weights)
    # by column, in planes; as a change of layout, which torch does in half the time of a transpose
    lines = lines.view(1, -1, 1, 4 * channels).permute(0, 3, 1, 2).contiguous().view(4, channels, count, height, width)
    out = torch.zeros(channels, count, height, width, device=device)
    for line, weight in zip(lines, _taps(x - x_floor, interpolation), strict=True):
        out.addcmul_(line, weight)
    return _filled(out.transpose(0, 1).contiguous(), inside[:, None], fill)


def _taps(d: Tensor, interpolation: str) -> tuple[Tensor, ...]:
    """Weights of the pixels at -1, 0, 1, 2 for a fraction d, float32.

    Pillow's bicubic is Keys' with a = -1 in its transforms, and with -0.5 in its resizing.
    """
    d = d.float()
    if interpolation == "bilinear":
        return torch.zeros_like(d), 1 - d, d, torch.zeros_like(d)
    square = d * d
    cube = square * d
    return 2 * square - cube - d, 1 - 2 * square + cube, d + square - cube, cube - square


def _filled(pixels: Tensor, inside: Tensor, fill: tuple[int, ...]) -> Tensor:
    """The fill colour where a transform sees nothing; lerp is exact at both ends, and quicker than where."""
    colour = torch.tensor(fill[: pixels.shape[1]], dtype=torch.float32).view(1, -1, 1, 1)
    colour = colour.to(pixels.device, non_blocking=True).expand_as(pixels)
    return _truncated(torch.lerp(colour, pixels, inside.float()))


def _truncated(pixels: Tensor) -> Tensor:
    """To 8 bits as Pillow does outside its resizing: clamp, then drop the fraction."""
    return pixels.add_(_TRUNCATE).clamp_(0, 255).to(torch.int16).to(torch.uint8)  # straight to uint8 is slow


def _blended(images: Tensor, names: list[str], argument: np.ndarray, _: str, _fill: tuple[int, ...]) -> Tensor:
    """Colour and sharpness: move away from a grey or a smoothed version of the image."""
    pixels = images.float()
    first = names.count("color")  # images come sorted by operation
    degenerate = torch.cat([_grey(pixels[:first]).expand_as(pixels[:first]), _smoothed(pixels[first:])])
    factor = to_device(argument.astype(np.float32), images.device)[:, None, None, None]
    return _truncated(degenerate + factor * (pixels - degenerate))


def _grey(pixels: Tensor) -> Tensor:
    """Luma (n, 1, H, W) as Pillow rounds it; a grey image is its own."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = (weight / 65536 * pixels[:, i : i + 1] for i, weight in enumerate(_GREY))
    return (red + green + blue + 0.5).floor()


def _smoothed(pixels: Tensor) -> Tensor:
    """Pillow's SMOOTH: a 3 x 3 mean with five times the weight in the centre; the border stays as it is."""
    out = pixels.clone()
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    out[:, :, 1:-1, 1:-1] = ((box + 4 * pixels[:, :, 1:-1, 1:-1]) / 13 + 0.5).floor_()
    return out


def _mapped(images: Tensor, names: list[str], argument: np.ndarray, _: str, _fill: tuple[int, ...]) -> Tensor:
    """Everything that replaces a grey value by another one, looked up in a table per image and channel.

    Most are two straight lines, one below and one from a threshold on, of values rounded down to a step.
    """
    line = np.array([LINES[name](value) for name, value in zip(names, argument, strict=True)], dtype=np.float32)
    parts = to_device(np.ascontiguousarray(line.T), images.device)[:, :, None, None]  # (n, 1, 1) each
    threshold, step, slope, offset, slope_above, offset_above = parts
    here = _positions(names, "contrast")
    if here is not None:  # slope f about the mean m: m + f (v - m)
        mean = (_grey(images[here].float()).mean(dim=(1, 2, 3)) + 0.5).floor()[:, None, None]
        offset[here] = mean * (1 - slope[here])
    levels = torch.arange(256, device=images.device, dtype=torch.float32)
    values = levels - levels % step
    tables = torch.where(levels < threshold, slope * values + offset, slope_above * values + offset_above)
    tables = _truncated(tables).expand(-1, images.shape[1], -1)
    if names[0] in PER_CHANNEL:  # images come sorted by operation, and these are the first ones
        tables = tables.contiguous()
        for name, table in PER_CHANNEL.items():
            here = _positions(names, name)
            if here is not None:
                tables[here] = table(images[here])
    return tables.gather(2, images.flatten(2).long()).view(images.shape)


def _positions(names: list[str], name: str) -> slice | None:
    """Where an operation stands among the sorted names."""
    return slice(names.index(name), names.index(name) + names.count(name)) if name in names else None


def _stretching(images: Tensor) -> Tensor:
    """Tables (n, C, 256), uint8, that stretch each channel to 0..255; a channel of one value stays as it is."""
    # in float64 and in this form, since the brightest level falls on 254 or 255 by rounding, in Pillow too
    low, high = (value[:, :, None].double() for value in images.flatten(2).aminmax(dim=2))
    levels = torch.arange(256, device=images.device, dtype=torch.float64)
    scale = 255 / (high - low)
    return torch.where(high > low, (levels * scale - low * scale).clamp_(0, 255), levels).to(torch.uint8)


def _equalizing(images: Tensor) -> Tensor:
    """Tables (n, C, 256), uint8, that flatten each channel's histogram, in whole numbers as Pillow does it."""
    count, channels = images.shape[:2]
    values = images.flatten(2).long()
    index = values + 256 * torch.arange(count * channels, device=images.device).view(count, channels, 1)
    histogram = torch.zeros(count * channels * 256, dtype=torch.int64, device=images.device)
    histogram.scatter_add_(0, index.flatten(), torch.ones_like(index).flatten())  # one axis: deterministic everywhere
    histogram = histogram.view(count, channels, 256)
    step = (values.shape[2] - histogram.gather(2, images.flatten(2).amax(2, keepdim=True).long())) // 255
    below = histogram.cumsum(2) - histogram
    same = torch.arange(256, device=images.device)
    return torch.where(step > 0, (step // 2 + below) // step.clamp(min=1), same).clamp_(max=255).to(torch.uint8)


# name -> threshold, step, slope and offset below the threshold, slope and offset from there on
LINES: dict[str, Callable[[float], tuple[float, ...]]] = {
    "auto_contrast": lambda _: (256, 1, 1, 0, 1, 0),  # both replaced, see PER_CHANNEL
    "equalize": lambda _: (256, 1, 1, 0, 1, 0),
    "invert": lambda _: (256, 1, -1, 255, 1, 0),
    "posterize": lambda bits: (256, 2 ** (8 - bits), 1, 0, 1, 0),
    "solarize": lambda threshold: (threshold, 1, 1, 0, -1, 255),
    "solarize_add": lambda added: (128, 1, 1, added, 1, 0),
    "contrast": lambda factor: (256, 1, factor, 0, 1, 0),  # offset comes from the image
    "brightness": lambda factor: (256, 1, factor, 0, 1, 0),
}
PER_CHANNEL: dict[str, Callable[[Tensor], Tensor]] = {"auto_contrast": _stretching, "equalize": _equalizing}
KINDS: tuple[tuple[Callable[[Tensor, list[str], np.ndarray, str, tuple[int, ...]], Tensor], tuple[str, ...]], ...] = (
    (_mapped, tuple(LINES)),
    (_shifted, ("shear_x", "translate_x", "shear_y", "translate_y")),
    (_rotated, ("rotate",)),
    (_blended, ("color", "sharpness")),
)
# by operation; the last entry, which is also that of -1, says that there is none
KIND_OF = np.array([*(next(k for k, (_, names) in enumerate(KINDS) if name in names) for name in OPERATIONS), -1])
