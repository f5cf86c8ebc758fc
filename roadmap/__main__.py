"""`python -m roadmap`: the ladder as designs; `explain STEP`, `golden FILE` and `readme FILE` beside it. No torch."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from roadmap.errors import UserError
from roadmap.pipes import quietly
from roadmap.regimes import REGIMES
from roadmap.show.explain import explain
from roadmap.show.golden import write_golden
from roadmap.show.markers import update_file
from roadmap.show.tables import FORMATS, ladder_rows, readme_ladder
from roadmap.steps import CHANGES, STEPS


def _names(text: str) -> list[str]:
    """Split "[a,b]" or "a,b"."""
    return [name for name in text.strip("[]").replace(" ", "").split(",") if name]


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _parser() -> argparse.ArgumentParser:
    steps = ", ".join(step.name for step in STEPS)
    parser = argparse.ArgumentParser(prog="python -m roadmap", description="The roadmap's networks and what they cost.")
    parser.add_argument("--regime", choices=REGIMES, default="tiny", help="scale of the ladder (default: tiny)")
    parser.add_argument("--format", choices=tuple(FORMATS), default="table")
    parser.add_argument("--image-size", type=_positive, default=224, help="pixels (default: 224, as the paper counts)")
    parser.add_argument("--num-classes", type=_positive, default=1000)
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("explain", help="what a step is and what its change does", epilog=f"steps: {steps}")
    one.add_argument("step", metavar="STEP")
    one.add_argument("--regime", choices=REGIMES, default=argparse.SUPPRESS)
    one.add_argument("--add", type=_names, default=[], metavar="CHANGES", help=f"of {', '.join(CHANGES)}")
    one.add_argument("--drop", type=_names, default=[], metavar="CHANGES")
    one.add_argument(
        "--figure", dest="file", type=Path, metavar="FILE", help="also draw the block (PNG, SVG or PDF by the ending)"
    )
    golden = commands.add_parser("golden", help="rewrite the golden complexity file, unless it leaves the paper")
    golden.add_argument("file", type=Path)
    readme = commands.add_parser("readme", help="put the ladder table between the markers of a document")
    readme.add_argument("file", type=Path)
    return parser


def _explain(options: argparse.Namespace) -> None:
    size, classes = options.image_size, options.num_classes
    print(explain(options.step, options.regime, options.add, options.drop, size, classes))
    if options.file:
        from roadmap.show.diagram import save_diagram

        save_diagram(options.file, options.step, options.regime, options.add, options.drop)
        print(f"\nwrote {options.file}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code (0, or 2 with one line on stderr)."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "explain":
            _explain(options)
        elif options.command == "golden":
            write_golden(options.file)
        elif options.command == "readme":
            update_file(options.file, {"ladder": readme_ladder()})
        else:
            rows = ladder_rows(options.regime, options.image_size, options.num_classes)
            print(FORMATS[options.format](rows))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.filename is None or Path(error.filename) != getattr(options, "file", None):
            raise
        print(f"error: {options.file}: {error.strerror}", file=sys.stderr)
        return UserError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(quietly(main))
