"""`python -m analysis.simulations NAME`: a table of what intervals and verdicts do where the truth is known."""

import argparse
import sys
from collections.abc import Sequence

from analysis.simulations import agreement, divergence, variance
from roadmap.pipes import quietly

TABLES = {"agreement": agreement, "divergence": divergence, "variance": variance}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table as Markdown; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m analysis.simulations", description=__doc__)
    parser.add_argument("name", choices=TABLES)
    parser.add_argument("--count", metavar="N", type=int, default=1000, help="data sets per row (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.count < 1:
        parser.error(f"--count {options.count} must be at least 1")
    table = TABLES[options.name]
    print("| " + " | ".join(table.HEAD) + " |")
    print("|" + "---|" * len(table.HEAD))
    for row in table.rows(options.count):
        print("| " + " | ".join(row) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(quietly(main))
