"""Commands whose output nobody reads to its end: `... | head -1`."""

import subprocess
import sys
from pathlib import Path

import pytest

from roadmap.pipes import quietly
from tests.conftest import ROOT

SMALL = ("regime=micro", "device=cpu", "recipe.epochs=1", "data.train_images=64", "data.eval_images=32")
COMMANDS = {
    "roadmap": ("-m", "roadmap", "--format", "json"),
    "explain": ("-m", "roadmap", "explain", "kernel_7"),
    "help": ("-m", "analysis", "--help"),
    "plan": ("-m", "experiments", "plan", "--speed", "none", "+study=macro", "--format", "json", *SMALL),
    "status": ("-m", "experiments", "status", "runs"),
    "analysis": ("-m", "analysis", "paper", "--out", "report", "--formats", "svg"),
    "run --help": (str(ROOT / "run.py"), "--help"),
    "run --cfg": (str(ROOT / "run.py"), "--cfg", "job", *SMALL),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_closed_pipe_ends_a_command_without_a_word(name: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    command = [sys.executable, *COMMANDS[name]]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert "Error" not in said and "Exception" not in said


def test_a_pipe_that_breaks_elsewhere_is_an_error() -> None:
    def main() -> int:
        raise BrokenPipeError("a worker's")

    with pytest.raises(BrokenPipeError, match="a worker's"):
        quietly(main)
