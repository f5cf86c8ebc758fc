"""`python -m experiments settings`: every key of a run, what it means, which values it takes and its default."""

import argparse
from pathlib import Path

from experiments.config.reference import tables
from roadmap.errors import UserError
from roadmap.show.markers import update_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("document", nargs="?", type=Path, help="put the tables between the markers of this file")


def run(options: argparse.Namespace) -> int:
    """Print the tables, or put each into its place in a document; returns the exit code."""
    if options.document is None:
        print("\n\n".join(tables().values()))
        return 0
    try:
        update_file(options.document, tables())
    except OSError as error:
        raise UserError(f"{options.document}: {error.strerror}") from None
    return 0
