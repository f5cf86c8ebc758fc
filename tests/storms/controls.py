"""Negative controls: every part of the state is dropped or left stale in turn, and the resume suite must notice.

A control passes when the suite names the part, among those that differ from the checkpoint right after loading or in
the program's own refusal. How many show in the final files too is reported beside: a stale average of the weights, for
one, changes no file of a run whose averaged accuracy happens to come out the same.
"""

import dataclasses
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from experiments.store.checkpoint import Loaded
from tests.storms import fleet
from tests.storms.resume import Mutation, Reference, continued, part_of, reference_of
from tests.storms.variants import RESUMED

STEP = 29  # of 60: within the third epoch
STALE_BY = 14  # steps: the earlier checkpoint lies in the second epoch


class Control(NamedTuple):
    """A part of the state, and how it is spoilt."""

    part: str
    how: str
    mutation: Mutation


def _tensors(chosen: Callable[[str], bool], value: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Mutation:
    """Replace the chosen tensors by value(this, earlier)."""

    def mutation(this: Loaded, earlier: Loaded) -> Loaded:
        changed = {name: value(tensor, earlier.tensors[name]) for name, tensor in this.tensors.items() if chosen(name)}
        assert changed
        return dataclasses.replace(this, tensors=this.tensors | changed)

    return mutation


def _stale(part: str) -> Control:
    return Control(part, "stale", _tensors(lambda name: part_of(name) == part, lambda this, earlier: earlier))


def _reset(part: str) -> Control:
    """Dropped: what a run that did not save the part would go on with."""
    return Control(part, "reset", _tensors(lambda name: part_of(name) == part, lambda this, earlier: 0 * this))


def _missing(part: str) -> Control:
    def mutation(this: Loaded, earlier: Loaded) -> Loaded:
        kept = {name: tensor for name, tensor in this.tensors.items() if part_of(name) != part}
        return dataclasses.replace(this, tensors=kept)

    return Control(part, "missing", mutation)


def _record(key: str, how: str, value: Callable[[Any, Any], Any]) -> Control:
    """Replace one value of the JSON state by value(this, earlier)."""
    *path, last = key.split(".")

    def mutation(this: Loaded, earlier: Loaded) -> Loaded:
        state, inner, old = dict(this.state), {}, earlier.state
        inner = state
        for word in path:
            inner[word] = dict(inner[word])
            inner, old = inner[word], old[word]
        inner[last] = value(inner[last], old[last])
        return dataclasses.replace(this, state=state)

    return Control(key, how, mutation)


def _earlier(this: Any, earlier: Any) -> Any:
    return earlier


CONTROLS = (
    _stale("model.weight"),
    _stale("model.bias"),
    _stale("model.gamma"),
    _stale("model.running_mean"),
    _reset("model.running_var"),
    _stale("model.num_batches_tracked"),
    _stale("ema.weight"),
    _missing("ema.weight"),
    _stale("ema.running_mean"),
    _stale("optimizer.exp_avg"),
    _reset("optimizer.exp_avg_sq"),
    _missing("optimizer.exp_avg"),
    _stale("optimizer.step"),
    _record("scaler.scale", "stale", lambda this, earlier: this * 4),
    _record("scaler._growth_tracker", "stale", _earlier),
    _record("counters.epoch", "stale", _earlier),
    _record("counters.step", "stale", _earlier),
    _record("counters.loss_sum", "stale", _earlier),
    _record("counters.loss_count", "stale", _earlier),
    _record("history", "stale", _earlier),
)


def trial(index: int, references: list[Reference]) -> tuple[bool, str | None]:
    """One spoilt part: whether the files show it too, and why the suite would not have noticed (None: it does)."""
    control = CONTROLS[index % len(CONTROLS)]
    needs_batch_norm = control.part.split(".")[-1] in ("running_mean", "running_var", "num_batches_tracked")
    reference = references[0 if needs_batch_norm else 1]
    parts, files, text = continued(reference, STEP, control.mutation, STALE_BY)
    named = control.part in parts or (bool(files) and control.part.split(".")[-1] in text)
    problem = f"{control.part} {control.how}: the suite names {parts}, {files or 'no file'} {text[-300:]}"
    return bool(files), None if named else problem


def run(count: int, seed: int = 0, jobs: int = 2) -> dict[str, Any]:
    """The first `count` controls."""
    count = min(count, len(CONTROLS))
    with tempfile.TemporaryDirectory(prefix="controls-") as name:
        chosen = (RESUMED[1], RESUMED[4])  # with BatchNorm, with LayerNorm and layer scale
        references = [reference_of(variant, Path(name) / variant.name) for variant in chosen]
        results = fleet.every(partial(trial, references=references), count, jobs, "controls")
    failures = [problem for _, problem in results if problem]
    return {
        "passed": len(results) - len(failures),
        "total": len(results),
        "what": "parts of the state dropped or left stale: the resume suite fails and names the part",
        "contrast": {"also seen in the final files:": sum(visible for visible, _ in results)},
        "parts": [f"{control.part} {control.how}" for control in CONTROLS[:count]],
        "failures": fleet.listed(failures),
    }
