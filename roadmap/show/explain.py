"""What a step is and what its change does: config, op order, cost and receptive field, in words."""

import dataclasses
import textwrap
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest

from roadmap import paper
from roadmap.changes import FILES
from roadmap.complexity import complexity_by_part, sum_of
from roadmap.design import FLAGS, Design
from roadmap.plan import BlockPlan, Ops, plan_network
from roadmap.resolve import design_for, label_of, set_of, step_at
from roadmap.show.tables import describe
from roadmap.steps import DEFAULT, Roadmap

SECTIONS = {
    "training techniques": "2.1",
    "macro design": "2.2",
    "ResNeXt-ify": "2.3",
    "inverted bottleneck": "2.4",
    "large kernel": "2.5",
    "micro design": "2.6",
}
MARKS = {"equal": " ", "replace": "*", "delete": "-", "insert": "+"}  # of a line that the change touches


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two designs side by side; without a parent, the first step stands on both sides."""

    title: str
    against: str
    before: Design
    after: Design

    @property
    def alone(self) -> bool:
        """True for the first step, which has nothing to be compared with."""
        return not self.against


def compare(
    step: str, regime: str = "tiny", add: Iterable[str] = (), drop: Iterable[str] = (), road: Roadmap = DEFAULT
) -> Comparison:
    """A step of a roadmap beside its parent, or with `add` or `drop` the altered set beside the step itself.

    Raises:
        DesignError: an unknown name, or a set that cannot be.
    """
    here = road.step_named(step)
    changes = set_of(step, add, drop, road)
    altered = changes != here.changes
    against = here.name if altered else here.parent or ""
    return Comparison(
        title=label_of(changes) if altered else here.name,
        against=against,
        before=design_for(road.by_name[against or here.name].changes, regime),
        after=design_for(changes, regime),
    )


def explain(
    step: str,
    regime: str = "tiny",
    add: Iterable[str] = (),
    drop: Iterable[str] = (),
    image_size: int = 224,
    num_classes: int = 1000,
    road: Roadmap = DEFAULT,
) -> str:
    """Compare a step with its parent, or with `add` or `drop` the altered set with the step itself, as text.

    Raises:
        DesignError: an unknown name, or a set that cannot be.
    """
    add, drop = tuple(add), tuple(drop)
    pair = compare(step, regime, add, drop, road)
    changes = set_of(step, add, drop, road)
    beside = f", compared with {pair.against}" if pair.against else ""
    among = f" of roadmap {road.name}" if road is not DEFAULT else ""
    own = add + drop or tuple(name for name in (step,) if name in changes)
    parts = [
        f"{pair.title}{among} in regime {regime}{beside}",
        _origins(step, changes, regime, (*add, *drop), road),
        "\n".join(
            [
                _wrapped(f"Changes in the set: {', '.join(changes) or 'none (ResNet)'}"),
                _wrapped(_config(pair)),
                *(_wrapped(line) for line in _training(own, regime)),
            ]
        ),
        _op_order(pair),
        _costs(pair, image_size, num_classes),
    ]
    return "\n\n".join(parts)


def _origins(step: str, changes: Sequence[str], regime: str, altered: Sequence[str], road: Roadmap) -> str:
    """Where it was published: its row, or the sections of the changes that make it another network."""
    name = step if not altered else step_at(changes, road.step_named(step).recipe, road)
    row = road.row(name, regime) if name else None
    if row:
        return _published(row, road)
    lines = [f"{_who(road)} has no row for it."]
    for change in altered or (step,):
        named = road.row(change)
        if named:
            lines.append(f"{_where(named, road)} is about {change}: {named.label}.")
    return "\n".join(lines)


def _who(road: Roadmap) -> str:
    return "The paper" if road is DEFAULT else road.title


def _where(row: paper.PaperRow, road: Roadmap) -> str:
    return f"Section {SECTIONS[row.section]} ({row.section})" if road is DEFAULT else f"{road.title} ({row.section})"


def _training(names: Iterable[str], regime: str) -> list[str]:
    """What changes set of the training, a line each."""
    deltas = {name: FILES[name].delta_in(regime) for name in names}
    keys = {name: {key: value for key, value in delta.items() if "." in key} for name, delta in deltas.items()}
    return [f"Of the training, {name} sets: {describe(delta)}" for name, delta in keys.items() if delta]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 118, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _published(row: paper.PaperRow, road: Roadmap) -> str:
    spread = f" ± {row.top1_std:.2f}" if row.top1_std is not None else ""
    parent = road.by_name[row.step].parent
    before = road.row(parent, row.regime) if parent else None
    gain = f", {row.top1 - before.top1:+.2f} on {before.step}" if before else ""
    printed = f"; {row.gflops:.2f} GFLOPs as printed" if row.gflops is not None else ""
    if row.gflops != row.gflops_counted:
        printed += f" ({row.gflops_counted:.2f} as counted: the printed column slipped)"
    where = f"Paper, {_where(row, road)}" if road is DEFAULT else f"{road.source}: {row.section}"
    return f"{_wrapped(f'{where}: {row.label}')}\n{row.top1:.2f}{spread} % top-1{gain}{printed}"


def _config(pair: Comparison) -> str:
    old, new = dataclasses.asdict(pair.before), dataclasses.asdict(pair.after)
    if pair.alone:
        return f"Design flags: {describe(new)}"
    changed = [flag for flag in FLAGS if old[flag] != new[flag]]
    moves = [f"{describe({flag: new[flag]})} (was {describe({flag: old[flag]}).split('=')[1]})" for flag in changed]
    return f"Design flags that differ: {', '.join(moves) or 'none; the training recipe does'}"


def words_of(ops: Ops) -> list[str]:
    """Operations in words, e.g. ["spatial 7x7 96 -> 96, groups 96", "ln", ...]."""
    return [op.row.words(op) for op in ops]


def block_words(block: BlockPlan) -> list[str]:
    """The operations of a block in order."""
    return [*words_of(block.branch), f"+ {', '.join(words_of(block.shortcut)) or 'x'}", *words_of(block.after)]


def _all_ops(design: Design) -> dict[str, list[str]]:
    plan = plan_network(design)
    number = min(2, len(plan.stages))  # the first stage with something in front of it
    stage = plan.stages[number - 1]
    parts = {"stem": words_of(plan.stem)}
    if number > 1:
        parts["between stages 1 and 2"] = words_of(stage.downsample)
    parts[f"first block of stage {number}"] = block_words(stage.blocks[0])
    if len(stage.blocks) > 1:
        parts["its other blocks"] = block_words(stage.blocks[-1])
    return {**parts, "head": words_of(plan.head)}


def _op_order(pair: Comparison) -> str:
    """Both designs' operations side by side, with a mark on each line that the change touches."""
    before, after = _all_ops(pair.before), _all_ops(pair.after)
    if pair.alone:
        return "\n".join(["Op order", *(_in_line(part, ops) for part, ops in after.items() if ops)])
    width = max(len(op) for ops in [*before.values(), [pair.against]] for op in ops)
    lines = ["Op order (* changed, + added, - taken away)", f"      {pair.against:{width}}  {pair.title}"]
    for part in dict.fromkeys([*before, *after]):
        aligned = _aligned(before.get(part, []), after.get(part, []))
        if {mark for mark, _, _ in aligned} <= {" "}:
            lines += [_in_line(f"{part}, the same", [op for _, op, _ in aligned])] * bool(aligned)
        else:
            lines += [f"  {part}", *(f"    {mark} {old:{width}}  {new}".rstrip() for mark, old, new in aligned)]
    return "\n".join(lines)


