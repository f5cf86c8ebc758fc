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
RUNNING = ("analysis", "roadmap", "experiments", "hydra_plugins", "conf")


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


def environment(copy: Path, words: list[str]) -> dict[str, str]:
    """Take the variables off the front of a command; what it runs in."""
    own = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        own[name] = value
    return {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", **own}


@pytest.mark.parametrize("name", SECTIONS)
def test_an_example_works_as_written(name: str, tmp_path: Path) -> None:
    for part in RUNNING:
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", tmp_path)
    earlier = [text for text in SECTIONS if "one's own" in text] if "one's own" in name else [name]
    blocks = [block for section in earlier[: earlier.index(name) + 1] for block in BLOCK.findall(SECTIONS[section])]
    for language, title, text in blocks:
        if language != "sh":
            (tmp_path / title).parent.mkdir(parents=True, exist_ok=True)
            carry_out(language, tmp_path / title, text)
    commands = [
        line for language, _, text in BLOCK.findall(SECTIONS[name]) if language == "sh" for line in text.splitlines()
    ]
    trained = [line for line in commands if " run.py " in line]
    assert trained
    for words in map(shlex.split, commands):
        variables = environment(tmp_path, words)
        program, *arguments = words
        assert program == "python"
        arguments += ["device=cpu"] * ("run.py" in arguments)
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    runs = list((tmp_path / "runs").glob("*/result.json"))
    assert len(runs) == len(trained)
    for run in runs:
        assert yaml.safe_load((run.parent / "config.yaml").read_text())["regime"] == "micro"
    if name == "A logger":
        assert sorted((run.parent / "metrics.csv").read_text().count("\n") for run in runs) == [3, 4]
