"""Two owners of one run: whatever the moment at which one of them stops and the other goes on, one at most seals."""

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.config.identity import Identity
from experiments.errors import ClaimedError, DataError, StorageError
from experiments.store import atomic, lock, origin, starts
from experiments.store.checkpoint import STATE, Checkpoints
from experiments.store.result import read_result
from experiments.store.run_dir import RunDir
from roadmap.weights import weights_file
from tests.experiments.store.test_run_dir import result_for, settings_for
from tests.storms.hooks import CountedOs

RUN = "a" * 64
EPOCHS = 5
Action = Callable[[RunDir], None]


def begun(runs_dir: Path) -> RunDir:
    """A new start of the run, without its claim: as on a host that shares no locks."""
    settings = settings_for(runs_dir)
    run = RunDir.locate(settings)
    run.start(settings, Identity.of(settings))
    return run


def trained(runs_dir: Path) -> RunDir:
    """A start that has come to its end and has a checkpoint; its name is in everything that it wrote."""
    run = begun(runs_dir)
    name = run.place.name
    run.cut_back([{"epoch": epoch, "by": name} for epoch in range(1, EPOCHS + 1)])
    store = Checkpoints(run.place, RUN, background=False)
    store.inherit(run.earlier())
    store.save(7, {"x": torch.zeros(3)}, {"by": name})
    return run


def seal(run: RunDir) -> None:
    """What the end of a run writes."""
    with run.owned():
        name = run.place.name
        atomic.replace(run.weights, [name.encode()])
        atomic.replace(run.described, [b"{}"])
        atomic.link(run.linked, starts.WEIGHTS)
        run.seal(result_for(starts=[{"start": name}]))


def check_sealed(path: Path) -> str:
    """The start that sealed the run, of which every file must be."""
    run = RunDir(path)
    name = str(read_result(run.result)["starts"][-1]["start"])
    assert [line["by"] for line in run.history()] == [name] * EPOCHS
    assert weights_file(path).read_bytes() == name.encode()
    assert run.weights.read_bytes() == name.encode()
    assert run.described.read_bytes() == b"{}"
    assert list(run.checkpoints.glob("step-*"))
    return name


def during(patch: pytest.MonkeyPatch, call: int, other: Callable[[], object], work: Callable[[], object]) -> int:
    """Do `work`; before its `call`-th disk call the other owner acts. Returns the number of calls."""
    with patch.context() as inner:
        inner.setattr(os, "fsync", lambda descriptor: None)
        calls: list[str] = []

        def hook(_: int, name: str) -> None:
            if name in ("fsync", "write"):  # which change nothing that others see
                return
            calls.append(name)
            if len(calls) == call:
                with patch.context() as outside:
                    for module, what in ((atomic, "os"), (atomic, "shutil"), (lock, "os")):
                        outside.setattr(module, what, os if what == "os" else atomic_shutil)
                    other()

        stand_in, atomic_shutil = CountedOs(hook), atomic.shutil
        for module, what in ((atomic, "os"), (atomic, "shutil"), (lock, "os")):
            inner.setattr(module, what, stand_in)
        work()
    return len(calls)


def calls_of(work: Action, patch: pytest.MonkeyPatch, folder: Path) -> int:
    """The disk calls of an owner that nobody disturbs, with an earlier start before it."""
    begun(folder / "counted")
    run = trained(folder / "counted")
    count = during(patch, 0, lambda: None, lambda: work(run))
    assert count > 15
    return count


def outcome(run: RunDir, work: Action) -> str:
    """How an owner ends: 0 or 6, as its process would; another error fails the test."""
    try:
        work(run)
    except ClaimedError as error:
        return "taken over" if "\n" not in str(error) else str(error)
    return "sealed"


def retire_and_seal(run: RunDir) -> None:
    with run.owned():
        run.retire_earlier()
    seal(run)


