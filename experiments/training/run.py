"""One run from start to sealed record. Reads top to bottom: rendezvous, record, data, network, resume, epochs, seal."""

import dataclasses
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from experiments.config.identity import Identity
from experiments.config.settings import Settings
from experiments.data import open_data, with_checksum
from experiments.errors import ClaimedError, DivergedError, InterruptedRun, StorageError
from experiments.runtime.device import pick_device, process_switches
from experiments.runtime.distributed import Ranks, detected, ranks_of
from experiments.runtime.failures import machine_failures
from experiments.runtime.signals import StopFlag, stop_requested
from experiments.store import atomic
from experiments.store.checkpoint import Loaded, save_weights
from experiments.store.lock import claim
from experiments.store.origin import changes, continued
from experiments.store.result import read_result
from experiments.store.run_dir import RunDir, public
from experiments.strict_json import dump
from experiments.training.loggers import MirroredRun, Mirrors
from experiments.training.loop import Job, NonFiniteError, run_epoch
from experiments.training.progress import Reporter
from experiments.training.start import with_weights
from experiments.training.summary import compose_result, origin_of
from roadmap.pretrained import Pretrained

log = logging.getLogger(__name__)


def run(settings: Settings) -> dict[str, Any]:
    """Train what `settings` ask for, or finish what an earlier call began; returns the sealed record.

    A finished run is not trained again. Under torchrun or SLURM every process calls this with the same settings.

    Raises:
        ConfigError, DataError, StorageError, ClaimedError, MissingExtraError, LostRankError, ResourceError: see
            experiments.errors.
        InterruptedRun: a signal stopped it; there is a checkpoint.
        DivergedError: the loss stopped being finite; the record is sealed and says so.
    """
    rendezvous = detected()
    device = pick_device(settings.device, rendezvous.local_rank)
    switches = process_switches(device, settings.threads, settings.precision, settings.deterministic)
    with (
        StopFlag() as stop,
        switches,
        ranks_of(rendezvous, device) as ranks,
        ExitStack() as stack,
        machine_failures(ranks.verdict),
    ):
        # ---- the record
        checksum, weights = ranks.on_main(lambda: _contents(settings))
        settings = settings.replace(data=dataclasses.replace(settings.data, checksum=checksum), init_weights=weights)
        identity = Identity.of(settings)
        run_dir = RunDir.locate(settings, identity)
        sealed = ranks.on_main(lambda: _take(run_dir, settings, identity, device, ranks.world_size, stack))
        if sealed is not None:
            return _repeat(sealed, run_dir, ranks)
        _leave_if_asked(ranks)
        # ---- the work
        stack.enter_context(_failure_recorded(run_dir, ranks))
        stack.enter_context(machine_failures(ranks.verdict))  # also what is noticed while things are closed
        return _work(settings, identity, ranks, device, run_dir, stop, stack)


def _leave_if_asked(ranks: Ranks) -> None:
    """Stop before the first step where a signal asks any rank for it; all ranks call this at the same point."""
    if ranks.any(stop_requested()):
        raise InterruptedRun("stopped before its first step, with nothing to save: the same command goes on")


def _contents(settings: Settings) -> list[str | None]:
    """Hashes of what a run reads: its data, and the weights that it starts from."""
    return [with_checksum(settings.data).checksum, with_weights(settings).init_weights]


@contextmanager
def _failure_recorded(run_dir: RunDir, ranks: Ranks) -> Iterator[None]:
    """Leave error.json after an error, unless there is a checkpoint or a record for it, or the run is another's now."""
    ranks.when_lost = run_dir.fail
    try:
        with run_dir.owned():
            yield
    except (InterruptedRun, DivergedError, ClaimedError):
        raise
    except Exception as error:
        if ranks.main:
            run_dir.fail(error)
        raise


def _take(
    run_dir: RunDir, settings: Settings, identity: Identity, device: torch.device, world_size: int, stack: ExitStack
) -> dict[str, Any] | None:
    """The sealed record if there is one; else claim the directory until `stack` closes and begin."""
    if settings.rerun or (sealed := _sealed(run_dir)) is None:
        stack.enter_context(claim(run_dir.path))
        if settings.rerun:
            run_dir.clear()
        sealed = _sealed(run_dir)  # by the owner before, or what a kill came between
    if sealed is None:
        threads, version = torch.get_num_threads(), torch.__version__
        origin = origin_of(settings, device, world_size)
        with run_dir.owned():
            run_dir.start(settings, identity, origin, device=str(device), torch=version, threads=threads)
    return sealed


def _sealed(run_dir: RunDir) -> dict[str, Any] | None:
    """The sealed record, in its final form; None without one."""
    run_dir.finish()
    try:
        return read_result(run_dir.result)
    except ValueError:  # none, or a damaged one, which `start` sets aside
        return None


def _repeat(sealed: dict[str, Any], run_dir: RunDir, ranks: Ranks) -> dict[str, Any]:
    """Report a run that is sealed already."""
    if sealed["status"] == "diverged":
        raise DivergedError(f"{run_dir.path} diverged at step {sealed['diverged']['step']}; rerun=true starts it over")
    if ranks.main:
        Reporter.line(f"{run_dir.path} is finished: top1 {sealed['top1']:.2f}; rerun=true starts it over")
    return sealed


