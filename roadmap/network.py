"""The one network: built from a plan, from ResNet-50 at one end to ConvNeXt at the other and everything between."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from roadmap.design import Design
from roadmap.features import Staged
from roadmap.fit import check_fit
from roadmap.layers import INITS, MODULES, GlobalPool, Row, attach
from roadmap.operations import Op
from roadmap.plan import BlockPlan, NetworkPlan, StagePlan, plan_head, plan_network
from roadmap.resolve import design_for
from roadmap.steps import DEFAULT

if TYPE_CHECKING:
    from PIL.Image import Image


class Block(nn.ModuleDict):
    """after(shortcut(x) + drop_path(gamma * branch(x))), the branch's operations in the plan's order.

    ResNet:    pw_in, norm, act, spatial, norm, act, pw_out, norm; + x; act
    ConvNeXt:  spatial, norm, pw_in, act, pw_out; * gamma; + x

    Its modules in order: the branch, `shortcut`, where the sum is made, and what follows the sum.
    """

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.gamma: nn.Parameter | None = None
        attach(self, plan.branch)
        self.closing_norms = tuple(op.path for op in plan.closing_norms)
        attach(self, plan.shortcut)
        if not plan.shortcut:
            self.shortcut = nn.Identity()
        attach(self, plan.after)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for name, module in self.items():
            out = self._scaled_sum(out, module(x)) if name == "shortcut" else module(out)
        return out

    def _scaled_sum(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """Shortcut + gamma * branch in one pass over memory."""
        if self.gamma is None:
            branch += shortcut  # in place: no op before needs its own output in the backward pass
            return branch
        # Autocast would widen the sum to gamma's fp32, and with it the residual stream from here on.
        return torch.addcmul(shortcut, branch, self.gamma.to(branch.dtype).view(-1, 1, 1))


class Stage(nn.Module):
    """downsample? -> blocks."""

    def __init__(self, plan: StagePlan) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        attach(self, plan.downsample)
        self.blocks = nn.Sequential(*(Block(block) for block in plan.blocks))
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        if self.grad_checkpointing and self.training and not torch.jit.is_scripting():
            return self._saving_memory(x)
        return self.blocks(x)

    def _saving_memory(self, x: Tensor) -> Tensor:
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


POOLS: dict[str, Callable[[], nn.Module]] = {"avg": GlobalPool, "": nn.Identity}


class Head(Row):
    """global average pooling -> norm? -> dropout? -> linear classifier."""

    def __init__(self, ops: Iterable[Op], global_pool: str = "avg") -> None:
        super().__init__(ops)
        self.fc: nn.Module
        self.set_pool(global_pool)

    def set_pool(self, global_pool: str) -> None:
        """Pool by average, or with "" not at all: the classifier then works at each location.

        Raises:
            ValueError: pooling of another kind.
        """
        if global_pool not in POOLS:
            raise ValueError(f"global_pool={global_pool!r} is not one of: avg, '' (none)")
        self.pool = POOLS[global_pool]().train(self.training)
        self.global_pool = global_pool

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        for name, module in self.items():
            if name != "fc":
                x = module(x)
        if self.global_pool:
            x = x.flatten(1)
        elif not pre_logits:
            return self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x if pre_logits else self.fc(x)


class RoadmapNet(Staged):
    """A network of the roadmap, after timm's conventions. Input (N, in_chans, H, W), output (N, num_classes) logits.

    Any image side works: one that a patchify convolution does not divide is padded there. With `global_pool=""` the
    head works at each location: logits (N, num_classes, H, W), or with 0 classes the last stage's map behind its norm.
    """

    def __init__(
        self, design: Design, num_classes: int = 1000, in_chans: int = 3, global_pool: str | None = None
    ) -> None:
        super().__init__()
        # how its weights want their images, in timm's words
        self.pretrained_cfg: dict[str, Any] | None = None
        self.default_cfg: dict[str, Any] | None = None
        plan = plan_network(design, in_chans, num_classes)
        self.design = design
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = plan.features
        attach(self, plan.stem)
        self.stages = nn.Sequential(*(Stage(stage) for stage in plan.stages))
        self.head: Head = Head(plan.head, "avg" if global_pool is None else global_pool)
        self.feature_info = _feature_info(plan)
        self.apply(INITS[design.init])

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (N, num_classes), or with `pre_logits` the pooled features (N, num_features)."""
        return self.head(x, pre_logits=pre_logits)

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh classifier in place; 0 classes leave the pooled features, and with `global_pool=""` the map.

        Args:
            num_classes: of the new classifier.
            global_pool: "avg" or "" for none; None leaves what there is.

        Raises:
            ValueError: pooling of another kind.
        """
        *_, op = plan_head(self.design, self.num_features, num_classes)
        like, fc = next(self.parameters()), cast(nn.Module, MODULES[op.kind](op)).train(self.training)
        self.head.set_pool(self.head.global_pool if global_pool is None else global_pool)
        self.head.fc = fc.apply(INITS[self.design.init]).to(like.device, like.dtype)
        self.num_classes = num_classes

    def eval_transform(self) -> Callable[["Image"], Tensor]:
        """What evaluation does to a PIL image: (C, H, W), as the weights want it that `roadmap.load` or timm loaded."""
        from timm.data import create_transform, resolve_data_config  # takes seconds
        from torchvision.transforms import Compose, Lambda

        wanted = resolve_data_config({}, pretrained_cfg=self.pretrained_cfg or {})
        mode = "L" if wanted["input_size"][0] == 1 else "RGB"
        return Compose([Lambda(lambda image: image.convert(mode)), create_transform(**wanted)])

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As any module's; weights of a network with another flag are refused by its name (WeightsError)."""
        if strict:
            check_fit(self.state_dict(), state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        for stage in self.stages:
            cast(Stage, stage).grad_checkpointing = enable


def _feature_info(plan: NetworkPlan) -> list[dict[str, Any]]:
    """What timm wants to know of each stage's output: channels, total stride, module name."""
    reduction, info = math.prod(op.stride for op in plan.stem), []
    for index, stage in enumerate(plan.stages):
        reduction *= math.prod(op.stride for op in (*stage.downsample, *stage.blocks[0].branch))
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
    roadmap: str = DEFAULT.name,
    **flags: Any,
) -> RoadmapNet:
    """Build a step of the ladder, any set of changes, or a design; works under `torch.device("meta")`.

    Args:
        step_or_design: a step's name or a `Design` (which `flags` may alter; add and drop need a step).
        regime: "tiny", "base", "micro", "isotropic" or another of conf/regime.
        num_classes: 0 for a network without classifier.
        in_chans: channels of the input images.
        add: changes to add to the step's set.
        drop: changes to take away from it.
        roadmap: the roadmap whose step it is.
        **flags: fields of `Design`.

    Raises:
        DesignError: an unknown name, flag or value.
    """
    if isinstance(step_or_design, Design):
        if tuple(add) or tuple(drop):
            raise TypeError("add and drop change a step's set; a Design takes flags")
        return RoadmapNet(step_or_design.replace(**flags), num_classes, in_chans)
    return RoadmapNet(design_for(step_or_design, regime, add, drop, roadmap, **flags), num_classes, in_chans)
