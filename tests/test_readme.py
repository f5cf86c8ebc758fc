"""What the README shows is true: its commands compose, its Python runs, its quotations and tables match the code."""

import re
import shlex
import subprocess
import sys

import pytest

from experiments import errors
from experiments.bench.report import aims, attribution, tables
from experiments.config.compose import settings_from
from experiments.config.schema import compose
from experiments.studies.launch import expand
from roadmap.errors import UserError
from roadmap.show.markers import between
from roadmap.show.tables import readme_ladder
from roadmap.steps import DEFAULT, ROADMAPS
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAM = re.compile(r"(python|torchrun \S+) run\.py |python -m experiments plan ")


def blocks(language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every shown command that takes Hydra's overrides: in a block, or in a table's cell."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines + re.findall(r"\| `([^`]+)` \|", README) if PROGRAM.match(line)]


def jobs(command: str) -> list[list[str]]:
    """The overrides of each job that a command asks for; a study is left to the tests of studies."""
    words = shlex.split(PROGRAM.sub("", command), comments=True)
    overrides = [word for word in words if not word.startswith("-")]
    return expand(overrides, {"list": None, "sweep": {}}) if "-m" in words else [overrides]


@pytest.mark.parametrize("command", commands())
def test_commands_are_accepted(command: str) -> None:
    for overrides in jobs(command):
        typed = [*overrides, "device=cpu"]  # the precision of a GPU is chosen by asking it
        assert settings_from(compose(typed), typed).label


def test_the_sweep_has_all_its_jobs() -> None:
    (sweep,) = [command for command in commands() if " run.py -m " in command]
    assert len(jobs(sweep)) == 6


@pytest.mark.parametrize("block", blocks("python"))
def test_python_runs(block: str) -> None:
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_and_code_are_there_to_be_tested() -> None:
    assert len(commands()) >= 12
    assert len(blocks("python")) >= 2


def test_ladder_table_is_what_the_command_writes() -> None:
    assert between(README, "ladder").strip() == readme_ladder()


def test_the_tables_of_the_roadmaps_are_what_the_command_writes() -> None:
    page = (ROOT / "docs" / "roadmaps.md").read_text(encoding="utf-8")
    for road in ROADMAPS.values():
        if road is not DEFAULT:
            assert between(page, f"ladder-{road.name}").strip() == readme_ladder(road)


def test_bench_table_is_what_is_recorded() -> None:
    assert between(README, "bench").strip() == aims(ROOT / "results" / "bench")
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert between(page, "bench").strip() == tables(ROOT / "results" / "bench")
    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    assert between(page, "attribution").strip() == attribution(ROOT / "results" / "bench")


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
