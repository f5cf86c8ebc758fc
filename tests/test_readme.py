"""What the README shows is true: its commands compose, its Python runs, its quotations and tables match the code."""

import re
import shlex
import subprocess
import sys

import pytest

from experiments import errors
from roadmap.errors import UserError
from roadmap.markers import between
from roadmap.tables import readme_ladder
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("python run.py")]


def first_job(command: str) -> list[str]:
    """The arguments of a command; of a multirun, those of its first job."""
    words = shlex.split(command, comments=True)[1:]
    if "-m" not in words:
        return words
    return [word if "[" in word else word.split(",")[0] for word in words if word != "-m"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command: str) -> None:
    arguments = [sys.executable, *first_job(command), "--cfg", "job"]
    shown = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "recipe:" in shown.stdout


@pytest.mark.parametrize("block", blocks("python"))
def test_python_runs(block: str) -> None:
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_and_code_are_there_to_be_tested() -> None:
    assert len(COMMANDS) >= 6
    assert len(blocks("python")) >= 2


def test_ladder_table_is_what_the_command_writes() -> None:
    assert between(README, "ladder").strip() == readme_ladder()


def test_quoted_step_is_the_file() -> None:
    assert (ROOT / "conf" / "step" / "kernel_7.yaml").read_text(encoding="utf-8") in blocks("yaml")


def test_exit_codes_are_those_of_the_code() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, UserError)]
    table = README.split("## Exit codes")[1].split("\n## ")[0]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE)}
    assert listed == {0, 1} | {kind.exit_code for kind in classes}


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"({page.name})" not in index] == ["index.md"]
