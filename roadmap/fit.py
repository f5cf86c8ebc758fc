"""Whether weights are those of a network, and which flag would make them so."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from roadmap.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


class WeightsError(UserError, RuntimeError):
    """Weights that cannot be read, or do not fit a network."""


# The part of a name that only networks with this flag have -> the flag, its value with and without.
_TELLTALES = {"gamma": ("layer_scale", "1e-6", "None"), "grn": ("grn", "True", "False")}
_TELLTALES |= {"se": ("squeeze_excite", "0.25", "None")}


def check_fit(own: Mapping[str, "Tensor"], state_dict: Mapping[str, "Tensor"]) -> None:
    """Refuse weights whose names or shapes are not the network's, and say which flag would make them fit.

    BatchNorm's `num_batches_tracked`, which old files lack, may be missing.

    Raises:
        WeightsError: one line with the key and the flag.
    """
    missing = [name for name in own if name not in state_dict and not name.endswith("num_batches_tracked")]
    extra = [name for name in state_dict if name not in own]
    for part, (flag, value, off) in _TELLTALES.items():
        names = [name for name in (*missing, *extra) if part in name.split(".")]
        if names and len(names) == len(missing) + len(extra):
            verb, value = ("hold", value) if extra else ("lack", off)
            raise WeightsError(f"the weights {verb} {_few(names)}: the network must be built with {flag}={value}")
    wrong = [
        f"{name} {tuple(state_dict[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state_dict and state_dict[name].shape != tensor.shape
    ]
    kinds = {"lack": missing, "hold besides": extra, "differ in shape:": wrong}
    problems = [f"{verb} {_few(names)}" for verb, names in kinds.items() if names]
    if problems:
        raise WeightsError(f"the weights are of another network: they {'; they '.join(problems)}")


def _few(names: list[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
