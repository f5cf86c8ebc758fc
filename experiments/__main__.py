"""`python -m experiments COMMAND ...`: what surrounds training. Each command's module is imported only when it runs."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from roadmap.errors import UserError
from roadmap.pipes import quietly, refused

# name -> (module with `add_arguments(parser)` and `run(options) -> exit code`, one line of help)
COMMANDS = {
    "evaluate": (
        "experiments.commands.evaluate",
        "evaluate a trained network, or torchvision's or timm's weights, on a data set",
    ),
    "predict": ("experiments.commands.predict", "the likeliest classes of images, by a trained network"),
    "export": ("experiments.commands.export", "a trained network as a folder for the Hub, ONNX, torch.export, weights"),
    "push": ("experiments.commands.push", "a trained network to the Hugging Face Hub, with its model card"),
    "plan": ("experiments.commands.plan", "a study as a table: which runs, their state, hours, disk and cost"),
    "status": ("experiments.commands.status", "how every run of a folder stands, while a study runs and afterwards"),
    "settings": ("experiments.commands.settings", "every key of a run: its meaning, its values, its default"),
    "verify": ("experiments.commands.verify", "whether the finished runs of a folder are what they sealed"),
    "bench": ("experiments.bench.cli", "measure speed side by side with other libraries"),
}


def _parser(chosen: str | None, prog: str) -> argparse.ArgumentParser:
    """The parser; only the chosen command's options are filled in."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, text) in COMMANDS.items():
        own = commands.add_parser(name, help=text, description=text)
        if name == chosen:
            importlib.import_module(module).add_arguments(own)
    return parser


def _options(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed command line; Hydra's overrides may stand before and behind options, which argparse alone refuses."""
    options, rest = parser.parse_known_args(arguments)
    if rest and ("overrides" not in options or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    return options


def main(arguments: Sequence[str] | None = None, prog: str = "python -m experiments") -> int:
    """Run a command of `prog`; its exit code. A user's error is one line on stderr, a bug keeps its traceback."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    try:
        options = _options(_parser(chosen, prog), arguments)
        code: int = importlib.import_module(COMMANDS[options.command][0]).run(options)
    except UserError as error:
        return refused(error)
    return code


if __name__ == "__main__":
    sys.exit(quietly(main))