def _work(
    settings: Settings,
    identity: Identity,
    ranks: Ranks,
    device: torch.device,
    run_dir: RunDir,
    stop: StopFlag,
    stack: ExitStack,
) -> dict[str, Any]:
    """Train, evaluate and seal; everything opened here is closed by `stack`, also after an error."""
    # ---- data
    source = open_data(settings, device=device)
    stack.callback(source.close)
    _leave_if_asked(ranks)
    # ---- network and everything that changes with it
    job = Job.of(settings, source, run_dir, device=device, ranks=ranks, identity=identity, stop=stop, report=ranks.main)
    stack.callback(job.checkpoints.close)
    _leave_if_asked(ranks)
    # ---- resume
    history = resume(job)
    mirrored = MirroredRun(
        run_dir.path, identity.run_id, identity.asked, settings.step, settings.study, settings.changes
    )
    mirrors = Mirrors(settings.logger, mirrored, enabled=ranks.main)
    stack.callback(mirrors.close)
    mirrors.replay(history)
    announce(job)
    _leave_if_asked(ranks)
    # ---- epochs
    try:
        with job.reporter:
            while job.state.counters.epoch < settings.recipe.epochs:
                mirrors.log(run_epoch(job))
    except NonFiniteError as problem:
        broken = problem
        source.damage.share(ranks)
        ranks.on_main(lambda: seal(job, broken))
        raise DivergedError(f"{broken}: {run_dir.path} is sealed as diverged; its last good checkpoint stays") from None
    # ---- seal
    result: dict[str, Any] = ranks.on_main(lambda: seal(job))
    mirrors.keep(run_dir.weights, run_dir.result)
    return result


def resume(job: Job) -> list[dict[str, Any]]:
    """Continue from the newest checkpoint that verifies, if there is one; returns the metrics up to there."""
    found: list[Loaded] = []

    def load() -> dict[str, Any] | None:
        job.checkpoints.inherit(job.run_dir.earlier())
        found.extend(filter(None, [job.checkpoints.load()]))
        return found[0].state if found else None

    record = job.ranks.on_main(load)
    history: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []  # none in checkpoints of versions that did not list the starts
    if record is not None:
        tensors = job.ranks.share_tensors(found[0].tensors if found else None)
        try:
            job.state.restore(tensors, record, job.ranks)
            history = [dict(line) for line in record["history"]]
            kept = [dict(entry) for entry in record.get("starts", [])]
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # whole, but written by something else
            raise StorageError(
                f"{job.run_dir.checkpoints}: the newest checkpoint is no state of this run ({error!r:.80}): remove it"
            ) from None
    job.ranks.on_main(lambda: _continue(job, history, kept))
    return history


def _continue(job: Job, history: list[dict[str, Any]], kept: list[dict[str, Any]]) -> None:
    """Put the record of the run where the checkpoint is (rank 0 only); warn of values that change its last bits."""
    job.run_dir.cut_back(history)
    job.starts = continued(job.run_dir.starts(), kept, job.step)
    job.run_dir.note_starts(job.starts)
    for line in changes(job.starts)[-1:]:
        if line.startswith(f"from step {job.step} on"):
            log.warning("the run goes on with other values, and its last bits are those of neither: %s", line)


def announce(job: Job) -> None:
    """Say what is about to be trained, with the batch arithmetic and the learning rate that follows."""
    settings, recipe, layout = job.settings, job.settings.recipe, job.layout
    job.reporter.say(
        f"{settings.label} ({settings.regime}) on {settings.data.name}, seed {settings.seed} -> {job.run_dir.path}"
    )
    job.reporter.say(
        f"{layout}; {layout.steps} steps per epoch, {recipe.epochs} epochs; peak learning rate {settings.lr:g}"
        f" ({recipe.optimizer}, {recipe.schedule}, {recipe.warmup_epochs:g} warm-up epochs)"
    )
    job.reporter.say(
        f"{settings.precision} on {job.device}, {torch.get_num_threads()} threads, compile={settings.compile}"
    )
    if job.step:
        job.reporter.say(f"continues after step {job.step} of {job.total_steps}")


def _save_network(job: Job) -> None:
    """The final weights, their average where there is one, and what timm and the Hub need beside them."""
    place, state = job.run_dir, job.state
    save_weights(place.weights, state.model.state_dict())
    if state.ema is not None:
        save_weights(place.averaged, state.ema.module.state_dict())
    asked = {**public(job.settings), "run_id": job.identity.run_id}
    described = Pretrained.of_run(asked, job.source.class_names)
    atomic.replace(place.described, [dump(described.config(), indent=1)])
    atomic.link(place.linked, place.weights.name)


def seal(job: Job, error: NonFiniteError | None = None) -> dict[str, Any]:
    """Write the final weights and the record (rank 0 only); with `error` the record of a diverged run."""
    job.checkpoints.wait()
    diverged = None
    if error is None:
        _save_network(job)
    else:
        kept = sorted(path.name for path in job.run_dir.checkpoints.glob("step-*"))
        diverged = {"step": error.step, "checkpoint": kept[-1] if kept else None}
    counters = job.state.counters
    counters.wall_seconds += time.monotonic() - job.started
    return job.run_dir.seal(compose_result(job, diverged))
