"""Exact evaluation: every image once, over all ranks."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.data import DataSource
from experiments.runtime.device import autocast
from experiments.runtime.distributed import Ranks
from experiments.runtime.signals import working

TOP = 5


@dataclass(frozen=True)
class Validation:
    """Cross-entropy (no smoothing) per image, top-1 and top-5 accuracy in per cent, over `images` images."""

    loss: float
    top1: float
    images: int
    top5: float  # of all classes, where there are fewer than five


@torch.no_grad()
def validate(
    network: nn.Module,
    source: DataSource,
    ranks: Ranks,
    *,
    device: torch.device,
    precision: str = "fp32",
    columns: Tensor | None = None,
) -> Validation:
    """Score `network` on the evaluation images of `source`; puts it in evaluation mode.

    `columns` picks and orders the network's outputs where it knows more classes than the data set.
    """
    network.eval()
    size, parts = 0, []
    for images, labels in source.evaluate(ranks.rank, ranks.world_size):
        working()
        count = len(labels)
        size = size or count
        if count < size:  # the last batch: one shape for all, so that nothing is compiled or tuned for its sake
            images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, size - count))  # it keeps the layout in memory, too
        with autocast(precision, device):
            logits = network(images)
        logits = logits[:count].float() if columns is None else logits[:count, columns].float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        hits = (logits.argmax(1) == labels).sum()
        # Fewer than five outputs are above the right one; a number that is not finite counts as none of the five.
        of_label = logits.gather(1, labels.view(-1, 1))
        near = ((logits > of_label).sum(1) < TOP).logical_and(of_label.isfinite().view(-1)).sum()
        parts.append(torch.stack([loss, hits.float(), near.float(), torch.full_like(loss, count)]))
    totals = _sums(parts)
    ranks.sum([totals])
    loss_sum, right, near, seen = totals.tolist()
    if seen != source.eval_size:
        raise RuntimeError(f"evaluated {seen:.0f} images of {source.eval_size}")
    return Validation(loss_sum / seen, 100.0 * right / seen, int(seen), 100.0 * near / seen)


def _sums(parts: list[Tensor]) -> Tensor:
    """Sums in double precision, on the host because not every device has it. A rank may have had no image at all."""
    return torch.stack(parts).cpu().double().sum(0) if parts else torch.zeros(4, dtype=torch.float64)
