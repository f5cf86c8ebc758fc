"""Resume at every step of a run with everything on, for five steps of the ladder and the recipe keys of later ladders.

A reference run of 60 steps saves after each; its directory is copied at that moment, exactly as a kill would leave it.
A fresh process then continues from every copy. Two things are compared: right after loading, every part of the live
state with the checkpoint, which names the part that is missing or stale; and at the end the files, byte for byte.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from experiments.store.checkpoint import Checkpoints, Loaded
from experiments.store.run_dir import RunDir
from experiments.strict_json import read_object
from tests.storms import fleet, hooks
from tests.storms.variants import RESUMED, Variant

STEPS = 60
Mutation = Callable[[Loaded, Loaded], Loaded]  # (this checkpoint, an earlier one) -> what the run is made to load


class Reference(NamedTuple):
    """An undisturbed run, and copies of its directory after each of its steps."""

    variant: Variant
    files: dict[str, bytes]
    snapshots: Path


def reference_of(variant: Variant, folder: Path) -> Reference:
    """Run a variant to its end, copying its directory after every step."""
    runs_dir, snapshots = folder / "runs", folder / "snapshots"
    command = variant.command(runs_dir, None, "checkpoint.every_steps=1", "checkpoint.background=false")
    child = fleet.start(command, folder / "log", hooks.snapshot_saves(snapshots))
    if child.wait(600) != 0:
        raise RuntimeError(f"{variant.name}: the undisturbed run failed: {child.text()}")
    found = sorted(int(path.name) for path in snapshots.iterdir())
    if found != list(range(1, STEPS + 1)):
        raise RuntimeError(f"{variant.name}: checkpoints after steps {found}")
    return Reference(variant, fleet.outcome(runs_dir), snapshots)


def loaded_from(runs_dir: Path) -> Loaded:
    """The newest checkpoint of the only run in `runs_dir`."""
    folder = fleet.only_run(runs_dir)
    place = RunDir(folder).checkpoints
    (manifest, *_) = place.glob("step-*/manifest.json")
    loaded = Checkpoints(place.parent, read_object(manifest, 1 << 26)["run_id"]).load()
    assert loaded is not None
    return loaded


def part_of(name: str) -> str:
    """The part of the state that a tensor belongs to: `optimizer.exp_avg`, `ema.running_mean`, `model.weight`, ..."""
    words = name.split(".")
    return f"{words[0]}.{words[-1]}"


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested record with dotted keys."""
    items: dict[str, Any] = {}
    for key, value in record.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return items


def unequal_parts(tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any], saved: Loaded) -> list[str]:
    """The parts in which a live state differs from a checkpoint."""
    names = tensors.keys() | saved.tensors.keys()
    wrong = {
        part_of(name)
        for name in names
        if name not in tensors or name not in saved.tensors or not torch.equal(tensors[name], saved.tensors[name])
    }
    live, kept = flat(record), flat({key: part for key, part in saved.state.items() if key != "starts"})
    wrong |= {key for key in live.keys() | kept.keys() if live.get(key) != kept.get(key)}
    return sorted(wrong)


def watch_restoring(
    saved: Loaded, report: Path, mutate: Callable[[Loaded], Loaded] | None = None
) -> Callable[[], None]:
    """Write the parts that differ right after loading to `report`; `mutate` spoils what is loaded (for controls)."""

    def prepare() -> None:
        from experiments.training import run as engine

        resume, load = engine.resume, Checkpoints.load

        def watched(job: Any) -> Any:
            history = resume(job)
            record = {**job.state.record(job.ranks), "history": job.run_dir.history()}
            tensors = {name: tensor.detach().cpu() for name, tensor in job.state.tensors(job.ranks).items()}
            report.write_text(json.dumps(unequal_parts(tensors, record, saved)))
            return history

        engine.resume = watched
        if mutate is not None:
            Checkpoints.load = lambda self: mutate(load(self))

    return prepare


def continued(
    reference: Reference, step: int, mutation: Mutation | None = None, stale_by: int = 1
) -> tuple[list[str], list[str], str]:
    """Continue from the copy after `step`: parts unequal after loading, files that differ, and what was said."""
    with tempfile.TemporaryDirectory(prefix="resume-") as name:
        runs_dir, report = Path(name) / "runs", Path(name) / "parts.json"
        shutil.copytree(reference.snapshots / f"{step:03d}", runs_dir)
        saved = loaded_from(runs_dir)
        mutate = None
        if mutation is not None:
            earlier = loaded_from(reference.snapshots / f"{step - stale_by:03d}")
            mutate = partial(_mutated, mutation=mutation, earlier=earlier)
        command = reference.variant.command(runs_dir)
        child = fleet.start(command, Path(name) / "log", watch_restoring(saved, report, mutate))
        if child.wait() != 0:
            return (json.loads(report.read_text()) if report.exists() else []), ["the run fails"], child.text()[-1500:]
        return json.loads(report.read_text()), fleet.differences(fleet.outcome(runs_dir), reference.files), ""


def _mutated(loaded: Loaded, mutation: Mutation, earlier: Loaded) -> Loaded:
    return mutation(loaded, earlier)


def trial(index: int, references: list[Reference]) -> str | None:
    """One resume; what went wrong, or None."""
    reference, step = references[index % len(references)], 1 + index // len(references) % STEPS
    parts, files, text = continued(reference, step)
    if not parts and not files:
        return None
    return f"{reference.variant.name}, resumed after step {step}: {parts} not restored; {files} differ {text}"


def run(count: int, seed: int = 0, jobs: int = 2) -> dict[str, Any]:
    """`count` resumes: every step of every reference run at the full size of 420."""
    with tempfile.TemporaryDirectory(prefix="resume-") as name:
        chosen = RESUMED[: max(1, min(count, len(RESUMED)))]
        references = [reference_of(variant, Path(name) / variant.name) for variant in chosen]
        results = fleet.every(partial(trial, references=references), count, jobs, "resume")
    return fleet.figures(
        results,
        f"resumed after {min(STEPS, len(results) // len(chosen))} of {STEPS} steps of {len(chosen)} runs with"
        " accumulation, mixup, cutmix, RandAugment, erasing, stochastic depth, EMA, clipping, loss scaler: identical",
    )
