"""An exponential moving average of the weights, evaluated beside them and never mixed with them."""

import copy

import torch
from torch import Tensor, nn


class Ema:
    """A second copy of the network whose every floating-point tensor follows the first, BN's running averages too.

    Integer buffers (BN's counters) are copied. Same arithmetic as timm's `ModelEmaV3` with a constant decay.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from a copy of `model` (not yet compiled or wrapped)."""
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self._averaged, self._averaged_sources = _pairs(self.module, model, floating=True)
        self._copied, self._copied_sources = _pairs(self.module, model, floating=False)

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the network, by 1 - decay of the way."""
        torch._foreach_lerp_(self._averaged, self._averaged_sources, weight=1.0 - self.decay)
        if self._copied:
            torch._foreach_copy_(self._copied, self._copied_sources)


def _pairs(average: nn.Module, model: nn.Module, *, floating: bool) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors of both networks that are (not) floating point, in the same order; they stay the same objects."""
    mine, theirs = average.state_dict(), model.state_dict()
    names = [name for name, tensor in mine.items() if tensor.is_floating_point() == floating]
    return [mine[name] for name in names], [theirs[name] for name in names]