def without_links(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.fixture(params=["links", "no links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system with and one without hard links."""
    if request.param == "no links":
        monkeypatch.setattr(os, "link", without_links)
    return str(request.param)


@pytest.mark.parametrize("other", ["seals", "retires the first", "retires and seals", "starts over"])
def test_one_owner_seals_wherever_the_first_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str, links: str
) -> None:
    """The first owner stops before each of its disk calls in turn, and wakes when the second has done its part."""
    for call in range(1, calls_of(seal, monkeypatch, tmp_path) + 1):
        begun(tmp_path / str(call))
        first, ends = trained(tmp_path / str(call)), []
        path = first.path

        def second(path: Path = path, ends: list[str] = ends) -> None:
            if other == "starts over":
                RunDir(path).clear()
            run = begun(path.parent) if other == "starts over" else trained(path.parent)
            act = {"seals": seal, "retires the first": RunDir.retire_earlier, "retires and seals": retire_and_seal}
            ends.append(outcome(run, act.get(other, lambda run: None)))

        during(monkeypatch, call, second, lambda first=first, ends=ends: ends.append(outcome(first, seal)))
        _check(other, ends, path, f"disk call {call}")


def _check(other: str, ends: list[str], path: Path, where: str) -> None:
    RunDir(path).finish()
    if other in ("seals", "retires and seals"):
        assert sorted(ends) == ["sealed", "taken over"], where
        check_sealed(path)
        assert not (path / starts.FOLDER).exists(), where
    elif other == "retires the first":  # the second goes on, unless the first had sealed the run before
        second, first = ends
        assert (second, first) in [("sealed", "taken over"), ("taken over", "sealed")], where
        assert RunDir(path).result.exists() == (first == "sealed"), where
        assert first == "taken over" or check_sealed(path), where
    else:  # what the first one sealed before it was cleared away is its own affair
        assert not RunDir(path).result.exists(), where
        assert len(starts.listed(path)) == 1, where
        assert not (path / starts.WEIGHTS).exists(), where


def test_a_first_owner_that_wakes_while_the_second_retires_it_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: str
) -> None:
    for call in range(1, calls_of(retire_and_seal, monkeypatch, tmp_path) + 1):
        first, second = trained(tmp_path / str(call)), trained(tmp_path / str(call))
        ends: list[str] = []

        def wakes(first: RunDir = first, ends: list[str] = ends) -> None:
            ends.append(outcome(first, seal))

        during(monkeypatch, call, wakes, lambda run=second, ends=ends: ends.append(outcome(run, retire_and_seal)))
        RunDir(first.path).finish()
        assert sorted(ends) == ["sealed", "taken over"], call
        check_sealed(first.path)
        assert not (first.path / starts.FOLDER).exists()


class _Killed(BaseException):
    pass


def test_a_kill_while_a_run_is_sealed_is_finished_and_readers_see_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: str
) -> None:
    def killed() -> None:
        raise _Killed

    for call in range(1, calls_of(seal, monkeypatch, tmp_path) + 1):
        begun(tmp_path / str(call))
        run = trained(tmp_path / str(call))

        def work(run: RunDir = run) -> None:
            with suppress(_Killed):
                seal(run)

        during(monkeypatch, call, killed, work)
        if RunDir(run.path).state() == "finished":
            check_sealed(run.path)
        RunDir(run.path).finish()
        if RunDir(run.path).state() == "finished":
            check_sealed(run.path)
            assert {path.name for path in run.path.iterdir()}.isdisjoint({starts.FOLDER, starts.SEALED})
        else:
            assert RunDir(run.path).state() == "half"
            again = trained(run.path.parent)
            seal(again)
            assert check_sealed(run.path) != run.place.name


def test_a_late_owner_writes_nothing_and_does_not_make_its_folder_again(tmp_path: Path) -> None:
    first = trained(tmp_path)
    place = first.place
    second = trained(tmp_path)
    second.retire_earlier()
    store = Checkpoints(place, RUN, background=False)
    for write in (
        lambda: first.append_metrics({"epoch": 6}),
        lambda: first.append_timing({"epoch": 6}),
        lambda: store.save(8, {"x": torch.ones(3)}, {}),
        lambda: first.cut_back([{"epoch": 1}]),
    ):
        with pytest.raises(ClaimedError, match="taken over by another start"), first.owned():
            write()
    first.fail(DataError("late"))
    assert not place.exists()
    assert not second.error.exists()
    assert [line["by"] for line in RunDir(first.path).history()] == [second.place.name] * EPOCHS


