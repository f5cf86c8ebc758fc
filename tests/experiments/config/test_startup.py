"""What composing costs: `run.py --cfg job` and `--help` beside a bare Hydra program's, in CPU time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

BARE = """\
import hydra

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    pass

main()
"""
ROUNDS = 7


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("a: 1\n")
    (tmp_path / "bare.py").write_text(BARE)
    return tmp_path / "bare.py"


def cpu_seconds(*command: str) -> float:
    """User and system time of a child process: what another process does at the same time hardly shows."""
    before = os.times()
    subprocess.run([sys.executable, *command], capture_output=True, check=True, timeout=60)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


@pytest.mark.parametrize("arguments, limit", [(("--cfg", "job"), 2.0), (("--help",), 2.0)])
def test_start_beside_a_bare_program(arguments: tuple[str, ...], limit: float, bare: Path) -> None:
    """Ours checks and resolves the run that it shows, and knows every step; Hydra's prints what it composed."""
    pairs = [(cpu_seconds(str(ROOT / "run.py"), *arguments), cpu_seconds(str(bare), *arguments)) for _ in range(ROUNDS)]
    ours, theirs = (min(column) for column in zip(*pairs, strict=True))
    assert ours <= limit * theirs, f"{ours:.2f} s against {theirs:.2f} s"
