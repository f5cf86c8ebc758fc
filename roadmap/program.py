"""What starts a training, as messages and reports name it."""

import argparse
import sys

from roadmap.files import INSTALLED

PROGRAM = "convnext-roadmap"  # of pyproject.toml's [project.scripts]; puts its name and command into sys.argv[0]


def train_command() -> str:
    """`python run.py` in a checkout; the installed command where that was typed, or where there is no checkout."""
    return f"{PROGRAM} train" if INSTALLED or sys.argv[0].startswith(f"{PROGRAM} ") else "python run.py"


def place(text: str) -> str:
    """The type of a command's argument that is a path: an empty one, as of a shell's unset variable, is refused."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path; a folder is expected")
    return text
