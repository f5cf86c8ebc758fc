"""The one network: built from a plan, from ResNet-50 at one end to ConvNeXt at the other and everything between."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from roadmap.design import Design
from roadmap.layers import ACTS, INITS, NORMS, ConvUnit, drop_path, make_conv
from roadmap.plan import BlockPlan, NetworkPlan, StagePlan, plan_network
from roadmap.resolve import design_for


class Block(nn.Module):
    """act?(shortcut(x) + drop_path(gamma * branch(x))), the branch's convolutions in the plan's order.

    ResNet:    pw_in, norm, act, spatial, norm, act, pw_out, norm; + x; act
    ConvNeXt:  spatial, norm, pw_in, act, pw_out; * gamma; + x
    """

    def __init__(self, design: Design, plan: BlockPlan) -> None:
        super().__init__()
        self.order = tuple(conv.role for conv in plan.convs)
        for conv in plan.convs:
            self.add_module(conv.role, ConvUnit(conv, design.norm, design.act))
        self.shortcut = ConvUnit(plan.shortcut, design.norm, design.act) if plan.shortcut else nn.Identity()
        scale = design.layer_scale
        self.gamma = None if scale is None else nn.Parameter(torch.full((plan.c_out,), scale))
        self.act = ACTS[design.act]() if plan.act_after_sum else nn.Identity()
        self.drop_path = plan.drop_path

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for role in self.order:
            out = self._modules[role](out)  # type: ignore[misc]
        if self.drop_path and self.training:
            out = drop_path(out, self.drop_path)
        return self.act(self._scaled_sum(out, self.shortcut(x)))

    def _scaled_sum(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """Shortcut + gamma * branch in one pass over memory."""
        if self.gamma is None:
            branch += shortcut  # in place: no op before needs its own output in the backward pass
            return branch
        # Autocast would widen the sum to gamma's fp32, and with it the residual stream from here on.
        return torch.addcmul(shortcut, branch, self.gamma.to(branch.dtype).view(-1, 1, 1))


class Downsample(nn.Module):
    """norm? -> 2x2 stride-2 convolution between two stages."""

    def __init__(self, design: Design, plan: StagePlan) -> None:
        super().__init__()
        assert plan.downsample is not None
        self.norm = NORMS[design.norm](plan.downsample.c_in) if plan.norm_before else nn.Identity()
        self.conv = make_conv(plan.downsample)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))


class Stage(nn.Module):
    """downsample? -> blocks."""

    def __init__(self, design: Design, plan: StagePlan) -> None:
        super().__init__()
        self.downsample = Downsample(design, plan) if plan.downsample else nn.Identity()
        self.blocks = nn.Sequential(*(Block(design, block) for block in plan.blocks))
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        if not (self.grad_checkpointing and self.training):
            return self.blocks(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False, context_fn=lambda: _count_batch_once(self.blocks))
        return x


def _count_batch_once(module: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Contexts for checkpointing's two forward passes: BatchNorm's running statistics must see a batch only once."""

    @contextmanager
    def frozen_statistics() -> Iterator[None]:
        norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:
            # Momentum 0 leaves the averages as they are and saves the same tensors for the backward pass.
            norm.momentum, norm.num_batches_tracked = 0.0, None
        try:
            yield
        finally:
            for norm, (momentum, count) in zip(norms, before, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, count

    return nullcontext(), frozen_statistics()


class Stem(ConvUnit):
    """conv -> norm? -> act? -> max-pool?."""

    def __init__(self, design: Design, plan: NetworkPlan) -> None:
        super().__init__(plan.stem, design.norm, design.act)
        self.pool = nn.MaxPool2d(3, 2, 1) if plan.max_pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(super().forward(x))


class Head(nn.Module):
    """global average pooling -> norm? -> linear classifier."""

    def __init__(self, design: Design, plan: NetworkPlan, num_classes: int) -> None:
        super().__init__()
        self.norm = NORMS[design.norm](plan.features) if plan.head_norm else nn.Identity()
        self.fc = _classifier(plan.features, num_classes)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.norm(x.mean((2, 3), keepdim=True)).flatten(1)
        return x if pre_logits else self.fc(x)


def _classifier(features: int, num_classes: int) -> nn.Module:
    return nn.Linear(features, num_classes) if num_classes > 0 else nn.Identity()


class RoadmapNet(nn.Module):
    """A network of the roadmap, after timm's conventions. Input (N, in_chans, H, W), output (N, num_classes) logits.

    Any image side works: one that a patchify convolution does not divide is padded there.
    """

    def __init__(self, design: Design, num_classes: int = 1000, in_chans: int = 3) -> None:
        super().__init__()
        plan = plan_network(design, in_chans)
        self.design = design
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = plan.features
        self.stem = Stem(design, plan)
        self.stages = nn.Sequential(*(Stage(design, stage) for stage in plan.stages))
        self.head = Head(design, plan, num_classes)
        self.feature_info = _feature_info(design, plan)
        self.apply(INITS[design.init])

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Feature map of the last stage, (N, num_features, H / reduction, W / reduction)."""
        return self.stages(self.stem(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (N, num_classes), or with `pre_logits` the pooled features (N, num_features)."""
        return self.head(x, pre_logits=pre_logits)

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh classifier in place; 0 classes leave the pooled features.

        Raises:
            ValueError: pooling other than average, which this network does not have.
        """
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool={global_pool!r} is not one of: avg")
        self.num_classes = num_classes
        self.head.fc = _classifier(self.num_features, num_classes)
        self.head.fc.apply(INITS[self.design.init])

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        for stage in self.stages:
            cast(Stage, stage).grad_checkpointing = enable


def _feature_info(design: Design, plan: NetworkPlan) -> list[dict[str, Any]]:
    """What timm wants to know of each stage's output: channels, total stride, module name."""
    reduction, info = design.stem_stride, []
    for index, stage in enumerate(plan.stages):
        reduction *= 2 if index else 1
        info.append({"num_chs": stage.blocks[-1].c_out, "reduction": reduction, "module": f"stages.{index}"})
    return info


def build(
    step_or_design: str | Design,
    *,
    regime: str = "tiny",
    num_classes: int = 1000,
    in_chans: int = 3,
    add: Iterable[str] = (),
    drop: Iterable[str] = (),
    **flags: Any,
) -> RoadmapNet:
    """Build a step of the ladder, any set of changes, or a design; works under `torch.device("meta")`.

    Args:
        step_or_design: a step's name or a `Design` (which `flags` may alter; add and drop need a step).
        regime: "tiny", "base" or "micro".
        num_classes: 0 for a network without classifier.
        in_chans: channels of the input images.
        add: changes to add to the step's set.
        drop: changes to take away from it.
        **flags: fields of `Design`.

    Raises:
        DesignError: an unknown name, flag or value.
    """
    if isinstance(step_or_design, Design):
        if tuple(add) or tuple(drop):
            raise TypeError("add and drop change a step's set; a Design takes flags")
        return RoadmapNet(step_or_design.replace(**flags), num_classes, in_chans)
    return RoadmapNet(design_for(step_or_design, regime, add, drop, **flags), num_classes, in_chans)
