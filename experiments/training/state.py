"""Everything that training changes: the closed list of what a checkpoint holds.

Randomness comes from counters and the learning rate is a function of the step, so neither has state; metrics are in the
run's own record, one line per finished epoch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from experiments.data.damage import Damage
from experiments.errors import StorageError
from experiments.runtime.distributed import Ranks
from experiments.training import optimizer_state
from experiments.training.ema import Ema

LAYOUT = ("epoch", "step", "loss_sum", "loss_count", "images", "train_seconds", "wall_seconds")


@dataclass
class Counters:
    """Position in the run, the running training loss of the epoch, and timings (which change no result)."""

    epoch: int = 0  # finished epochs
    step: int = 0  # finished optimizer steps of the epoch under way
    loss_sum: float = 0.0  # of those steps
    loss_count: int = 0
    images: int = 0  # trained on within `train_seconds`
    train_seconds: float = 0.0
    wall_seconds: float = 0.0  # of all sessions before this one


@dataclass
class TrainState:
    """The live state of a run. `tensors` and `record` describe it; `restore` puts a saved description back."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: Ema | None
    frozen: tuple[nn.Module, ...] = ()  # parts of the network that are not trained
    damage: Damage = field(default_factory=Damage)  # the data's unreadable images met so far
    counters: Counters = field(default_factory=Counters)

    def networks(self) -> dict[str, Tensor]:
        """Parameters and buffers of the network and of its average, by checkpoint name."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.module.state_dict().items()}
        return tensors

    def running_averages(self) -> dict[str, Tensor]:
        """The floating-point buffers (BN's running averages), which differ between ranks until they are averaged."""
        modules = {"model": self.model} | ({"ema": self.ema.module} if self.ema is not None else {})
        return {
            f"{prefix}.{name}": buffer
            for prefix, module in modules.items()
            for name, buffer in module.named_buffers()
            if buffer.is_floating_point()
        }

    def tensors(self, ranks: Ranks) -> dict[str, Tensor]:
        """All tensors of the state; with several ranks also the others' running averages, as `rank<i>.<name>`."""
        tensors = self.networks() | self._moments() | optimizer_state.counts(self.optimizer)
        if ranks.world_size > 1:
            for rank, averages in enumerate(ranks.gather(self.running_averages())):
                tensors |= {f"rank{rank}.{name}": tensor for name, tensor in averages.items()}
        return tensors

    def record(self, ranks: Ranks) -> dict[str, Any]:
        """The rest of the state, as JSON can hold it."""
        kept = optimizer_state.plain(self.optimizer, self._parameters())
        rest = {"counters": asdict(self.counters), "scaler": self.scaler.state_dict(), "ranks": ranks.world_size}
        damaged = self.damage.record()
        return rest | ({"optimizer": kept} if kept else {}) | ({"damaged": damaged} if damaged else {})

    def restore(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any], ranks: Ranks) -> None:
        """Put a saved state back, bit for bit. Raises StorageError when it is not the state of such a run."""
        averages = {name: tensor for name, tensor in tensors.items() if name.startswith("rank")}
        kept = {name: tensor for name, tensor in tensors.items() if name.startswith(("optimizer.", "groups."))}
        saved = {name: tensor for name, tensor in tensors.items() if name not in averages | kept}
        live = self.networks()
        _check_shapes(live, saved)
        for name, tensor in live.items():
            tensor.copy_(saved[name])
        for name, tensor in self.running_averages().items():
            if averages:
                tensor.copy_(_average_for(name, averages, record["ranks"], ranks))
        optimizer_state.restore(self.optimizer, self._parameters(), kept, record.get("optimizer", {}))
        self.scaler.load_state_dict(record["scaler"])
        self.damage.restore(record.get("damaged", {}))
        self.counters = Counters(**{name: record["counters"][name] for name in LAYOUT})

    def finite(self) -> bool:
        """Whether every number of this rank's state is finite; waits for the device."""
        state = [*self.networks().values(), *self._moments().values()]
        tensors = [tensor for tensor in state if tensor.is_floating_point() and tensor.numel()]
        tensors = [tensor for tensor in tensors if tensor.device == state[0].device]  # on the host are counts
        if bool(torch.stack(torch._foreach_norm(tensors)).isfinite().all()):
            return True
        return all(bool(tensor.isfinite().all()) for tensor in tensors)  # a norm may overflow over finite numbers

    def _parameters(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def _moments(self) -> dict[str, Tensor]:
        return optimizer_state.moments(self.optimizer, self._parameters())


def _check_shapes(live: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    if live.keys() != saved.keys():
        raise StorageError(f"checkpoint lacks or adds tensors: {optimizer_state.few(live.keys() ^ saved.keys())}")
    wrong = [name for name, tensor in live.items() if tensor.shape != saved[name].shape]
    if wrong:
        raise StorageError(f"checkpoint holds tensors of another shape: {optimizer_state.few(wrong)}")


def _average_for(name: str, averages: Mapping[str, Tensor], saved_ranks: int, ranks: Ranks) -> Tensor:
    """This rank's running average; with another number of ranks than the saved one, the mean of theirs."""
    if saved_ranks == ranks.world_size:
        return averages[f"rank{ranks.rank}.{name}"]
    return torch.stack([averages[f"rank{rank}.{name}"] for rank in range(saved_ranks)]).mean(0)