def test_a_failure_of_an_older_start_is_not_the_runs(tmp_path: Path) -> None:
    first = begun(tmp_path)
    second = begun(tmp_path)
    first.fail(DataError("late"))
    assert second.state() == "half"
    second.fail(DataError("now"))
    assert second.state() == "failed"


def test_a_new_start_shares_the_checkpoints_and_the_timing_of_those_before(tmp_path: Path, links: str) -> None:
    first = trained(tmp_path)
    first.append_timing({"epoch": 1, "seconds": 2.0})
    second = begun(tmp_path)
    store = Checkpoints(second.place, RUN, background=False, after=second.retire_earlier)
    store.inherit(second.earlier())
    second.cut_back([])
    (theirs,), (ours,) = (run.checkpoints.glob("step-*") for run in (first, second))
    assert theirs.name == ours.name
    assert ((theirs / STATE).stat().st_ino == (ours / STATE).stat().st_ino) == (links == "links")
    assert second.timings() == [{"epoch": 1, "seconds": 2.0}]
    loaded = store.load()
    assert loaded is not None
    assert loaded.step == 7
    store.save(9, {"x": torch.ones(3)}, {})
    assert starts.listed(first.path) == [second.place]
    assert [path.name[:13] for path in sorted(second.checkpoints.glob("step-*"))] == ["step-00000007", "step-00000009"]


