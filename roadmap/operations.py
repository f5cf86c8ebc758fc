"""`OPERATIONS`: what each kind of operation costs, is called and looks like; `layers.MODULES` has its module.

A plan is rows of `Op`. Network, complexity, explain and diagram know of an operation only what these two tables say.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Op:
    """One operation of a plan. Its output side is ceil(side / stride).

    Attributes:
        role: the group in its part of the network, also the module's name there, e.g. "pw_in"; "" outside a group.
        name: its own name in there, e.g. "conv", "norm".
        kind: its row of `OPERATIONS`.
        value: what some kinds start from or are set to: layer scale, a rate, hidden channels.
    """

    role: str
    name: str
    kind: str
    c_in: int
    c_out: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    value: float = 0.0

    @property
    def path(self) -> str:
        """Its module's name in its part, e.g. "pw_in.conv"."""
        return f"{self.role}.{self.name}".lstrip(".")

    @property
    def row(self) -> "Operation":
        """What is known of its kind."""
        return OPERATIONS[self.kind]

    @property
    def params(self) -> int:
        """Learned parameters."""
        return self.row.params(self)

    def macs(self, positions: int) -> int:
        """Multiply-accumulates for `positions` output locations, of convolutions and linear layers."""
        return self.row.macs(self, positions)

    def activations(self, positions: int) -> int:
        """Elements of the outputs of convolutions and linear layers."""
        return self.row.activations(self, positions)


@dataclass(frozen=True)
class Operation:
    """A kind of operation.

    Attributes:
        look: how it is drawn: "conv", "norm", "act", "scale" or "pool".
        label: what stands in its shape.
        words: what it is called in a list of operations.
        detail: what stands beside its shape.
        params, macs, activations: see `Op`.
    """

    look: str
    label: Callable[[Op], str]
    words: Callable[[Op], str] = lambda op: op.kind
    detail: Callable[[Op], str] = lambda op: ""
    params: Callable[[Op], int] = lambda op: 0
    macs: Callable[[Op, int], int] = lambda op, positions: 0
    activations: Callable[[Op, int], int] = lambda op, positions: 0


def _weights(op: Op) -> int:
    return op.c_out * (op.c_in // op.groups) * op.kernel**2


def _conv_words(op: Op) -> str:
    """Role, kernel, channels; groups and stride where they are not 1."""
    role = "conv" if op.role in ("stem", "downsample") else op.role
    groups = f", groups {op.groups}" if op.groups > 1 else ""
    stride = f", stride {op.stride}" if op.stride > 1 else ""
    return f"{role} {op.kernel}x{op.kernel} {op.c_in} -> {op.c_out}{groups}{stride}{', bias' if op.bias else ''}"


def _conv_detail(op: Op) -> str:
    """Channels, grouping and stride, e.g. "96 → 96, depthwise, stride 2"."""
    parts = [f"{op.c_in} → {op.c_out}"]
    if op.groups > 1:
        parts.append("depthwise" if op.groups == op.c_in else f"{op.groups} groups")
    if op.stride > 1:
        parts.append(f"stride {op.stride}")
    return ", ".join(parts)


def _norm(label: str) -> Operation:
    return Operation("norm", lambda op: label, params=lambda op: 2 * op.c_out)  # scale and shift


def _act(label: str) -> Operation:
    return Operation("act", lambda op: label)


def _named(look: str, text: Callable[[Op], str], **costs: Any) -> Operation:
    """An operation with one name for list and drawing; terminals get an "x" for "×"."""
    return Operation(look, text, lambda op: text(op).replace("×", "x"), **costs)


_COUNTED: dict[str, Any] = {  # of convolutions and linear layers
    "detail": _conv_detail,
    "params": lambda op: _weights(op) + op.c_out * op.bias,
    "macs": lambda op, positions: positions * _weights(op),
    "activations": lambda op, positions: positions * op.c_out,
}

NORMS = {"bn": _norm("BN"), "ln": _norm("LN")}
ACTS = {"relu": _act("ReLU"), "gelu": _act("GELU")}
OPERATIONS: dict[str, Operation] = {
    "conv": Operation("conv", lambda op: f"{op.kernel}×{op.kernel}", _conv_words, **_COUNTED),
    **NORMS,
    **ACTS,
    "max_pool": _named("pool", lambda op: f"max-pool {op.kernel}×{op.kernel}, stride {op.stride}"),
    "avg_pool": _named("pool", lambda op: f"avg-pool {op.kernel}×{op.kernel}, stride {op.stride}"),
    "grn": _norm("GRN"),
    "squeeze_excite": Operation(  # two 1x1 convolutions with bias, at one location
        "scale",
        lambda op: f"SE {op.value:g}",
        lambda op: f"squeeze-excite {op.c_in} -> {op.value:g} -> {op.c_out}",
        params=lambda op: op.macs(1) + op.activations(1),
        macs=lambda op, positions: 2 * op.c_out * int(op.value),
        activations=lambda op, positions: op.c_out + int(op.value),
    ),
    "layer_scale": _named("scale", lambda op: f"layer scale {op.value:g}", params=lambda op: op.c_out),
    "drop_path": _named("scale", lambda op: f"stochastic depth {op.value:.3g}"),
    "dropout": _named("scale", lambda op: f"dropout {op.value:.3g}"),
    "global_pool": _named("pool", lambda op: "global average pooling"),
    "linear": _named("conv", lambda op: "linear classifier", **_COUNTED),
}
