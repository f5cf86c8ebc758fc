"""docs/extend.md does what it says: each example is carried out in a copy of the project and its command trains."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", (ROOT / "docs" / "extend.md").read_text(), re.M | re.S))
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)
RUNNING = ("roadmap", "experiments", "hydra_plugins", "conf")


def carry_out(language: str, path: Path, text: str) -> None:
    """Write a new file, or add a diff's lines behind the one that stands before them (at the end where none does)."""
    if language != "diff":
        assert not path.exists()
        path.write_text(text)
        return
    context = "".join(line[1:] for line in text.splitlines(keepends=True) if line[0] == " ")
    added = "".join(line[1:] for line in text.splitlines(keepends=True) if line[0] == "+")
    before = path.read_text()
    assert not context or before.count(context) == 1, f"{context!r} must stand once in {path.name}"
    path.write_text(before.replace(context, context + added) if context else before + added)


@pytest.mark.parametrize("name", SECTIONS)
def test_an_example_works_as_written(name: str, tmp_path: Path) -> None:
    for part in RUNNING:
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", tmp_path)
    commands = []
    for language, title, text in BLOCK.findall(SECTIONS[name]):
        if language == "sh":
            commands += [shlex.split(line) for line in text.splitlines()]
        else:
            carry_out(language, tmp_path / title, text)
    assert commands
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    for program, *arguments in commands:
        assert program == "python"
        done = subprocess.run(
            [sys.executable, *arguments, "device=cpu"], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    runs = list((tmp_path / "runs").glob("*/result.json"))
    assert len(runs) == len(commands)
    for run in runs:
        assert yaml.safe_load((run.parent / "config.yaml").read_text())["regime"] == "micro"
    if name == "A logger":
        assert (runs[0].parent / "metrics.csv").read_text().count("\n") == 3
