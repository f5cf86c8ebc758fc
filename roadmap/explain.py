"""What a step is and what its change does: config, op order, cost and receptive field, in words."""

import dataclasses
from collections.abc import Iterable

from roadmap import paper
from roadmap.complexity import complexity_of, walk
from roadmap.design import FLAGS, Design
from roadmap.plan import BlockPlan, Conv, plan_network
from roadmap.resolve import design_for, label_of, set_of
from roadmap.steps import step_named
from roadmap.tables import as_table, describe

SECTIONS = {
    "training techniques": "2.1",
    "macro design": "2.2",
    "ResNeXt-ify": "2.3",
    "inverted bottleneck": "2.4",
    "large kernel": "2.5",
    "micro design": "2.6",
}


def explain(step: str, regime: str = "tiny", add: Iterable[str] = (), drop: Iterable[str] = ()) -> str:
    """Compare a step with its parent, or with `add` or `drop` the altered set with the step itself, as text.

    Raises:
        DesignError: an unknown name, or a set that cannot be.
    """
    here = step_named(step)
    changes = set_of(step, add, drop)
    altered = changes != here.changes
    after = design_for(changes, regime)
    before = design_for(here.name if altered else here.parent or here.name, regime)
    title = label_of(changes) if altered else here.name
    against = here.name if altered else here.parent
    parts = [
        f"{title} in regime {regime}" + (f", compared with {against}" if against else ""),
        _origin(step, regime),
        f"Changes in the set: {', '.join(changes) or 'none (ResNet)'}",
        f"Design flags that differ: {_difference(before, after)}",
        "Block, first of stage 2:\n" + _blocks(before, after, against or title, title),
        "Network:\n" + _costs(before, after, against or title, title),
        "Receptive field after each stage, pixels:\n" + _fields(before, after, against or title, title),
    ]
    return "\n\n".join(parts)


def _origin(step: str, regime: str) -> str:
    row = paper.row(step, regime)
    if row is None:
        return "The paper has no row for it."
    spread = f" ± {row.top1_std:.2f}" if row.top1_std is not None else ""
    return (
        f'Paper, Section {SECTIONS[row.section]} ({row.section}), row "{row.label}": '
        f"{row.top1:.2f}{spread} % top-1 at {row.gflops:.2f} GFLOPs as printed."
    )


def _difference(before: Design, after: Design) -> str:
    old, new = dataclasses.asdict(before), dataclasses.asdict(after)
    changed = {flag: new[flag] for flag in FLAGS if old[flag] != new[flag]}
    was = {flag: old[flag] for flag in changed}
    return f"{describe(changed)}  (was {describe(was)})" if changed else "none"


def op_order(block: BlockPlan, design: Design) -> list[str]:
    """The operations of a block in order, e.g. ["spatial 7x7 96 -> 96, groups 96", "ln", ...]."""
    ops: list[str] = []
    for conv in block.convs:
        ops.append(describe_conv(conv))
        ops += [design.norm] * conv.norm + [design.act] * conv.act
    if design.layer_scale is not None:
        ops.append("layer scale")
    ops.append("+ x" if block.shortcut is None else f"+ {describe_conv(block.shortcut)}, {design.norm}")
    return ops + [design.act] * block.act_after_sum


def describe_conv(conv: Conv) -> str:
    """A convolution in words: role, kernel, channels, and groups and stride where they are not 1."""
    groups = f", groups {conv.groups}" if conv.groups > 1 else ""
    stride = f", stride {conv.stride}" if conv.stride > 1 else ""
    return f"{conv.role} {conv.kernel}x{conv.kernel} {conv.c_in} -> {conv.c_out}{groups}{stride}"


def _blocks(before: Design, after: Design, old: str, new: str) -> str:
    designs = {old: before, new: after}
    lines = []
    for name, design in designs.items():
        block = plan_network(design).stages[1].blocks[0]
        lines.append(f"  {name}: " + "\n    ".join(["", *op_order(block, design)]))
    return "\n".join(lines)


def _costs(before: Design, after: Design, old: str, new: str) -> str:
    rows = []
    for name, design in {old: before, new: after}.items():
        cost = complexity_of(design)
        rows.append({"": name, "params": cost.params, "gmacs": round(cost.gmacs, 2), "activations": cost.activations})
    return as_table(rows)


def _fields(before: Design, after: Design, old: str, new: str) -> str:
    rows = []
    for name, design in {old: before, new: after}.items():
        fields = receptive_fields(design)
        rows.append({"": name, **{f"stage {i}": field for i, field in enumerate(fields, 1)}})
    return as_table(rows)


def receptive_fields(design: Design) -> tuple[int, ...]:
    """Side in input pixels of what one output location of each stage can see (theoretical receptive field)."""
    plan = plan_network(design)
    field, jump = 1, 1
    after_stage: dict[int, int] = {}
    for name, conv, _ in walk(plan, 224):
        if name.endswith("shortcut"):
            continue  # sees less than the branch beside it
        field += (conv.kernel - 1) * jump
        jump *= conv.stride
        if name == "stem" and plan.max_pool:
            field += 2 * jump
            jump *= 2
        if name.startswith("stages"):
            after_stage[int(name.split(".")[1])] = field
    return tuple(after_stage[i] for i in sorted(after_stage))
