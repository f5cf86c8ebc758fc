"""What an optimizer keeps from step to step, as tensors and as JSON, and how it is put back.

Whatever the optimizer: tensors of a parameter are called `optimizer.<parameter>.<key>`, those of a group of parameters
`groups.<number>.<key>`, and so are plain values (a count of steps, a sum of rates), which are kept as they are.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from experiments.errors import StorageError

PLAIN = (bool, int, float, str, type(None))
Named = Mapping[str, nn.Parameter]


def moments(optimizer: Optimizer, named: Named) -> dict[str, Tensor]:
    """The tensors of the parameters."""
    return {name: value for name, value in _of_parameters(optimizer, named) if isinstance(value, Tensor)}


def counts(optimizer: Optimizer) -> dict[str, Tensor]:
    """The tensors of the groups: LAMB keeps its steps there, on the host."""
    return {name: value for name, value in _of_groups(optimizer) if isinstance(value, Tensor)}


def plain(optimizer: Optimizer, named: Named) -> dict[str, Any]:
    """All that is no tensor, as JSON can hold it; empty for most optimizers.

    `values` are the plain values; `host` are the keys of tensors that lie on the host although the parameters do not.

    Raises:
        StorageError: the optimizer keeps something else.
    """
    kept = [*_of_parameters(optimizer, named), *_of_groups(optimizer)]
    values = {name: value for name, value in kept if not isinstance(value, Tensor)}
    for name, value in values.items():
        if not isinstance(value, PLAIN):
            kind = type(value).__name__
            raise StorageError(f"{type(optimizer).__name__} keeps a {kind} as {name}, which no checkpoint can hold")
    on_device = any(parameter.device.type != "cpu" for parameter in named.values())
    tensors = moments(optimizer, named).items() if on_device else ()
    host = sorted({_key(name) for name, value in tensors if value.device.type == "cpu"})
    return ({"values": values} if values else {}) | ({"host": host} if host else {})


def restore(optimizer: Optimizer, named: Named, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Put back what `moments`, `counts` and `plain` found, into an optimizer that has not made a step.

    Moments take the layout of their parameter in memory, as the optimizer itself would have created them.

    Raises:
        StorageError: it is not the state of such an optimizer.
    """
    saved: dict[str, Any] = {**tensors, **record.get("values", {})}
    places: dict[str, Any] = {f"optimizer.{name}": parameter for name, parameter in named.items()}
    groups = {f"groups.{index}": group for index, group in enumerate(optimizer.param_groups)}
    found = {name.rpartition(".")[0] for name in saved} - groups.keys()
    if found and found != places.keys():
        raise StorageError(f"checkpoint lacks or adds optimizer state: {few(found ^ places.keys())}")
    in_group = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    for name, value in saved.items():
        place, _, key = name.rpartition(".")
        if place in groups:
            groups[place][key] = value.clone() if isinstance(value, Tensor) else value
            continue
        parameter = places[place]
        host = key in record.get("host", ()) or (key == "step" and not _on_device(in_group[parameter]))
        optimizer.state[parameter][key] = _placed(value, parameter, host) if isinstance(value, Tensor) else value


def _placed(value: Tensor, parameter: nn.Parameter, host: bool) -> Tensor:
    if value.shape == parameter.shape:
        like = torch.empty_like(parameter, dtype=value.dtype)
    else:
        like = torch.empty_like(value, device="cpu" if host else parameter.device)
    return like.detach().copy_(value)


def _on_device(group: Mapping[str, Any]) -> bool:
    """Whether counts of steps lie beside their parameters: torch's rule, which timm follows."""
    return bool(group.get("fused") or group.get("capturable"))


def _of_parameters(optimizer: Optimizer, named: Named) -> Iterator[tuple[str, Any]]:
    for name, parameter in named.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            yield f"optimizer.{name}.{key}", value


def _of_groups(optimizer: Optimizer) -> Iterator[tuple[str, Any]]:
    """What a group holds beside its parameters and the options that the optimizer was made with."""
    for index, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if isinstance(value, Tensor) or key not in ("params", "param_names", *optimizer.defaults):
                yield f"groups.{index}.{key}", value


def _key(name: str) -> str:
    return name.rpartition(".")[2]


def few(names: Iterable[str]) -> str:
    """The first three names, and how many there are beside them."""
    listed = sorted(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
