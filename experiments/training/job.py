"""`Job`: one run put together, ready to be trained; `Job.of` is the only place that does it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from experiments.config.identity import Identity
from experiments.config.registry import LOSSES
from experiments.config.settings import Settings
from experiments.data import DataSource
from experiments.errors import ConfigError
from experiments.randomness import derive
from experiments.runtime.device import compile_network, gradient_scaler
from experiments.runtime.distributed import Ranks
from experiments.runtime.signals import StopFlag
from experiments.store.checkpoint import Checkpoints, size_limit
from experiments.store.run_dir import RunDir
from experiments.training.batches import BatchLayout
from experiments.training.ema import Ema
from experiments.training.losses import Loss
from experiments.training.mixing import Mixing
from experiments.training.optim import build_optimizer, learning_rate
from experiments.training.progress import Reporter
from experiments.training.start import freeze, start_from_weights
from experiments.training.state import TrainState
from roadmap import build
from roadmap.complexity import walk
from roadmap.plan import plan_network


class LossLog:
    """The losses of the steps since the last look, kept on the device."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        self._losses = torch.zeros(capacity, device=device)
        self.count = 0

    @property
    def full(self) -> bool:
        """Whether the logging interval is over."""
        return self.count == len(self._losses)

    def push(self, loss: Tensor) -> None:
        """Add the 0-d loss of one step without waiting for it."""
        self._losses[self.count].copy_(loss)
        self.count += 1

    def read(self, ranks: Ranks) -> list[float]:
        """The mean over ranks of every loss since the last look, in order; waits for the device."""
        losses = self._losses[: self.count]
        ranks.mean([losses])
        self.count = 0
        return losses.tolist()


@dataclass
class Job:
    """What the loop works with."""

    settings: Settings
    identity: Identity
    ranks: Ranks
    device: torch.device
    source: DataSource
    layout: BatchLayout
    mixing: Mixing
    loss: Loss
    state: TrainState
    network: nn.Module  # the state's model, wrapped for several ranks
    losses: LossLog
    run_dir: RunDir
    checkpoints: Checkpoints
    stop: StopFlag
    reporter: Reporter
    started: float = field(default_factory=time.monotonic)
    starts: list[dict[str, Any]] = field(default_factory=list)  # of the run, this one last; on rank 0

    @classmethod
    def of(
        cls,
        settings: Settings,
        source: DataSource,
        run_dir: RunDir,
        *,
        device: torch.device,
        ranks: Ranks | None = None,
        identity: Identity | None = None,
        layout: BatchLayout | None = None,
        stop: StopFlag | None = None,
        report: bool = False,
    ) -> "Job":
        """Build the network and everything around it. Nothing is read or written yet.

        Args:
            settings: what is asked for.
            source: its open data.
            run_dir: where checkpoints and metrics go.
            device: the training device.
            ranks: the processes of this run; default: this one alone.
            identity: of the settings, where it is known already.
            layout: of batches over ranks and epochs; default: as the settings say.
            stop: what asks this run to stop; default: nothing does.
            report: whether this process shows progress.
        """
        ranks = ranks or Ranks()
        identity = identity or Identity.of(settings)
        layout = layout or BatchLayout.of(settings.batch, source.train_size, ranks.world_size)
        state = build_state(settings, source, device)
        return cls(
            settings=settings,
            identity=identity,
            ranks=ranks,
            device=device,
            source=source,
            layout=layout,
            mixing=Mixing.of(settings.recipe, source.num_classes),
            loss=LOSSES[settings.recipe.loss].load()(settings.recipe),
            state=state,
            network=ranks.wrap(state.model, device),
            losses=LossLog(settings.logger.log_every, device),
            run_dir=run_dir,
            checkpoints=Checkpoints(
                run_dir.place,
                identity.run_id,
                background=settings.checkpoint.background,
                max_bytes=size_limit(state.networks().values()),
                after=run_dir.retire_earlier,
            ),
            stop=stop or StopFlag(),
            reporter=Reporter(layout, settings.recipe.epochs, enabled=report),
        )

    @property
    def step(self) -> int:
        """Finished optimizer steps of the whole run."""
        return self.state.counters.epoch * self.layout.steps + self.state.counters.step

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.settings.recipe.epochs * self.layout.steps

    def rate(self, step: int) -> float:
        """Learning rate of optimizer step `step` of the run, counted from 0."""
        return learning_rate(self.settings.recipe, self.settings.lr, step, self.layout.steps)


def build_state(settings: Settings, source: DataSource, device: torch.device) -> TrainState:
    """The network with its initial weights, a function of the seed, and what trains it."""
    torch.manual_seed(derive("init", settings.seed))
    model = build(settings.design, num_classes=source.num_classes, in_chans=source.in_chans)
    start_from_weights(model, settings)
    model.to(device).to(memory_format=torch.channels_last)
    model.set_grad_checkpointing(settings.grad_checkpointing)
    ema = Ema(model, settings.recipe.ema) if settings.recipe.ema else None
    frozen = freeze(model, settings.recipe.freeze)
    _check_statistics(settings, model, frozen, source.num_classes)
    compile_network(model, settings.compile)
    optimizer = build_optimizer(model, settings.recipe, settings.lr)
    return TrainState(model, optimizer, gradient_scaler(settings.precision, device), ema, frozen, source.damage)


def _check_statistics(settings: Settings, model: nn.Module, frozen: Sequence[nn.Module], num_classes: int) -> None:
    """Raise ConfigError where a BatchNorm in training would see one value per channel, which has no spread."""
    if settings.batch.micro > 1:
        return
    known = {id(module) for part in frozen for module in part.modules()}
    modules = dict(model.named_modules())
    plan = plan_network(settings.design, num_classes, settings.data.channels)
    for name, _, positions in walk(plan, settings.train_side):
        module = modules.get(name)  # none: layer scale is a parameter
        if positions == 1 and isinstance(module, nn.BatchNorm2d) and id(module) not in known:
            raise ConfigError(
                f"batch.micro=1 leaves BatchNorm a single value per channel at {name} ({settings.train_side} px): use "
                "batch.micro=2 or more, larger images or design.norm=ln"
            )
