"""Commands whose output nobody reads to its end: `... | head -1`."""

import subprocess
import sys
from pathlib import Path

import pytest

from roadmap.pipes import quietly
from tests.conftest import ROOT

SMALL = ("regime=micro", "device=cpu", "recipe.epochs=1", "data.train_images=64", "data.eval_images=32")
TRAINING = ("+step=gelu", "batch.size=32", "batch.micro=32", "recipe.lr=1e-3", "data=synthetic", *SMALL)
COMMANDS = {
    "roadmap": ("-m", "roadmap", "--format", "json"),
    "explain": ("-m", "roadmap", "explain", "kernel_7"),
    "help": ("-m", "analysis", "--help"),
    "plan": ("-m", "experiments", "plan", "--speed", "none", "+study=macro", "--format", "json", *SMALL),
    "status": ("-m", "experiments", "status", "runs"),
    "verify": ("-m", "experiments", "verify", "runs"),
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


@pytest.mark.parametrize("stream", ["stdout", "both", "closed"])
def test_a_training_goes_on_without_a_reader(stream: str, tmp_path: Path) -> None:
    """`... | head -1`, `... 2>&1 | head -1` and `... >&-`: lines are dropped, the run is finished."""
    command = [sys.executable, str(ROOT / "run.py"), *TRAINING]
    if stream == "closed":
        done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        code, said = done.returncode, done.stderr
    else:
        errors = subprocess.PIPE if stream == "stdout" else subprocess.STDOUT
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            process.stdout.close()
            said = process.stderr.read() if process.stderr else ""
        code = process.returncode
        assert "gelu" in first
    assert (code, len(list(tmp_path.glob("runs/*/result.json")))) == (0, 1), said
    assert "Error" not in said and "Exception" not in said


def test_a_closed_stdout_is_no_files_descriptor(tmp_path: Path) -> None:
    """The next file that is opened would get descriptor 1, and what is printed by other means with it."""
    code = "import os; from roadmap.pipes import quietly; quietly(lambda: os.write(1, b'x') and print('y'))"
    subprocess.run(["sh", "-c", '"$@" >&-', "sh", sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_pipe_that_breaks_elsewhere_is_an_error() -> None:
    def main() -> int:
        raise BrokenPipeError("a worker's")

    with pytest.raises(BrokenPipeError, match="a worker's"):
        quietly(main)