def test_a_run_of_a_version_without_starts_goes_on(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    path = RunDir.locate(settings).path
    path.mkdir()
    Checkpoints(path, RUN, background=False).save(3, {"x": torch.zeros(3)}, {})
    (path / "metrics.jsonl").write_text('{"epoch":1}\n')
    assert RunDir(path).history() == [{"epoch": 1}]
    run = begun(tmp_path)
    loaded = Checkpoints(run.place, RUN).load()
    assert loaded is not None
    assert loaded.step == 3
    assert not (path / "checkpoints").exists()


@pytest.mark.parametrize(
    "epochs, asked", [([1, 2, 3, 4, 5, 5], 5), ([1, 2, 4, 5], 5), ([2, 1, 3, 4, 5], 5), (list(range(1, 6)), 6), ([], 5)]
)
def test_a_record_has_every_epoch_once(tmp_path: Path, epochs: list[int], asked: int) -> None:
    run = begun(tmp_path)
    run.cut_back([{"epoch": epoch} for epoch in epochs])
    with pytest.raises(ValueError, match=r"result\.json: epochs=5") as caught:
        run.seal(result_for(recipe={"name": "enhanced", "epochs": asked}, starts=[{"start": run.place.name}]))
    assert "\n" not in str(caught.value)
    assert not run.result.exists()


def entry(name: str, first: int, last: int, **values: Any) -> dict[str, Any]:
    common = {"device": "cpu", "threads": 1, "versions": {"torch": "2.5"}, "commit": "c"}
    return {"start": name, "from_step": first, "to_step": last, **common, **values}


def test_the_starts_of_a_run_are_kept_with_the_steps_that_it_has_of_them() -> None:
    kept = [entry("1", 0, 10), entry("2", 10, 20, threads=2)]
    known = [*kept[:1], entry("2", 10, 10), {**entry("3", 0, 0), "from_step": None}, {"start": "4", "threads": 2}]
    found = origin.continued(known, kept, 20)
    assert [(one["start"], one["from_step"], one["to_step"]) for one in found] == [
        ("1", 0, 10), ("2", 10, 20), ("3", 20, 20), ("4", 20, 20),
    ]  # fmt: skip
    assert origin.until(found, 25)[-1]["to_step"] == 25
    assert origin.until(found, 25)[:-1] == found[:-1]
    assert origin.continued([{"start": "4"}], kept, 20)[:2] == kept
    assert origin.continued([{"start": "4"}], [], 20) == [{"start": "4", "from_step": 20, "to_step": 20}]


def test_what_may_change_the_last_bits_is_named() -> None:
    mixed = [
        entry("1", 0, 10),
        entry("lost", 10, 10, threads=9),
        entry("2", 10, 20, threads=2, versions={"torch": "2.6"}),
        entry("3", 20, 30, threads=2, versions={"torch": "2.6"}, commit="d"),
    ]
    assert origin.changes(mixed) == ["from step 10 on: torch 2.5 -> 2.6, threads 1 -> 2"]
    assert origin.changes([entry("1", 0, 10), {"start": "2", "from_step": 10, "to_step": 20}]) == []


def test_a_run_of_a_thousand_starts_lists_a_hundred_or_so() -> None:
    kept = [entry(str(number), number, number + 1, threads=1 + number // 500) for number in range(1000)]
    found = origin.continued([{**entry("last", 0, 0, threads=2)}], kept, 1000)
    assert len(found) == 3
    assert [one.get("starts", 1) for one in found] == [500, 500, 1]
    assert [(one["from_step"], one["to_step"]) for one in found] == [(0, 500), (500, 1000), (1000, 1000)]
    assert origin.changes(found) == origin.changes(kept)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"starts": 3}', b'{"starts": [{"start": 1}]}', b'{"starts": [3]}'])
def test_a_damaged_list_of_starts_stops_no_run(tmp_path: Path, content: bytes) -> None:
    first = begun(tmp_path)
    (first.place / origin.STARTS_FILE).write_bytes(content)
    assert [one["start"] for one in begun(tmp_path).starts()] in ([], [starts.listed(first.path)[-1].name])


def test_every_start_is_known_to_those_after_it(tmp_path: Path) -> None:
    names = [begun(tmp_path).place.name for _ in range(3)]
    run = begun(tmp_path)
    run.retire_earlier()
    assert [one["start"] for one in run.starts()] == [*names, run.place.name]
    assert [one["start"] for one in json.loads((run.place / origin.STARTS_FILE).read_text())["starts"]] == [
        *names,
        run.place.name,
    ]


def test_a_start_whose_folder_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = RunDir.locate(settings_for(tmp_path)).path
    path.mkdir()
    monkeypatch.setattr(atomic.os, "mkdir", full)
    with pytest.raises(StorageError, match="No space left") as caught:
        starts.begin(path)
    assert "\n" not in str(caught.value)


def test_a_whole_record_is_put_back_when_it_came_in_place_of_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This start saw a damaged record, slept, and wakes when another one has set it aside and sealed the run anew."""
    run = trained(tmp_path)
    seal(run)
    before = run.result.read_bytes()
    run.result.write_bytes(b"damaged")

    def looked(_: Path) -> bool:
        atomic.replace(run.result, [before])
        return True

    monkeypatch.setattr(starts, "_is_damaged", looked)
    starts.begin(run.path)
    assert run.result.read_bytes() == before
    assert (run.path / starts.METRICS).exists()
    assert not (run.path / starts.DAMAGED).exists()


def test_a_link_that_was_made_and_denied_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As over NFS, where the answer to the first request may be lost."""
    run, link = trained(tmp_path), os.link

    def denied(*arguments: Any, **options: Any) -> None:
        link(*arguments, **options)
        link(*arguments, **options)

    monkeypatch.setattr(atomic.os, "link", denied)
    seal(run)
    check_sealed(run.path)


def test_a_link_in_the_place_of_the_starts_is_not_followed(tmp_path: Path) -> None:
    path = begun(tmp_path / "runs").path
    (tmp_path / "outside").mkdir()
    atomic.remove(path / starts.FOLDER)
    (path / starts.FOLDER).symlink_to(tmp_path / "outside")
    begun(tmp_path / "runs")
    assert not list((tmp_path / "outside").iterdir())
