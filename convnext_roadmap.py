"""The console command `convnext-roadmap COMMAND ...`: every command of the packages under one name.

`train` is `python run.py`; those of `python -m experiments` are in its table; `analyse` is `python -m analysis`;
`ladder`, `explain` and `changes` are `python -m roadmap`. A command's module is imported when it is called.
"""

import importlib
import sys
from typing import Any

from experiments.__main__ import COMMANDS as RUNS
from experiments.runtime.signals import answer_from_the_start
from roadmap.pipes import quietly
from roadmap.program import PROGRAM

# name -> (module whose `main` does it, words in front of what was typed, one line of help)
COMMANDS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "train": ("experiments.commands.train", (), "train a step, a set of changes or a study; --help lists the steps"),
    **{name: ("experiments.__main__", (name,), text) for name, (_, text) in RUNS.items()},
    "analyse": ("analysis.__main__", (), "figures, tables and a report from run records or from the paper alone"),
    "ladder": ("roadmap.__main__", (), "a ladder as designs, with what each step costs"),
    "explain": ("roadmap.__main__", ("explain",), "what a step is and what its change does"),
    "changes": ("roadmap.__main__", ("changes",), "every change that there is, what it sets and where it stands"),
}
MISTAKE = 2


def help_page() -> str:
    """The commands with a line each."""
    lines = [f"usage: {PROGRAM} COMMAND ...", "", "The roadmap of 'A ConvNet for the 2020s'. Commands:", ""]
    lines += [f"  {name:<10} {text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join([*lines, "", f"{PROGRAM} COMMAND --help describes one."])


def main() -> Any:
    """Run the command that was typed; returns its exit code."""
    typed = sys.argv[1:]
    if not typed or typed[0] in ("--help", "-h"):
        print(help_page(), file=sys.stdout if typed else sys.stderr)
        return 0 if typed else MISTAKE
    name, *rest = typed
    if name not in COMMANDS:
        print(f"error: {name} is not a command of {PROGRAM}: {', '.join(COMMANDS)}", file=sys.stderr)
        return MISTAKE
    module, words, _ = COMMANDS[name]
    if name == "train":
        answer_from_the_start()  # what follows takes a second to import
    command = importlib.import_module(module).main
    sys.argv = [f"{PROGRAM} {name}", *rest]
    if name == "train":  # Hydra reads sys.argv
        return command()
    return command([*words, *rest], PROGRAM if words else f"{PROGRAM} {name}")


def script() -> None:
    """What the installed command calls."""
    sys.exit(quietly(main))


if __name__ == "__main__":
    script()