def _in_line(part: str, ops: Sequence[str]) -> str:
    """A part with all its operations, wrapped between them."""
    unbroken = " | ".join(op.replace(" ", "\N{NO-BREAK SPACE}") for op in ops)
    return _wrapped(f"  {part}: {unbroken}").replace("\N{NO-BREAK SPACE}", " ")


def _aligned(before: list[str], after: list[str]) -> list[tuple[str, str, str]]:
    """(mark, operation before, operation after) line by line; equal operations stand side by side."""
    lines = []
    for tag, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        for old, new in zip_longest(before[a:b], after[c:d], fillvalue=""):
            kind = tag if tag == "equal" or (old and new) else "delete" if old else "insert"
            lines.append((MARKS[kind], old, new))
    return lines


def _costs(pair: Comparison, image_size: int, num_classes: int) -> str:
    """Parameters, GMACs, activations and receptive field of every part, before and after."""
    sides = [pair.after] if pair.alone else [pair.before, pair.after]
    columns = [_cost_column(design, image_size, num_classes) for design in sides]
    quantities = ("params (M)", "GMACs", "activations (M)", "receptive field (px)")
    width = 10
    span = width * len(sides)
    header = " " * 11 + "".join(f"  {quantity:>{max(span, len(quantity))}}" for quantity in quantities)
    lines = [
        f"Cost per part at {image_size} px with {num_classes} classes" + ("" if pair.alone else "; before and after"),
        header,
    ]
    none = ("",) * len(quantities)
    for part in max(columns, key=len):  # two networks may have other numbers of stages
        cells = "".join(
            "  "
            + "".join(f"{column.get(part, none)[index]:>{width}}" for column in columns).rjust(max(span, len(quantity)))
            for index, quantity in enumerate(quantities)
        )
        lines.append(f"  {part:9}{cells}".rstrip())
    return "\n".join(lines)


def _cost_column(design: Design, image_size: int, num_classes: int) -> dict[str, tuple[str, ...]]:
    """Part -> its cells for one design."""
    costs = complexity_by_part(design, image_size=image_size, num_classes=num_classes)
    fields = {f"stages.{index}": f"{field:,}" for index, field in enumerate(receptive_fields(design))}
    names = {
        part: f"stage {int(part.removeprefix('stages.')) + 1}" if part.startswith("stages") else part for part in costs
    }
    rows = {**costs, "total": sum_of(costs.values())}
    return {
        names.get(part, part): (
            f"{cost.params / 1e6:.3f}",
            f"{cost.gmacs:.3f}",
            f"{cost.activations / 1e6:.3f}",
            fields.get(part, ""),
        )
        for part, cost in rows.items()
    }


def receptive_fields(design: Design) -> tuple[int, ...]:
    """Side in input pixels of what one output location of each stage can see (theoretical receptive field).

    Averages over the whole map (squeeze-and-excitation, GRN), which see everything, are left out.
    """
    plan = plan_network(design)
    field, jump = _seen(plan.stem, 1, 1)
    fields = []
    for stage in plan.stages:
        field, jump = _seen(stage.downsample, field, jump)
        for block in stage.blocks:
            field, jump = max(_seen(ops, field, jump) for ops in (block.branch, block.shortcut))
        fields.append(field)
    return tuple(fields)


def _seen(ops: Ops, field: int, jump: int) -> tuple[int, int]:
    """What a location sees behind these operations, and how far it is from there to the next."""
    for op in ops:
        field += (op.kernel - 1) * jump
        jump *= op.stride
    return field, jump
