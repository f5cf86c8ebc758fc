"""Commands whose output nobody reads to its end: `... | head -1`."""

import errno
import os
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


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "help"])  # argparse drops the error
def test_a_full_disk_behind_stdout_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with open("/dev/full", "w") as full:
        command = [sys.executable, *COMMANDS[name]]
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (5, "error: No space left on device\n")


@pytest.mark.parametrize("name", ["roadmap", "status", "analysis", "run --help"])
def test_a_command_whose_output_was_closed_does_its_work(name: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    command = ["sh", "-c", '"$@" >&- 2>&-', "sh", sys.executable, *COMMANDS[name]]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "report" / "report.html").exists() == (name == "analysis")


REFUSALS: dict[str, tuple[Exception, int, str]] = {
    "disk": (OSError(errno.ENOSPC, "No space left", "/r/f"), 5, "/r/f: No space left"),
    "name": (OSError(errno.ENAMETOOLONG, "File name too long", "/r/f"), 5, "/r/f: File name too long"),
    "folder": (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/r/f"), 5, "/r/f: Not a directory"),
    "right": (PermissionError(errno.EACCES, "Permission denied", "/r/f"), 5, "/r/f: Permission denied"),
    "a name that moves the cursor": (OSError(errno.EIO, "I/O error", "\x1b[2J"), 5, "\\x1b[2J: I/O error"),
    "memory": (MemoryError(), 10, "memory ran out (MemoryError)"),
    "memory, C++": (RuntimeError("std::bad_alloc"), 10, "memory ran out (std::bad_alloc)"),
    "memory, torch": (
        RuntimeError("[enforce fail at alloc_cpu.cpp:1]\nDefaultCPUAllocator: not enough memory: you tried 9 bytes."),
        10,
        "memory ran out (DefaultCPUAllocator: not enough memory: you tried 9 bytes.)",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_the_machine_refuses_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    error, code, line = REFUSALS[name]

    def main() -> int:
        raise error

    assert quietly(main) == code
    assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "gone", "f"), OSError("no number"), ValueError("x")])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    def main() -> int:
        raise error

    with pytest.raises(type(error)):
        quietly(main)


def test_a_name_that_is_no_text_is_printed(tmp_path: Path) -> None:
    code = "from roadmap.pipes import quietly; quietly(lambda: print('\\udcff', 'é'))"
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "\\udcff \\xe9\n"
