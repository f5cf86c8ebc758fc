"""Ranks that die, stop, or fail by themselves: who it was, and what the others make of it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from experiments.errors import ConfigError, DataError, InterruptedRun, LostRankError, ResourceError, StoppedWaiting
from experiments.runtime import roll_call
from experiments.runtime.roll_call import RollCall
from experiments.store.run_dir import RunDir
from experiments.strict_json import read_object
from tests.experiments.training.runs import ROOT, command, environment, only_run


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """What connects to a store; signs of life every 0.05 s."""
    monkeypatch.setattr(roll_call, "BEAT_SECONDS", 0.05)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    kept = dist.TCPStore("127.0.0.1", free_port(), is_master=True, wait_for_workers=False)
    yield lambda: dist.TCPStore("127.0.0.1", kept.port, is_master=False, wait_for_workers=False)
    time.sleep(0.2)  # its readers end first


@pytest.fixture
def ranks(store: Callable[[], Any]) -> Iterator[list[RollCall]]:
    """Three ranks in one process, and nobody who ends it."""
    calls = [RollCall(rank, 3, store, lambda error: None) for rank in range(3)]
    time.sleep(0.3)
    yield calls
    for call in calls:
        call._closed.set()


@pytest.mark.parametrize(
    ("left", "seen", "words"),
    [
        (ResourceError("memory ran out"), LostRankError, "rank 1 of 3 has ended: memory ran out: the same command"),
        (LostRankError("rank 2 of 3 was killed"), LostRankError, "rank 2 of 3 was killed"),
        (DataError("unreadable\nmore"), DataError, "rank 1 of 3 has ended: unreadable"),
        (ConfigError("no such key"), ConfigError, "rank 1 of 3"),
        (StoppedWaiting("stopped"), StoppedWaiting, "rank 1 of 3 has ended: stopped"),
        (InterruptedRun("stopped"), InterruptedRun, "rank 1 of 3"),
        (KeyError("x"), RuntimeError, r"rank 1 of 3 has ended: 'x' \(KeyError\)"),
    ],
)
def test_a_rank_that_fails_by_itself_says_why(ranks: list[RollCall], left: Exception, seen: type, words: str) -> None:
    ranks[1].close(left)
    verdict = ranks[2].verdict()
    assert type(verdict) is seen
    with pytest.raises(seen, match=words):
        raise verdict


@pytest.mark.parametrize("dead", [0, 1])
def test_a_rank_that_dies_is_known_by_its_silence(ranks: list[RollCall], dead: int, capfd: Any) -> None:
    ranks[dead]._closed.set()
    verdicts = [ranks[rank].verdict() for rank in range(3) if rank != dead]
    assert all(f"rank {dead} of 3 was killed" in str(verdict) for verdict in verdicts)
    assert capfd.readouterr().err.count("error: ") == (
        1 if dead == 0 else 0
    )  # rank 0's error is printed by the program


def test_ranks_that_live_or_left_in_peace_are_not_blamed(ranks: list[RollCall]) -> None:
    ranks[1].close(None)
    assert "all of them are alive" in str(ranks[2].verdict())


def test_a_silent_rank_ends_this_process(store: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[tuple[int, str]] = []
    monkeypatch.setattr(roll_call, "SILENT_SECONDS", 0.4)
    monkeypatch.setattr(roll_call, "leave", lambda code, line, speaks: ends.append((code, line)))
    told: list[Exception] = []
    one, other = (RollCall(rank, 2, store, told.append) for rank in range(2))
    time.sleep(0.8)
    assert not ends
    other._closed.set()
    deadline = time.monotonic() + 5
    while not ends and time.monotonic() < deadline:
        time.sleep(0.02)
    one._closed.set()
    assert ends[0][0] == 8 and ends[0][1].startswith("rank 1 of 2 has shown no life")
    assert [type(error) for error in told] == [LostRankError]


PROGRAM = """
import sys
from experiments.runtime import roll_call, signals
roll_call.SILENT_SECONDS, signals.PATIENCE = float(sys.argv.pop(1)), float(sys.argv.pop(1))
import run
run.main()
"""


@pytest.mark.parametrize(
    ("stopped", "silent", "patience", "number", "code"),
    [(1, 3, 60, None, 8), (0, 3, 60, None, 8), (1, 60, 2, signal.SIGTERM, 75)],
)
def test_a_stopped_rank_is_not_waited_for_without_end(
    stopped: int, silent: int, patience: int, number: signal.Signals | None, code: int, tmp_path: Path
) -> None:
    """Two ranks, one of them under SIGSTOP: the other one stays in a collective, and ends all the same."""
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    typed = command(tmp_path, "recipe.epochs=5000")[2:]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(silent), str(patience), *typed],
            cwd=ROOT,
            env=environment(**place, RANK=str(rank), LOCAL_RANK=str(rank)),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        deadline = time.monotonic() + 120
        while not any(tmp_path.rglob("metrics.jsonl")):
            assert time.monotonic() < deadline and not any(rank.poll() for rank in ranks)
            time.sleep(0.02)
        time.sleep(1.5)  # both have shown life
        os.kill(ranks[stopped].pid, signal.SIGSTOP)
        survivor = ranks[1 - stopped]
        if number is not None:
            survivor.send_signal(number)
        _, said = survivor.communicate(timeout=40)
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
    assert survivor.returncode == code, said
    run = RunDir(only_run(tmp_path))
    assert run.state() == "half"
    if code == 8:
        assert f"error: rank {stopped} of 2 has shown no life" in said
    if code == 8 and stopped == 1:  # rank 0 writes the record
        assert "rank 1 of 2" in read_object(run.error)["message"]
