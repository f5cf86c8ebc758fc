"""The training losses against timm's, and what guessing costs in them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from experiments.config.settings import Recipe
from experiments.randomness import derive
from experiments.training.losses import CROSS_ENTROPY, Loss, binary_cross_entropy
from experiments.training.mixing import Mixing

pytestmark = pytest.mark.numeric

BINARY_CROSS_ENTROPY = binary_cross_entropy(Recipe(loss="bce"))
SUMMED = binary_cross_entropy(Recipe(loss="bce", bce_sum=True))


def test_loss_is_plain_or_smoothed_or_soft() -> None:
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    assert CROSS_ENTROPY.of(logits, labels, 0.0).item() == pytest.approx(F.cross_entropy(logits, labels).item())
    soft = Mixing(0.8, 0.0, 0.5, 0.1, 4)._targets(labels, 1.0)
    for loss in (CROSS_ENTROPY, BINARY_CROSS_ENTROPY):
        assert loss.of(logits, soft, 0.1).item() == pytest.approx(loss.of(logits, labels, 0.1).item())
        assert loss.of(logits.bfloat16(), labels, 0.0).dtype == torch.float32


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.0, 0.0), (0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("ours", "name"), [(CROSS_ENTROPY, "cross_entropy"), (BINARY_CROSS_ENTROPY, "bce")])
def test_losses_equal_timm(ours: Loss, name: str, mixup: float, cutmix: float, smoothing: float) -> None:
    """On labels, and on what each side's own mixup makes of them."""
    from timm.data.mixup import Mixup
    from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(6, 7, generator=generator), torch.randint(7, (6,), generator=generator)
    goal = theirs = labels
    if mixup or cutmix:
        images = torch.randn(6, 3, 8, 8, generator=generator)
        np.random.seed(derive("mixup", 3, 5, 0) % 2**32)
        theirs = Mixup(mixup, cutmix, switch_prob=0.5, label_smoothing=smoothing, num_classes=7)(images, labels)[1]
        goal = Mixing(mixup, cutmix, 0.5, smoothing, 7)(images, labels, 3, 5, 0)[1]
        assert goal.ndim == 2 and ((goal > smoothing / 7 + 1e-6).sum(1) == 2).any()
    plain = LabelSmoothingCrossEntropy(smoothing) if goal.ndim == 1 else SoftTargetCrossEntropy()
    reference = plain if name == "cross_entropy" else BinaryCrossEntropy(smoothing)
    assert ours.of(logits, goal, smoothing).item() == pytest.approx(reference(logits, theirs).item(), rel=1e-6)


@pytest.mark.parametrize("threshold", [None, 0.0, 0.2, 0.6])
@pytest.mark.parametrize("summed", [False, True])
def test_the_ways_of_bce_equal_timms(summed: bool, threshold: float | None) -> None:
    from timm.loss import BinaryCrossEntropy

    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(6, 7, generator=generator), torch.randint(7, (6,), generator=generator)
    ours = binary_cross_entropy(Recipe(loss="bce", bce_sum=summed, bce_target_thresh=threshold))
    for smoothing, goal in ((0.0, labels), (0.1, labels), (0.1, Mixing(0.8, 0.0, 0.5, 0.1, 7)._targets(labels, 0.7))):
        theirs = BinaryCrossEntropy(smoothing, target_threshold=threshold, sum_classes=summed)
        assert ours.of(logits, goal, smoothing).item() == pytest.approx(theirs(logits, goal).item(), rel=1e-6)


@pytest.mark.parametrize("loss", [CROSS_ENTROPY, BINARY_CROSS_ENTROPY, SUMMED])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_no_single_answer_to_all_classes_costs_less_than_guessing(loss: Loss, smoothing: float) -> None:
    answer = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([answer], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def cost() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss.of(answer.expand(6, -1), torch.arange(6), smoothing)
        value.backward()
        return value

    optimizer.step(cost)
    assert cost().item() == pytest.approx(loss.guessing(6), rel=1e-5)
