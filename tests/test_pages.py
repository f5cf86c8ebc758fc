"""The pages of docs/ say what is so.

What networks.md and own_data.md show works, in the order in which it stands there; settings.md is fresh, and
troubleshooting.md quotes what the program says.
"""

import re
import shlex
import subprocess
import sys
from glob import glob
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.config.reference import GROUPS, LEADING, keys, tables
from experiments.config.schema import known_keys
from experiments.config.settings import SECTIONS
from roadmap.show.markers import between
from tests.conftest import ROOT
from tests.test_extend import BLOCK, environment

QUICK = {"networks.md": [], "own_data.md": ["recipe.epochs=1"]}


def words_of(line: str, folder: Path) -> list[str]:
    """A command's words as a shell in `folder` would hand them over."""
    line = re.sub(r"\$\(echo (\S+)\)", lambda match: " ".join(glob(match[1], root_dir=folder)), line)
    return [name for word in shlex.split(line) for name in glob(word, root_dir=folder) or [word]]


@pytest.mark.parametrize("page", QUICK)
def test_a_page_works_as_written(page: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "photos" / "black.png")
    carried_out = 0
    for language, title, text in BLOCK.findall((ROOT / "docs" / page).read_text()):
        if title:
            (tmp_path / title).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / title).write_text(text)
            continue
        for line in [text] if language == "python" else text.splitlines():
            words = ["python", "-c", line] if language == "python" else words_of(line, tmp_path)
            variables, (program, *arguments) = environment(ROOT, words), words
            assert program == "python"
            if arguments[0] == "run.py":
                arguments = [str(ROOT / "run.py"), *arguments[1:], *QUICK[page], "device=cpu", "workers=0"]
            done = subprocess.run(
                [sys.executable, *arguments], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            carried_out += 1
    assert carried_out >= 3


def test_the_settings_page_has_every_key_with_its_meaning() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    for name, table in tables().items():
        assert between(page, name).strip() == table, "python -m experiments settings docs/settings.md"
    shown = {key.name for section in ("", *SECTIONS) for key in keys(section)}
    shown |= {name.lstrip("+") for name in (*LEADING, *GROUPS)} | set(SECTIONS)
    files = ("regime.", "roadmap.", "study.", "changes", "instead")  # what only files say: docs/extend.md
    assert [key for key in known_keys() if key not in shown and not key.startswith(files)] == []


def test_what_the_troubleshooting_page_quotes_is_said_somewhere() -> None:
    sources = [path.read_text() for part in ("roadmap", "experiments") for path in (ROOT / part).rglob("*.py")]
    said = re.sub(r'"\s*\n\s*f?"', "", "\n".join(sources))  # strings in pieces are one
    rows = re.findall(r"^\| ([^|]*`[^|]+) \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)
    quotes = [quote for row in rows for quote in re.findall(r"`([^`]+)`", row)]
    assert len(quotes) > 20
    assert [quote for quote in quotes if quote not in said] == []
