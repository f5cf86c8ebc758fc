"""Signals before a run begins, and in one that is stuck: answered with the code of an interrupted run."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.errors import InterruptedRun
from experiments.runtime import signals
from experiments.runtime.signals import STOPPING, StopFlag
from experiments.store.run_dir import RunDir
from experiments.training import run as engine
from tests.experiments.training.runs import ROOT, command, environment, only_run, settings_of

STUCK = """
import ctypes, sys, time
from experiments.runtime import signals
signals.PATIENCE = 0.5
with signals.StopFlag() as flag:
    print("ready", flush=True)
    if sys.argv[1] == "slow":  # 1.2 s from one sign of work to the next, then the end
        for _ in range(4):
            signals.working()
            time.sleep(1.2)
        sys.exit(0)
    if sys.argv[1] == "saving":
        with signals.unhurried():
            time.sleep(2)
        sys.exit(0)
    while True:  # as in a collective: Python's handlers do not run
        ctypes.CDLL(None).sleep(30)
"""
FIRST_LINE = """
import signal, sys, time
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
from experiments.runtime.signals import answer_from_the_start
answer_from_the_start()
print("ready", flush=True)
try:
    time.sleep(30)
except BaseException:  # as some libraries do while they are imported
    time.sleep(30)
"""


def end_of(program: str, number: signal.Signals, *arguments: str, pause: float = 0) -> tuple[int, str, float]:
    """Exit code, error line and seconds of a program that gets a signal once it says so."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(pause)
            child.send_signal(number)
            began = time.monotonic()
            _, said = child.communicate(timeout=20)
        finally:
            child.kill()
    return child.returncode, said, time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_signal_while_libraries_are_imported_ends_at_once(number: signal.Signals) -> None:
    code, said, seconds = end_of(FIRST_LINE, number)
    assert (code, said.count("\n")) == (75, 1), said
    assert seconds < 5


def test_a_signal_that_the_parent_had_ignored_stays_ignored() -> None:
    code = FIRST_LINE.split("print(")[0] + "print(signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


def test_run_py_answers_before_it_imports_anything_large() -> None:
    code = "import sys; sys.argv = ['run.py']; import run; print([m for m in ('hydra', 'torch') if m in sys.modules])"
    lines = (ROOT / "run.py").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if "answer_from_the_start()" in line)
    assert first < next(number for number, line in enumerate(lines) if "commands.train" in line)
    probe = "import experiments.runtime.signals, sys; print([m for m in ('hydra', 'torch') if m in sys.modules])"
    for text, expected in ((code, "['hydra']"), (probe, "[]")):
        done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, env=environment(), capture_output=True, text=True)
        assert done.stdout.strip() == expected, done.stderr


def test_a_stuck_run_ends_although_it_never_looks_at_its_flag() -> None:
    code, said, seconds = end_of(STUCK, signal.SIGTERM, "stuck")
    assert code == 75
    assert "stopped by SIGTERM where nothing had moved" in said and said.count("\n") == 1
    assert seconds < 5


@pytest.mark.parametrize("how, pause", [("slow", 2.0), ("saving", 0)])
def test_a_run_that_gets_on_or_saves_is_given_its_time(how: str, pause: float) -> None:
    assert end_of(STUCK, signal.SIGTERM, how, pause=pause)[0] == 0


def test_a_signal_that_came_before_the_flag_was_up_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_put_off", signal.SIGUSR2)
    with StopFlag() as flag:
        assert flag.requested and signals.stop_requested()
    with StopFlag() as flag:
        assert not flag.requested
    assert not signals.stop_requested()


@pytest.mark.parametrize("phase", ["_contents", "open_data", "resume", "announce"])
@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_between_start_and_first_step_leaves_with_75(
    phase: str, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(engine, phase)

    def signalled(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(number)
        return original(*arguments, **options)

    settings = settings_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(engine, phase, signalled)
        patch.setattr(engine, "run_epoch", None)  # it does not begin
        with pytest.raises(InterruptedRun, match="before its first step"):
            engine.run(settings)
    assert RunDir(only_run(tmp_path)).state() == "half"
    if number == STOPPING[0]:
        engine.run(settings)
        assert RunDir(only_run(tmp_path)).state() == "finished"


def test_a_signal_in_mid_import_of_a_run_leaves_nothing(tmp_path: Path) -> None:
    """The real program: as soon as it answers signals at all, which is long before it has imported torch."""
    process = subprocess.Popen(command(tmp_path), cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)
    status, mask = Path(f"/proc/{process.pid}/status"), 1 << (signal.SIGTERM - 1)
    try:
        while not int(status.read_text().split("SigCgt:")[1].split()[0], 16) & mask:
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, said.count("\n")) == (75, 1), said
    assert not list(tmp_path.iterdir())
