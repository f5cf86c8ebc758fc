"""The command line of `python -m roadmap`."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from roadmap.errors import UserError
from roadmap.regimes import REGIMES
from roadmap.show.explain import explain
from roadmap.show.golden import write_golden
from roadmap.show.markers import names_in, update_file
from roadmap.show.tables import FORMATS, change_rows, ladder_rows, readme_ladder
from roadmap.steps import DEFAULT, ROADMAPS, Roadmap, roadmap_named


def _names(text: str) -> list[str]:
    """Split "[a,b]" or "a,b"."""
    return [name for name in text.strip("[]").replace(" ", "").split(",") if name]


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _shared() -> argparse.ArgumentParser:
    """The options that stand in front of a command or behind it; those behind win, and say nothing where left out."""
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    shared.add_argument("--roadmap", metavar="NAME", help=f"of {', '.join(ROADMAPS)} (default: {DEFAULT.name})")
    shared.add_argument("--regime", choices=REGIMES, help="scale of the ladder (default: tiny)")
    shared.add_argument("--format", choices=tuple(FORMATS), help="of a table (default: table)")
    shared.add_argument("--image-size", type=_positive, help="pixels (default: as published, 224 for most)")
    shared.add_argument("--num-classes", type=_positive, help="default: 1000")
    return shared


DEFAULTS = {"roadmap": DEFAULT.name, "regime": "tiny", "format": "table", "image_size": None, "num_classes": 1000}


def _parser(prog: str) -> argparse.ArgumentParser:
    shared = [_shared()]
    parser = argparse.ArgumentParser(
        prog=prog, description="The roadmap's networks and what they cost.", parents=shared
    )
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("explain", help="what a step is and what its change does", parents=shared)
    one.add_argument("step", metavar="STEP")
    one.add_argument("--add", type=_names, default=[], metavar="CHANGES", help="see python -m roadmap changes")
    one.add_argument("--drop", type=_names, default=[], metavar="CHANGES")
    one.add_argument(
        "--figure", dest="file", type=Path, metavar="FILE", help="also draw the block (PNG, SVG or PDF by the ending)"
    )
    commands.add_parser("changes", help="every change that there is, what it sets and where it stands", parents=shared)
    golden = commands.add_parser("golden", help="rewrite the golden complexity file, unless it leaves the paper")
    golden.add_argument("file", type=Path)
    readme = commands.add_parser("readme", help="put the ladder tables between the markers of a document")
    readme.add_argument("file", type=Path)
    return parser


def _explain(options: argparse.Namespace, road: Roadmap) -> None:
    size, classes = options.image_size or road.image_size, options.num_classes
    print(explain(options.step, options.regime, options.add, options.drop, size, classes, road))
    if options.file:
        from roadmap.show.diagram import save_diagram

        how = (options.step, options.regime, options.add, options.drop, road)
        _written(options.file, lambda path: save_diagram(path, *how))
        print(f"\nwrote {options.file}")


def run(arguments: Sequence[str] | None, prog: str) -> None:
    """Do what the command line asks."""
    options = _parser(prog).parse_args(arguments, argparse.Namespace(**DEFAULTS))
    road = roadmap_named(options.roadmap)
    if options.command == "explain":
        _explain(options, road)
    elif options.command == "changes":
        print(FORMATS[options.format](change_rows(options.regime)))
    elif options.command == "golden":
        _written(options.file, lambda path: write_golden(path))
    elif options.command == "readme":
        _written(options.file, lambda path: update_file(path, _tables_in(path)))
    else:
        rows = ladder_rows(options.regime, options.image_size or road.image_size, options.num_classes, road)
        print(FORMATS[options.format](rows))


def _tables_in(path: Path) -> dict[str, str]:
    """The ladders whose markers stand in a document: `ladder` is ConvNeXt's, `ladder-NAME` that of another roadmap."""
    markers = {f"ladder-{road.name}": road for road in ROADMAPS.values()} | {"ladder": DEFAULT}
    wanted = [name for name in names_in(path.read_text()) if name in markers]
    return {name: readme_ladder(markers[name]) for name in wanted or ["ladder"]}


def _written(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file that was named; UserError where that cannot be."""
    try:
        write(path)
    except OSError as error:
        if error.filename is None or Path(error.filename) != path:
            raise
        raise UserError(f"{path}: {error.strerror}") from None
