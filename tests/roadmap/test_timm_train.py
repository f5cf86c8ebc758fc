"""timm's train.py, which its package does not ship: its calls in its order, on a network of ours."""

from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import Mixup, resolve_data_config
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs
from timm.utils import ModelEmaV3, accuracy, dispatch_clip_grad
from torch import Tensor, nn

import roadmap.timm_models  # noqa: F401  (registers the networks)

pytestmark = pytest.mark.numeric

NAME = "roadmap_micro_kernel_7"
CLASSES, SIDE, BATCH, STEPS = 4, 32, 16, 24


def arguments(**changed) -> SimpleNamespace:
    """What the script's command line holds that its parts read."""
    values = {
        "opt": "adamw",
        "lr": 4e-3,
        "weight_decay": 0.05,
        "momentum": 0.9,
        "sched": "cosine",
        "epochs": 2,
        "warmup_epochs": 1,
        "warmup_lr": 1e-4,
        "min_lr": 0.0,
        "layer_decay": None,
        "torchscript": False,
        "grad_checkpointing": False,
        "checkpoint_path": "",
        "smoothing": 0.0,
        "clip_grad": 5.0,
    }
    return SimpleNamespace(**values | changed)


def create(args: SimpleNamespace) -> nn.Module:
    """With every keyword that the script passes, most of them unset."""
    torch.manual_seed(0)
    np.random.seed(0)  # mixup's
    model = timm.create_model(
        NAME,
        pretrained=False,
        in_chans=None,
        num_classes=CLASSES,
        drop_rate=0.0,
        drop_path_rate=0.05,
        drop_block_rate=None,
        global_pool=None,
        bn_momentum=None,
        bn_eps=None,
        scriptable=args.torchscript,
        checkpoint_path=args.checkpoint_path,
        stem_stride=2,  # one of --model-kwargs
    )
    if args.grad_checkpointing:
        model.set_grad_checkpointing(enable=True)
    model = model.to(device="cpu").to(memory_format=torch.channels_last)
    return torch.jit.script(model) if args.torchscript else model


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    """Noise whose channels' means tell the class."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(CLASSES, 3, 1, 1, generator=generator)
    labels = torch.arange(BATCH) % CLASSES
    noise = (torch.randn(BATCH, 3, SIDE, SIDE, generator=generator) for _ in range(count))
    return [((each + means[labels]).contiguous(memory_format=torch.channels_last), labels) for each in noise]


def train(args: SimpleNamespace) -> tuple[nn.Module, ModelEmaV3, list[float]]:
    model = create(args)
    optimizer = create_optimizer_v2(model, **optimizer_kwargs(cfg=args))
    ema = ModelEmaV3(model, decay=0.7, use_warmup=False, device=None)
    scheduler, epochs = create_scheduler_v2(optimizer, **scheduler_kwargs(args), updates_per_epoch=STEPS)
    mixup = Mixup(mixup_alpha=0.1, prob=0.5, label_smoothing=args.smoothing, num_classes=CLASSES)
    loss_of, losses, updates = SoftTargetCrossEntropy(), [], 0
    for epoch in range(epochs):
        model.train()
        for images, labels in batches(STEPS):
            mixed, targets = mixup(images.clone(), labels)
            loss = loss_of(model(mixed), targets)
            optimizer.zero_grad()
            loss.backward(create_graph=False)
            dispatch_clip_grad(model.parameters(), value=args.clip_grad, mode="norm")
            optimizer.step()
            updates += 1
            ema.update(model, step=updates)
            scheduler.step_update(num_updates=updates)
            losses.append(loss.item())
        scheduler.step(epoch + 1, losses[-1])
    return model, ema, losses


def top1(model: nn.Module) -> float:
    model.eval()
    with torch.inference_mode():
        return float(sum(accuracy(model(images), labels)[0] for images, labels in batches(2)) / 2)


@pytest.mark.parametrize("way", [{"layer_decay": 0.8}, {"grad_checkpointing": True}, {"torchscript": True}, {}])
def test_trains_unchanged(way) -> None:
    model, ema, losses = train(arguments(**way))
    assert sum(losses[-4:]) / 4 < losses[0] / 3
    assert top1(model) > 80 and top1(ema.module) > 80  # guessing: 25


def test_the_data_of_a_run_follow_from_the_network() -> None:
    config = resolve_data_config({}, model=create(arguments()))
    assert (config["input_size"], config["interpolation"], config["crop_pct"]) == ((3, 224, 224), "bicubic", 0.875)


def test_a_file_of_weights_is_loaded(tmp_path) -> None:
    model = create(arguments())
    nn.init.ones_(model.head.fc.weight)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "weights.safetensors")
    again = create(arguments(checkpoint_path=str(tmp_path / "weights.safetensors")))
    assert bool((again.head.fc.weight == 1).all())
